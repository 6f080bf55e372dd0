"""Which strategy finds good hyp sets with the fewest trainings: asynchronous workers on landscapes with a known optimum.

    export OMP_NUM_THREADS=1
    python -m benchmarks.search --ids 1000:1020 --workers 1,8,64 --seeds 3 --strategies hybrid,yolov5-2021 --json OUT

A strategy is run through evolution's own interface (``benchmarks.simulation``); peers (``benchmarks.peers``) that are not
installed are named and left out. Options follow a name: "yolov3-2020 method=2". ``--recorded`` takes recorded trainings instead
of landscapes. ``--runs FILE`` keeps every campaign as a line: run it again to go on.

regret      (F* - f(incumbent)) / (F* - f(start)) without noise: 0 at the optimum, 1 where nothing was gained
mean gain   mean of max(-1, 1 - regret) over ids, seeds and 50, 100, 200, 300 trainings
lead        difference of the mean gain to the first strategy's, by id; 95 % bootstrap interval over ids
reached     trainings at which the first strategy's gain, over ids and seeds, is another's after all its trainings
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import peers, record, recorded
from benchmarks.landscapes import Landscape
from benchmarks.simulation import CURVE, Evolution, Player, Problem, Run, gain, run, seed_of
from evolution.strategy import NAMES, OptionError, Strategy, create

MULTIPLYING = ("yolov5-2021", "yolov3-2020")  # their gains say which genes can move; for the others every gene can


def parse(text: str) -> Strategy:
    """A strategy from its name and options: ``yolov3-2020 method=2 parent=weighted``."""
    name, *options = text.split()
    return create(name, {key: yaml.safe_load(value) for key, _, value in (option.partition("=") for option in options)})


def player(text: str, problem: Problem, seed: int, workers: int) -> Player:
    """A strategy or a peer, ready to play on a problem.

    Raises:
        ValueError: there is no strategy of this name, or no option.
        ImportError: a peer is not installed.
    """
    name = text.split()[0]
    if name in peers.NAMES:
        return peers.create(name, problem.free, seed_of(problem, seed), workers)
    return Evolution(parse(text), problem.space if name in MULTIPLYING else problem.free, seed_of(problem, seed))


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
    mean, low, high = interval(list(by_id(runs).values()))
    return {
        "strategy": name,
        "workers": workers,
        "mean_gain": round(mean, 4),
        "interval": [round(low, 4), round(high, 4)],
        "regret": regrets,
        "curve": {str(n): round(float(np.mean([gain(run.curve[n]) for run in runs])), 4) for n in runs[0].curve},
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
            f"{_as_words(reached(first, other))}"
        )
    return lines


def reached(first: dict[str, Any], other: dict[str, Any]) -> float | None:
    """Trainings after which the mean gain of ``first`` is that of ``other`` at its end; None: never."""
    n, gains = np.array([int(key) for key in first["curve"]]), np.array(list(first["curve"].values()))
    level = list(other["curve"].values())[-1]
    if not (gains >= level).any():
        return None
    at = int((gains >= level).argmax())
    if at == 0:
        return float(n[0])
    return float(np.interp(level, gains[at - 1 : at + 1], n[at - 1 : at + 1]))


def _as_words(trainings: float | None) -> str:
    return f", its final gain reached at {trainings:.0f}" if trainings else ""


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """The results as a table in Markdown, a row for each strategy."""
    workers = sorted({result["workers"] for result in results})
    found = {(result["strategy"], result["workers"]): result for result in results}
    middle = 8 if 8 in workers else workers[0]
    counts = ", ".join(results[0]["regret"])
    heads = ["strategy", *(f"gain W={w}" for w in workers), f"median regret W={middle} at {counts}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(result["strategy"] for result in results):
        cells = [name]
        for w in workers:
            one = found.get((name, w))
            cells.append("{:.2f} [{:.2f}, {:.2f}]".format(one["mean_gain"], *one["interval"]) if one else "–")
        one = found.get((name, middle))
        cells.append(", ".join(f"{value:.2f}" for value in one["regret"].values()) if one else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


class Runs:
    """Finished campaigns, each a line of a file where one is given, so that a table can be made in several sittings."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._done: dict[tuple[str, int, int, int], Run] = {}
        if file and file.exists():
            for line in file.read_text().splitlines():
                self._remember(json.loads(line))

    def _remember(self, line: dict[str, Any]) -> Run:
        regret = {int(n): value for n, value in line["regret"].items()}
        curve = {int(n): value for n, value in line["curve"].items()}
        done = Run(line["id"], line["seed"], regret, curve, line["failed"], line["seconds"])
        self._done[line["strategy"], line["workers"], done.id, done.seed] = done
        return done

    def of(self, name: str, workers: int, problem: Problem, seed: int) -> Run:
        """The campaign, run now unless it is there."""
        done = self._done.get((name, workers, problem.id, seed))
        if done:
            return done
        done = run(player(name, problem, seed, workers), problem, seed, workers, curve=CURVE)
        if self._file:
            with self._file.open("a") as lines:
                lines.write(json.dumps({"strategy": name, "workers": workers, **asdict(done)}) + "\n")
        return done


def _ids(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        return range(int(first), int(end))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range; write it as 1000:1020") from None


def seed_range(text: str) -> range:
    """The campaigns' seeds: ``3`` means 1, 2, 3; ``2:4`` means 2, 3.

    Raises:
        argparse.ArgumentTypeError: it is neither, or none is left.
    """
    first, colon, end = text.partition(":")
    try:
        seeds = range(int(first), int(end)) if colon else range(1, int(first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} names no seeds; write 3 for seeds 1 to 3, or 2:4 for seeds 2 and 3")
    return seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=_ids, default="1000:1020", help="first:end of the landscapes")
    parser.add_argument("--recorded", choices=recorded.HALVES, help="recorded trainings instead of landscapes")
    parser.add_argument("--workers", default="1,8,64")
    parser.add_argument("--seeds", type=seed_range, default="3", help="how many from 1 on, or first:end")
    parser.add_argument("--strategies", default="hybrid,yolov5-2021", help=f"of {', '.join((*NAMES, *peers.NAMES))}")
    parser.add_argument("--runs", type=Path, help="file of finished campaigns, read and added to")
    parser.add_argument("--json", type=Path, help="the results as a list")
    parser.add_argument("--record", type=Path, help="the same with command, commit and machine")
    arguments = parser.parse_args()
    problems: Sequence[Problem]
    if arguments.recorded:
        try:
            problems = recorded.problems(arguments.recorded)
        except (ImportError, FileNotFoundError) as error:
            sys.exit(f"no recorded trainings: {error}; they need onnxruntime and {recorded.DATA}")
    else:
        problems = [Landscape(number) for number in arguments.ids]
    names = arguments.strategies.split(",")
    try:
        for name in names:
            if name not in peers.NAMES:
                parse(name)
    except OptionError as error:
        sys.exit(str(error))
    runs = Runs(arguments.runs)
    results: list[dict[str, Any]] = []
    for workers in (int(text) for text in arguments.workers.split(",")):
        for name in names:
            try:
                done = [runs.of(name, workers, problem, seed) for problem in problems for seed in arguments.seeds]
            except ImportError as error:
                print(f"W={workers:<3d} {name:<32s} left out: {error}", flush=True)
                continue
            results.append(summary(name, workers, done))
            one = results[-1]
            low, high = one["interval"]
            regret = " ".join(f"{n}:{value:.2f}" for n, value in one["regret"].items())
            print(
                f"W={workers:<3d} {name:<32s} gain {one['mean_gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
                f"  regret {regret}  failed {one['failed']:.1f}  {one['ms_per_candidate']:.1f} ms  {one['runs']} runs",
                flush=True,
            )
    if not results:
        sys.exit("none of the strategies could be run here")
    print("\n".join([*leads(results), "", *table(results)]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.record:
        record.write(arguments.record, seed=None, results=results)


if __name__ == "__main__":
    main()
