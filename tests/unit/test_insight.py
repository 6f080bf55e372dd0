"""What is said of an evolution, on rows whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import outlook as forecasts
from evolution.importance import importance, slopes_near_best
from evolution.insight import Parent, insight, outlook, story
from evolution.space import Gene, Space
from evolution.strategy import Row

SPACE = Space(
    (
        Gene("lr0", 1e-3, 1, 1e-5, 1e-1, "log"),
        Gene("box", 0.5, 1, 0.0, 1.0),
        Gene("idle", 0.5, 1, 0.0, 1.0),
        Gene("still", 0.5, 1, 0.0, 1.0),
        Gene("frozen", 0.5, 0, 0.0, 1.0),
        Gene("optimizer", 0.0, 1, 0.0, 2.0, choices=("SGD", "Adam", "AdamW")),
    )
)


def rows(n=120, seed=0):
    """Fitness rises with the logarithm of lr0, less with box, and one optimizer is better; idle does nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        u, box, idle, optimizer = *rng.random(3), rng.integers(3)
        hyp = {"lr0": 10 ** (4 * u - 5), "box": box, "idle": idle, "still": 0.5, "frozen": 0.5, "optimizer": float(optimizer)}
        found.append(Row(number, hyp, 0.4 + 0.1 * u + 0.02 * box + 0.05 * (optimizer == 2) + 0.005 * rng.standard_normal()))
    return found


def test_importance_finds_what_matters():
    genes = importance(SPACE, rows(300))
    by = {gene.name: gene for gene in genes}
    assert [gene.name for gene in genes[:2]] in (["lr0", "optimizer"], ["optimizer", "lr0"])
    assert sum(gene.share for gene in genes) == pytest.approx(1)
    assert by["lr0"].low > by["idle"].high
    assert all(0 <= gene.low <= gene.high <= 1 for gene in genes)
    assert by["lr0"].rank == pytest.approx(0.75, abs=0.1)
    assert abs(by["idle"].rank) < 0.2
    assert by["lr0"].slope == pytest.approx(0.01, abs=0.004)
    assert abs(by["idle"].slope) < 3 * by["idle"].error
    assert by["optimizer"].rank is by["optimizer"].slope is None
    assert by["still"].rank == 0
    assert importance(SPACE, rows(29)) == []


def test_slopes_of_a_plane():
    rng = np.random.default_rng(1)
    points = rng.random((400, 3))
    slopes, errors = slopes_near_best(points, points @ [1.0, 0.0, -2.0] + 0.01 * rng.standard_normal(400))
    assert slopes == pytest.approx([0.1, 0.0, -0.2], abs=0.02)
    assert (errors < 0.02).all()


def test_progress_is_even_in_the_logarithm():
    values = [0.4 + 0.01 * np.log2(i + 1) for i in range(200)]
    brought = values[199] - values[149]
    assert outlook(values[:150]).gain == pytest.approx(brought, rel=0.1)
    assert outlook(values[:150], ahead=25).gain < brought


def test_the_outlook_of_a_search_is_about_right_and_falls():
    """On landscapes: what was expected of the next 50 against what they brought, and less of it later."""
    searches = [forecasts.fitnesses(51000 + i, "yolov3-2020") for i in range(16)]
    early, late = forecasts.row(searches, 40), forecasts.row(searches, 200)
    for told in (early, late):
        assert told["expected"] == pytest.approx(told["five_brought"], rel=0.5, abs=0.005)
    assert late["expected"] < early["expected"] / 2
    assert all(len(values) == 250 and min(values) > 0 for values in searches)


def test_the_outlook_says_when_to_stop():
    assert outlook([0.1] * 9).verdict == "early"
    assert outlook([0.1 + 0.01 * i for i in range(40)]).verdict == "go on"
    flat = [0.5, *([0.40, 0.41, 0.39] * 20)]
    assert outlook(flat).verdict == "stop"
    assert "0.0%" in outlook(flat).hint


def test_the_outlook_of_very_many_rows_needs_the_fittest_and_the_newest_alone():
    space = Space((Gene("x", 0.5, 1.0, 0.0, 1.0),))
    rows = [Row(i, {"x": 0.5}, 0.4 + 0.01 * float(np.log2(i + 1)) - 0.03 * (i % 7 > 0)) for i in range(9000)]
    some = {row.number: row for row in [*sorted(rows, key=lambda row: -row.fitness)[:1000], *rows[-1000:]]}
    told, whole = insight(space, list(some.values()), done=9000).outlook, insight(space, rows).outlook
    assert told.gain == pytest.approx(whole.gain, rel=0.05)
    assert insight(space, list(some.values())).outlook.gain != pytest.approx(whole.gain, rel=0.2)  # were these all


def test_the_life_of_genes():
    found = rows(40)
    for row in found[1:]:
        row.hyp["box"] = 1.0
        row.hyp["idle"] = 0.3 + 0.001 * (row.number % 2)
    report = insight(SPACE, found)
    states = {gene.name: gene.state for gene in report.genes}
    assert states == {
        "lr0": "moves", "box": "at bound", "idle": "settled", "still": "stuck", "frozen": "fixed", "optimizer": "moves",
    }  # fmt: skip
    assert report.diversity == pytest.approx(1, abs=0.5)
    assert report.rows == 40
    assert [step.fitness for step in report.steps] == sorted(step.fitness for step in report.steps)


def test_the_story_of_the_best():
    def hyp(**changes):
        return {**SPACE.decode(SPACE.start), **changes}

    line = [
        Parent(0, hyp(), 0.3, None),
        Parent(4, hyp(lr0=1e-2, box=0.6), 0.35, 0),
        Parent(9, hyp(lr0=1e-2, box=0.6, optimizer="AdamW"), None, 4),
    ]
    first, second, third = story(SPACE, line)
    assert (first.number, first.gain, first.changed) == (0, None, ())
    assert (second.gain, second.changed) == (pytest.approx(0.05), (("lr0", 1e-3, 1e-2), ("box", 0.5, 0.6)))
    assert (third.gain, third.changed) == (None, (("optimizer", "SGD", "AdamW"),))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 60), st.sampled_from([[0.0], [0.3, 0.3], [-1.0, 2.0], [0.0, 1e-9]]), st.integers(0, 99))
def test_nothing_breaks_a_report(n, fitness, seed):
    rng = np.random.default_rng(seed)
    found = [Row(i - 3, row.hyp, float(rng.choice(fitness))) for i, row in enumerate(rows(n, seed))]
    report = insight(SPACE, found)
    assert len(report.genes) == len(SPACE)
    assert all(np.isfinite(gene.share) for gene in report.importance)
    assert np.isfinite(report.outlook.gain)
    assert insight(SPACE, found[::-1]) == report
    assert len(insight(Space((SPACE["frozen"],)), found).importance) == 0
