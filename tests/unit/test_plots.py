"""`evolve.png`: a panel per gene, whatever the data, quickly, and the same sheet only once."""

import threading
import time

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from evolution.hyperparameters import lineage_space
from evolution.result_files import ResultRow
from evolution.space import Gene, Space
from server import plots


def _space(genes: int) -> Space:
    return Space(tuple(Gene(f"g{k}", 0.5, 1, 0.0, 1.0) for k in range(genes)))


def _rows(space: Space, n: int, seed: int = 0) -> list[ResultRow]:
    rng = np.random.default_rng(seed)
    rows = [ResultRow(0, space.start, {}, 0.5)]
    for number in range(1, n):
        hyp = {g.name: g.start if g.fixed else float(rng.uniform(g.lower, g.upper)) for g in space}
        rows.append(ResultRow(number, hyp, {}, float(rng.normal(0.5, 0.05))))
    return rows


def _decode(png: bytes) -> npt.NDArray[np.uint8]:
    assert png.startswith(b"\x89PNG")
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def _panels(picture: npt.NDArray[np.uint8]) -> int:
    """How many crosses mark a best: one per panel."""
    red = cv2.inRange(picture, np.array([25, 15, 180], np.uint8), np.array([75, 75, 235], np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(red)
    return sum(stats[k, cv2.CC_STAT_AREA] > 20 for k in range(1, count))


@pytest.mark.parametrize("genes", [1, 2, 7, 29, 60])
def test_every_gene_has_a_panel(genes: int) -> None:
    rows, columns = plots.shape(genes)
    assert rows * columns >= genes
    assert (rows - 1) * columns < genes
    assert columns <= plots.COLUMNS
    assert _panels(_decode(plots.evolve_png(_space(genes), _rows(_space(genes), 1), title="t"))) == genes


@pytest.mark.parametrize("genes", [2, 29])
def test_the_size_is_that_of_the_picture(genes: int) -> None:
    height, width, _ = _decode(plots.evolve_png(_space(genes), _rows(_space(genes), 1), title="t")).shape
    assert plots.size(genes) == (width, height)


def test_the_default_space_with_fixed_genes() -> None:
    space = lineage_space()
    assert _panels(_decode(plots.evolve_png(space, _rows(space, 40), title="yolov5"))) == len(space)


def test_equal_fitness_and_fitness_zero_and_negative() -> None:
    space = _space(3)
    for value in (0.5, 0.0, -2.0):
        rows = [ResultRow(k, row.hyp, {}, value) for k, row in enumerate(_rows(space, 12))]
        _decode(plots.evolve_png(space, rows, title="flat"))


def test_a_name_is_never_read_as_a_formula() -> None:
    space = Space((Gene("$x_{", 0.5, 1, 0.0, 1.0), Gene("a" * 200, 1e-5, 1, 1e-6, 1.0, "log")))
    rows = [ResultRow(k, {"$x_{": k / 9, "a" * 200: 10.0 ** -(k % 6)}, {}, k / 9) for k in range(9)]
    _decode(plots.evolve_png(space, rows, title=r"$\frac{<script>" + "n" * 300))


def test_a_gene_that_never_moved_is_stuck_once_there_are_enough_rows() -> None:
    still, moved = np.full(plots.STUCK_FROM, 0.5), np.linspace(0, 1, plots.STUCK_FROM)
    assert plots.stuck(still)
    assert not plots.stuck(still[1:])
    assert not plots.stuck(moved)


def test_three_hundred_rows_of_the_default_space_within_three_seconds() -> None:
    space = lineage_space()
    rows = _rows(space, 300, seed=5)
    began = time.thread_time()  # other processes share the cores
    first = plots.evolve_png(space, rows, title="big")
    assert time.thread_time() - began < 3
    began = time.thread_time()
    assert plots.evolve_png(space, rows, title="big") is first
    assert time.thread_time() - began < 0.1


def test_another_result_gene_title_or_paper_is_another_sheet() -> None:
    space = _space(2)
    rows = _rows(space, 5)
    sheets = {
        plots.evolve_png(space, rows, title="a"),
        plots.evolve_png(space, rows, title="b"),
        plots.evolve_png(space, rows, title="a", dark=True),
        plots.evolve_png(space, rows[:-1], title="a"),
        plots.evolve_png(Space((Gene("g0", 0.2, 1, 0.0, 1.0), space["g1"])), rows, title="a"),
    }
    assert len(sheets) == 5


def test_threads_get_the_right_sheets() -> None:
    space = _space(4)
    drawn: dict[int, bytes] = {}

    def draw(n: int) -> None:
        drawn[n] = plots.evolve_png(space, _rows(space, n, seed=9), title="threads")

    threads = [threading.Thread(target=draw, args=(n,)) for n in (3, 4, 5, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(drawn[n] == plots.evolve_png(space, _rows(space, n, seed=9), title="threads") for n in (3, 4, 5))


def test_without_rows_or_genes_there_is_no_sheet() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plots.evolve_png(_space(1), [], title="none")
    with pytest.raises(ValueError, match="at least one"):
        plots.evolve_png(Space(()), [ResultRow(0, {}, {}, 0.5)], title="none")
