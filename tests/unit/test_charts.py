"""The drawings of the pages as what they are: well-formed SVG that says in words what it shows."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from server import charts

SVG = ET.Element


def _parse(svg: str) -> SVG:
    root = ET.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "nan" not in svg
    assert "inf" not in svg
    # The Content-Security-Policy forbids inline styles and scripts; colours come from the style sheet.
    assert not re.search(r"\sstyle=|<script|\son\w+=|#[0-9a-f]{6}", svg)
    return root


def _texts(root: SVG) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter("text")]


def _count(root: SVG, kind: str) -> int:
    return sum(kind in element.get("class", "").split() for element in root.iter())


def test_history_steps_up_at_each_best_and_labels_the_newest() -> None:
    points = [(0, 0.5), (1, 0.4), (2, 0.6), (3, 0.55), (40, 0.7)]
    root = _parse(charts.history(points, default=0.5, failed=[7, 9], link=lambda n: f"/c/a&b/{n}"))
    assert _count(root, "jump") == 3
    assert _count(root, "dot") == 2
    assert _count(root, "tick-failed") == 2
    assert _count(root, "default") == 1
    assert "#40 0.7000" in [" ".join(text.split()) for text in _texts(root)]
    (best,) = (element for element in root.iter("path") if element.get("class") == "best")
    assert best.get("d", "").count("V") == 2
    assert {element.get("href") for element in root.iter("a")} == {f"/c/a&b/{n}" for n in (0, 1, 2, 3, 40)}
    assert "the best is #40 with 0.7000, the default has 0.5000" in root.get("aria-label", "")


@pytest.mark.parametrize(
    "points",
    [[], [(0, 0.5)], [(0, 0.0)], [(0, 0.5), (1, 0.5), (2, 0.5)], [(5, -1.0), (6, -2.0)], [(n, 1e-9 * n) for n in range(50)]],
    ids=["none", "one", "zero", "equal", "negative", "tiny"],
)
def test_history_draws_every_shape_of_data(points: list[charts.Point]) -> None:
    _parse(charts.history(points, default=points[0][1] if points else None))


def test_one_diverged_training_does_not_flatten_the_others() -> None:
    points = [(n, 0.5 + 0.001 * (n % 7)) for n in range(40)] + [(40, 0.001)]
    root = _parse(charts.history(points))
    heights = [float(dot.get("cy", 0)) for dot in root.iter("circle") if dot.get("class") == "dot"]
    crowd = sorted(heights)[:-1]
    assert max(crowd) - min(crowd) > 60
    assert "(below the scale)" in ET.tostring(root, encoding="unicode")


def test_ten_thousand_candidates_stay_a_small_drawing() -> None:
    svg = charts.history([(n, 0.5 + (n * 7919 % 1000) / 1e4) for n in range(10_000)])
    _parse(svg)
    assert len(svg) < 150_000


def test_labels_of_jumps_do_not_cover_each_other() -> None:
    root = _parse(charts.history([(n, 0.1 + 0.01 * n) for n in range(60)]))
    at = sorted(float(text.get("x", 0)) for text in root.iter("text") if "jump-text" in text.get("class", ""))
    assert len(at) > 3
    assert all(right - left >= charts.LABEL_PX * 0.8 for left, right in itertools.pairwise(at))


def test_learning_curve_names_each_line_and_keeps_the_names_apart() -> None:
    series = [charts.Series(f"m{k}", [(1, 0.1), (2, 0.2 + k / 1000)]) for k in range(4)]
    series.append(charts.Series("default <b>", [(1, 0.1), (2, 0.2)], muted=True))
    series.append(charts.Series("not measured", []))
    root = _parse(charts.learning_curve(series, label="quality", until=10))
    names = [text for text in root.iter("text") if "name" in text.get("class", "").split()]
    assert len(names) == 5
    levels = sorted(float(text.get("y", 0)) for text in names)
    assert all(b - a >= 13.9 for a, b in itertools.pairwise(levels))
    assert "10" in _texts(root)


@pytest.mark.parametrize("points", [[], [(3, 0.2)], [(0, 0.0), (1, 0.0)]])
def test_learning_curve_draws_every_shape_of_data(points: list[charts.Point]) -> None:
    _parse(charts.learning_curve([charts.Series("loss", points)], label="x", zero=True))


def test_a_curve_of_one_epoch_is_seen_and_the_axis_shows_all_epochs() -> None:
    series = [charts.Series("train box", [(e, 1 / e) for e in range(1, 7)], hue=0)]
    series += [charts.Series("val box", [(6, 0.2)], hue=0, dashed=True), charts.Series("default", [(6, 0.1)], muted=True)]
    root = _parse(charts.learning_curve(series, label="losses", until=6, zero=True))
    assert {"1", "6"} <= set(_texts(root))
    assert "7" not in _texts(root)
    assert _count(root, "single") == 2
    kinds = [line.get("class") for line in root.iter("polyline")]
    assert kinds == ["line s0 solid", "line s0 dashed", "line muted"]
    ended = _parse(charts.learning_curve([], label="x", empty="no epoch was reported"))
    assert "no epoch was reported" in _texts(ended)


def test_the_axis_of_a_history_ends_at_the_last_candidate_or_where_more_are_to_come() -> None:
    assert "2" in _texts(_parse(charts.history([(0, 0.5), (2, 0.6)])))
    assert "3" not in _texts(_parse(charts.history([(0, 0.5), (2, 0.6)])))
    assert "8" in _texts(_parse(charts.history([(0, 0.5), (2, 0.6)], until=9)))


def test_small_fitness_is_written_with_four_significant_digits() -> None:
    svg = charts.history([(0, 0.000123456), (1, 0.0002)], default=0.000123456)
    assert "default 0.0001235" in _texts(_parse(svg))
    assert "0.0000<" not in svg


@pytest.mark.parametrize("crowd", [0.5, 0.51, 0.49])
def test_the_name_of_the_default_covers_no_dot_where_there_is_room(crowd: float) -> None:
    points = [(0, 0.5), (1, 0.3), (2, 0.7), *((n, crowd) for n in range(20, 41))]
    root = _parse(charts.history(points, default=0.5))
    (name,) = (text for text in root.iter("text") if "default-text" in text.get("class", ""))
    right, base = float(name.get("x", 0)), float(name.get("y", 0))
    left = right - len(name.text or "") * charts.LETTER_PX
    for dot in root.iter("circle"):
        assert not (left < float(dot.get("cx", 0)) < right and base - 11 < float(dot.get("cy", 0)) < base + 3)


def test_sparkline_is_small_and_absent_without_results() -> None:
    assert charts.sparkline([]) == ""
    svg = charts.sparkline([(0, 0.1), (4, 0.3), (9, 0.35)], last=300)
    assert "from 0.1000 to 0.3500" in _parse(svg).get("aria-label", "")
    assert len(svg) < 600
    _parse(charts.sparkline([(0, 0.5)]))


def test_shares_fill_the_bar_and_say_the_counts() -> None:
    root = _parse(
        charts.shares([("done", "done", 60), ("failed", 'f"<', 3), ("queued", "queued", 0), ("unbred", "not bred yet", 37)])
    )
    boxes = list(root.iter("rect"))
    assert len(boxes) == 3
    assert sum(float(box.get("width", 0)) for box in boxes) == pytest.approx(1000)
    assert root.get("aria-label") == '60 done, 3 f"<, 37 not bred yet'
    _parse(charts.shares([("done", "done", 0)]))


@pytest.mark.parametrize(("share", "kind"), [(0.5, "up"), (-0.25, "down"), (0.0, "up"), (3.0, "up"), (-1e-9, "down")])
def test_change_bar_points_the_right_way_and_stays_inside(share: float, kind: str) -> None:
    (box,) = _parse(charts.change_bar(share, 0.5)).iter("rect")
    left, wide = float(box.get("x", 0)), float(box.get("width", 0))
    assert box.get("class") == kind
    assert 0 <= left <= left + wide <= 120


def test_position_stays_between_the_ends() -> None:
    (dot,) = _parse(charts.position(1.7, -2)).iter("circle")
    assert float(dot.get("cx", 0)) == pytest.approx(91)
