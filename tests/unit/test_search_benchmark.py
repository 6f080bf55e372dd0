"""The benchmark of strategies: its landscapes are those of the test bed, its simulation is exact, and nobody got worse."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.landscapes import Landscape
from benchmarks.search import interval, leads, parse, run, summary

BED = Path(__file__).parents[3] / "shared" / "bench" / "search"


@pytest.mark.skipif(
    not BED.is_dir(), reason="no ../shared/bench/search here: the landscapes are not compared with the test bed"
)
def test_landscapes_are_those_of_the_test_bed(monkeypatch):
    monkeypatch.syspath_prepend(str(BED))
    before = set(sys.modules)
    from bed import HypFunction

    for number in (1000, 1003, 1007, 1008, 1019, 41003, 41018):
        theirs, ours = HypFunction(number), Landscape(number)
        assert theirs.names == list(ours.space.names)
        draw = np.random.default_rng(number)
        for _ in range(4):
            hyp = {gene.name: float(draw.uniform(gene.lower, gene.upper)) for gene in ours.space}
            near = {gene.name: gene.start * float(draw.uniform(0.95, 1)) for gene in ours.space}
            assert ours.value(hyp) == pytest.approx(theirs.true_value(hyp), abs=1e-12)
            assert ours.regret(near) == pytest.approx(theirs.regret(near), abs=1e-9)
            seen, trained = theirs.evaluate(near, np.random.default_rng(1)), ours.train(near, np.random.default_rng(1))
            assert trained == pytest.approx(seen, abs=1e-12, nan_ok=True)
    for name in set(sys.modules) - before:
        if name in ("bed", "spaces"):
            del sys.modules[name]


def test_a_landscape_has_its_optimum_where_it_says():
    for number in range(12):
        landscape = Landscape(number)
        assert landscape.regret(landscape.space.start) == pytest.approx(1)
        assert landscape._value(landscape.optimum) == pytest.approx(landscape.best_value)
        assert 0.06 <= np.log(landscape.best_value / landscape.start_value) <= 0.40 + 1e-6
        assert not any(gene.fixed for gene in landscape.free)


def test_a_run_repeats_itself_and_counts():
    landscape, strategy = Landscape(3), parse("yolov3-2020 method=1 parent=weighted")
    assert strategy.options == {"parent": "weighted", "method": 1}
    first, second = (run(strategy, landscape, 1, 4, multiplying=True, checkpoints=(10, 30)) for _ in range(2))
    assert first.regret == second.regret
    assert list(first.regret) == [10, 30]
    assert first.gain == pytest.approx(np.mean([1 - regret for regret in first.regret.values()]))
    other = run(strategy, landscape, 2, 4, multiplying=True, checkpoints=(10, 30))
    assert other.regret != first.regret


def test_a_population_that_waits_is_not_stuck():
    ended = run(parse("yolov5-2024 population=5"), Landscape(3), 1, 8, checkpoints=(23,))
    assert list(ended.regret) == [23]


def test_intervals_and_leads():
    mean, low, high = interval([0.1, 0.3, 0.2, 0.4])
    assert mean == pytest.approx(0.25)
    assert 0.1 <= low < mean < high <= 0.4
    one, two = ([run(parse(name), Landscape(i), 1, 2, checkpoints=(8,)) for i in (1, 2)] for name in ("random", "cma-es"))
    results = [summary("random", 2, one), summary("cma-es", 2, two)]
    assert results[0]["runs"] == 2
    assert set(results[0]) >= {"strategy", "workers", "mean_gain", "regret", "runs"}
    assert leads(results)[0].startswith("W=2   random - cma-es")


def test_regression_gate():
    """Seconds, not a ranking: half of the gap closed in 100 trainings where yolov5-2021 closes a third."""
    gains = {}
    for name in ("hybrid", "yolov5-2021"):
        runs = [run(parse(name), Landscape(i), 1, 8, multiplying=name != "hybrid", checkpoints=(50, 100)) for i in range(4)]
        gains[name] = float(np.mean([one.gain for one in runs]))
    assert gains["hybrid"] > 0.5
    assert gains["hybrid"] > gains["yolov5-2021"] + 0.15
