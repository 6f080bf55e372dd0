"""Does the outlook of ``hypevolve analyse`` come true? What it expected of the next candidates, against what they brought.

python -m benchmarks.outlook --json docs/results/outlook.json

Campaigns of one worker on landscapes. After each of the counts in ``AT`` the outlook is read from the fitness so far, as the
page reads it; ``AHEAD`` results later the single best and the mean of the five fittest say what came. Everything is a share of
the best fitness at that moment; the correlations are over the campaigns, of what was expected with what came.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.landscapes import Landscape
from benchmarks.simulation import Evolution, seed_of
from evolution.insight import AHEAD, outlook
from evolution.strategy import create

AT = (40, 80, 120, 200)
FIRST = 64_000  # id of the first landscape


def fitnesses(identity: int, strategy: str, results: int = max(AT) + AHEAD) -> list[float]:
    """The first ``results`` fitnesses of a campaign, in the order of the candidates; a failed one has none."""
    landscape, world = Landscape(identity), np.random.default_rng([identity, 77])
    found: list[float] = []
    player = Evolution(create(strategy, {}), landscape.space, seed_of(landscape, 0))
    number = 0
    while len(found) < results:
        hyp = player.ask(number)
        assert hyp is not None, "a strategy waits only for what is in training"
        fitness, _ = landscape.train(hyp, world)
        player.tell(number, hyp, fitness)
        if not math.isnan(fitness):
            found.append(fitness)
        number += 1
    return found


def row(searches: list[list[float]], at: int) -> dict[str, Any]:
    """What was expected and what came after ``at`` results: means and correlations (None where all are alike) over searches."""
    best = np.array([max(values[:at]) for values in searches])
    expected = np.array([outlook(values[:at]).gain for values in searches]) / best
    single = np.array([max(values[: at + AHEAD]) for values in searches]) / best - 1
    five = np.array([_five(values[: at + AHEAD]) - _five(values[:at]) for values in searches]) / best
    told: dict[str, Any] = {"results": at, "expected": round(float(expected.mean()), 5)}
    for name, brought in (("best", single), ("five", five)):
        told[f"{name}_brought"] = round(float(brought.mean()), 5)
        told[f"{name}_correlation"] = None
        if np.ptp(expected) and np.ptp(brought):
            told[f"{name}_correlation"] = round(float(np.corrcoef(expected, brought)[0, 1]), 3)
    return told


def _five(values: list[float]) -> float:
    return float(np.mean(sorted(values)[-5:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["yolov3-2020", "yolov5-2021"])
    parser.add_argument("--landscapes", type=int, default=24, help="campaigns of each strategy")
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"ahead": AHEAD, "landscapes": options.landscapes}
    every: list[list[float]] = []
    for strategy in options.strategies:
        searches = [fitnesses(options.first + i, strategy) for i in range(options.landscapes)]
        every += searches
        results[strategy] = [row(searches, at) for at in AT]
    results["all"] = [row(every, at) for at in AT]
    for name, rows in results.items():
        for line in rows if isinstance(rows, list) else []:
            print(name, *(f"{key} {value}" for key, value in line.items()), sep="  ")
    if options.json:
        record.write(options.json, seed=options.first, results=results)


if __name__ == "__main__":
    main()
