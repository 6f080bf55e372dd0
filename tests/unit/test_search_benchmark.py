"""The benchmark of strategies: its landscapes are those of the test bed, its simulation is exact, and nobody got worse."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recorded
from benchmarks.landscapes import Landscape
from benchmarks.search import Runs, interval, leads, parse, player, reached, seed_range, summary, table
from benchmarks.simulation import run

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


def play(name, number, seed, workers, checkpoints):
    landscape = Landscape(number)
    return run(player(name, landscape, seed, workers), landscape, seed, workers, checkpoints)


@pytest.mark.skipif(not BED.is_dir(), reason="no ../shared/bench/search here: the prototype is not run")
def test_the_simulation_is_that_of_the_test_bed(monkeypatch):
    """The prototype in our simulation and in theirs: the same regret to the last digit."""
    monkeypatch.syspath_prepend(str(BED))
    before = set(sys.modules)
    from bed import HypFunction
    from harness import run_one
    from strategies.ours import HybridL2

    theirs = run_one(HybridL2, HypFunction(3), 2, workers=8, budget=40, checkpoints=(20, 40))
    ours = play("prototype", 3, 2, 8, (20, 40))
    assert list(ours.regret.values()) == pytest.approx([regret for _, _, regret in theirs["checkpoints"]], abs=1e-9)
    assert ours.failed == theirs["crashes"]
    for name in set(sys.modules) - before:
        if name in ("bed", "spaces", "harness"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["prototype", "cmaes-sep", "optuna-tpe", "nevergrad-TBPSA"])
def test_peers_play_where_they_are_installed(name):
    if name == "prototype" and not BED.is_dir():
        pytest.skip("no ../shared/bench/search here")
    try:
        played = play(name, 7, 1, 2, (14,))
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    assert played.regret[14] <= 1.5


@pytest.mark.skipif(not recorded.DATA.is_dir(), reason="no ../shared/bench/search/data here: nothing is recorded")
@pytest.mark.parametrize("half", recorded.HALVES)
def test_recorded_problems_are_those_of_the_test_bed(monkeypatch, half):
    pytest.importorskip("onnxruntime")
    for problem in recorded.problems(half):
        assert problem.regret(problem.space.start) == pytest.approx(1)
        assert problem.best_value > problem.start_value


def test_finished_campaigns_are_not_run_again(tmp_path):
    landscape, file = Landscape(2), tmp_path / "runs.jsonl"
    first = Runs(file).of("random", 64, landscape, 1)
    again = Runs(file).of("random", 64, landscape, 1)
    assert first == again
    assert len(file.read_text().splitlines()) == 1


def test_where_anothers_final_gain_is_reached():
    first = {"curve": {"10": 0.1, "20": 0.3, "300": 0.9}}
    assert reached(first, {"curve": {"50": 0.0, "300": 0.2}}) == pytest.approx(15)
    assert reached(first, {"curve": {"300": 0.05}}) == 10
    assert reached(first, {"curve": {"300": 0.95}}) is None


def test_a_landscape_has_its_optimum_where_it_says():
    for number in range(12):
        landscape = Landscape(number)
        assert landscape.regret(landscape.space.start) == pytest.approx(1)
        assert landscape._value(landscape.optimum) == pytest.approx(landscape.best_value)
        assert 0.06 <= np.log(landscape.best_value / landscape.start_value) <= 0.40 + 1e-6
        assert not any(gene.fixed for gene in landscape.free)


def test_a_run_repeats_itself_and_counts():
    landscape, options = Landscape(3), parse("yolov3-2020 method=1 parent=weighted").options
    assert (options["parent"], options["method"]) == ("weighted", 1)
    first, second, other = (
        run(player("yolov3-2020 method=1 parent=weighted", landscape, seed, 4), landscape, seed, 4, (10, 30), (20, 30))
        for seed in (1, 1, 2)
    )
    assert first.regret == second.regret
    assert list(first.regret) == [10, 30]
    assert list(first.curve) == [10, 20, 30]
    assert first.gain == pytest.approx(np.mean([1 - regret for regret in first.regret.values()]))
    assert other.regret != first.regret


def test_a_population_that_waits_is_not_stuck():
    ended = play("yolov5-2024 population=5", 3, 1, 8, (23,))
    assert list(ended.regret) == [23]


def test_intervals_and_leads():
    mean, low, high = interval([0.1, 0.3, 0.2, 0.4])
    assert mean == pytest.approx(0.25)
    assert 0.1 <= low < mean < high <= 0.4
    one, two = ([play(name, i, 1, 2, (8,)) for i in (1, 2)] for name in ("random", "cma-es"))
    results = [summary("random", 2, one), summary("cma-es", 2, two)]
    assert results[0]["runs"] == 2
    assert set(results[0]) >= {"strategy", "workers", "mean_gain", "regret", "runs"}
    assert leads(results)[0].startswith("W=2   random - cma-es")
    assert [line.count("|") for line in table(results)] == [4, 4, 4, 4]
    assert table(results)[2].startswith(f"| random | {results[0]['mean_gain']:.2f} [")


def test_regression_gate():
    """Seconds, not a ranking: half of the gap closed in 100 trainings where yolov5-2021 closes a third."""
    gains = {}
    for name in ("hybrid", "yolov5-2021"):
        runs = [play(name, i, 1, 8, (50, 100)) for i in range(4)]
        gains[name] = float(np.mean([one.gain for one in runs]))
    assert gains["hybrid"] > 0.5
    assert gains["hybrid"] > gains["yolov5-2021"] + 0.15


def test_seeds_are_a_number_of_them_or_a_range():
    assert seed_range("3") == range(1, 4)
    assert seed_range("2:4") == range(2, 4)
    for text in ("0", "3:3", "x", "2:x"):
        with pytest.raises(argparse.ArgumentTypeError, match="2:4"):
            seed_range(text)
