"""Which strategy finds good hyp sets with the fewest trainings: asynchronous workers on landscapes with a known optimum.

    export OMP_NUM_THREADS=1
    python -m benchmarks.search --ids 1000:1020 --workers 1,8,64 --seeds 3 --strategies hybrid,yolov5-2021 --json OUT

A strategy is run through evolution's own interface, as the coordinator runs it: it sees the rows that it asks for and nothing
else. Results come back in the order in which simulated trainings end. Options follow a name: "yolov3-2020 method=2".

regret      (F* - f(incumbent)) / (F* - f(start)) without noise: 0 at the optimum, 1 where nothing was gained
mean gain   mean of max(-1, 1 - regret) over ids, seeds and 50, 100, 200, 300 trainings
lead        difference of the mean gain to the first strategy's, by id; 95 % bootstrap interval over ids
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.landscapes import Landscape
from evolution.strategy import Candidate, History, Proposal, Row, Strategy, Wait, candidate_rng, create

BUDGET = 300
CHECKPOINTS = (50, 100, 200, 300)
MULTIPLYING = ("yolov5-2021", "yolov3-2020")  # their gains say which genes can move; for the others every gene can


@dataclass(frozen=True)
class Run:
    """One campaign: the incumbent's regret by trainings, how many failed, and seconds per candidate."""

    id: int
    seed: int
    regret: dict[int, float]
    failed: int
    seconds: float

    @property
    def gain(self) -> float:
        return float(np.mean([max(-1.0, 1 - regret) for regret in self.regret.values()]))


def parse(text: str) -> Strategy:
    """A strategy from its name and options: ``yolov3-2020 method=2 parent=weighted``."""
    name, *options = text.split()
    return create(name, {key: yaml.safe_load(value) for key, _, value in (option.partition("=") for option in options)})


def run(
    strategy: Strategy,
    landscape: Landscape,
    seed: int,
    workers: int,
    *,
    multiplying: bool = False,
    checkpoints: Sequence[int] = CHECKPOINTS,
) -> Run:
    """A campaign of ``max(checkpoints)`` candidates on ``workers`` asynchronous workers."""
    space = landscape.space if multiplying else landscape.free
    world = np.random.default_rng([landscape.id, seed, 77])
    campaign_seed = seed * 1000003 + landscape.id
    budget, bred, now, seconds, waiting = max(checkpoints), 0, 0.0, 0.0, False
    training: list[tuple[float, int, float]] = []  # end, number, fitness
    pending: dict[int, Candidate] = {}
    rows: list[Row] = []
    failed: list[Candidate] = []
    regret: dict[int, float] = {}

    def history() -> History:
        return History.select(bred, strategy.needs, rows, failed, pending.values())

    while len(regret) < len(checkpoints):
        while len(training) < workers and bred < budget and not waiting:
            began = time.perf_counter()
            answer = (
                strategy.propose(space, history(), candidate_rng(campaign_seed, bred)) if bred else Proposal(space.start, ())
            )
            seconds += time.perf_counter() - began
            if isinstance(answer, Wait):
                waiting = True
                break
            fitness, duration = landscape.train(answer.hyp, world)
            heapq.heappush(training, (now + duration, bred, fitness))
            pending[bred] = Candidate(bred, answer.hyp)
            bred += 1
        now, number, fitness = heapq.heappop(training)
        done = pending.pop(number)
        waiting = False
        if math.isnan(fitness):
            failed.append(done)
        else:
            rows.append(Row(number, done.hyp, fitness))
        if len(rows) + len(failed) in checkpoints:
            incumbent = strategy.incumbent(space, history())
            regret[len(rows) + len(failed)] = landscape.regret(incumbent or space.start)
    return Run(landscape.id, seed, regret, len(failed), seconds / budget)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values, one per id, with its 95 % bootstrap interval."""
    x = np.asarray(values)
    means = x[np.random.default_rng(0).integers(0, len(x), (10_000, len(x)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(x.mean()), float(low), float(high)


def by_id(runs: Sequence[Run]) -> dict[int, float]:
    """The mean gain on each landscape."""
    return {i: float(np.mean([run.gain for run in runs if run.id == i])) for i in sorted({run.id for run in runs})}


def summary(name: str, workers: int, runs: Sequence[Run]) -> dict[str, Any]:
    """What is published of one strategy at one number of workers."""
    regrets = {str(n): round(float(np.median([run.regret[n] for run in runs])), 4) for n in runs[0].regret}
    gain, low, high = interval(list(by_id(runs).values()))
    return {
        "strategy": name,
        "workers": workers,
        "mean_gain": round(gain, 4),
        "interval": [round(low, 4), round(high, 4)],
        "regret": regrets,
        "runs": len(runs),
        "failed": round(float(np.mean([run.failed for run in runs])), 2),
        "ms_per_candidate": round(1000 * float(np.mean([run.seconds for run in runs])), 2),
        "gain_by_id": {str(i): round(value, 4) for i, value in by_id(runs).items()},
    }


def leads(results: Sequence[dict[str, Any]]) -> list[str]:
    """The lead of the first strategy over each other one, at equal workers."""
    lines = []
    for other in results:
        first = next(result for result in results if result["workers"] == other["workers"])
        if other is first:
            continue
        differences = [first["gain_by_id"][i] - other["gain_by_id"][i] for i in first["gain_by_id"]]
        mean, low, high = interval(differences)
        won = sum(difference > 0 for difference in differences)
        lines.append(
            f"W={other['workers']:<3d} {first['strategy']} - {other['strategy']:<28s} "
            f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]  {won} of {len(differences)} landscapes"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", default="1000:1020", help="first:end of the landscapes")
    parser.add_argument("--workers", default="1,8,64")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", default="hybrid,yolov5-2021")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first, _, end = arguments.ids.partition(":")
    landscapes = [Landscape(number) for number in range(int(first), int(end))]
    results: list[dict[str, Any]] = []
    for workers in (int(text) for text in arguments.workers.split(",")):
        for name in arguments.strategies.split(","):
            strategy, multiplying = parse(name), name.split()[0] in MULTIPLYING
            runs = [
                run(strategy, landscape, seed, workers, multiplying=multiplying)
                for landscape in landscapes
                for seed in range(1, arguments.seeds + 1)
            ]
            results.append(summary(name, workers, runs))
            one = results[-1]
            low, high = one["interval"]
            regret = " ".join(f"{n}:{value:.2f}" for n, value in one["regret"].items())
            print(
                f"W={workers:<3d} {name:<32s} gain {one['mean_gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
                f"  regret {regret}  failed {one['failed']:.1f}  {one['ms_per_candidate']:.1f} ms  {one['runs']} runs",
                flush=True,
            )
    for line in leads(results):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
