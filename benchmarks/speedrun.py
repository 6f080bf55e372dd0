"""How soon a training from scratch shows something: CPU seconds until map50 on the validation images reaches 0.50 and 0.75.

python -m benchmarks.speedrun --base epochs=8 batch=8 --json docs/results/speedrun.json

One thread. After each epoch the averaged weights are evaluated. The clock of training starts with ``train`` (data decoded, as
in a warm worker) and stands still during evaluations; ``total`` counts them too. A threshold is *seen* at the first evaluation
that reaches it, and *held* from the first evaluation after which none falls below it. Runs are added to the JSON file as they
end, each row with the command that makes it; a run whose base scenario, hyp set and seed are there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import record

THRESHOLDS = (0.5, 0.75)
BASE = {"model": "yolov5n", "imgsz": 320, "batch": 8, "epochs": 8, "val_every": 1}
BCCD = record.ROOT.parent / "shared" / "datasets" / "bccd-voc"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BCCD)
    parser.add_argument("--base", nargs="*", default=[], metavar="KEY=VALUE", help="keys of the base scenario")
    parser.add_argument("--hyp", nargs="*", default=[], metavar="GENE=VALUE", help="genes that differ from the default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--save", type=Path, help="a .safetensors file for the weights of the last training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.exists():
        parser.exit(5, f"{options.data} is absent; give the BCCD data set with --data\n")
    base, hyp = _values(options.base), _values(options.hyp)
    base = BASE | base
    configurations = json.loads(options.json.read_text())["results"] if options.json and options.json.exists() else []
    mine = next((c for c in configurations if (c["base"], c["hyp"]) == (base, hyp)), None)
    if mine is None:
        mine = {"base": base, "hyp": hyp, "runs": []}
        configurations.append(mine)
    for seed in options.seeds:
        if any(run["seed"] == seed for run in mine["runs"]):
            continue
        mine["runs"].append(run(options.data, base, hyp, seed, options.save))
        mine |= summary(mine["runs"]) | {"command": command(mine), "commit": record.commit()}
        row = mine["runs"][-1]
        print(f"seed {seed}  " + "  ".join(f"{p['map50']:.3f}" for p in row["curve"]), f" {row['curve'][-1]['total']} CPU s")
        if options.json:
            record.write(options.json, seed=None, results=configurations)
    print(json.dumps({key: mine[key] for key in ("seen", "held", "end")}, indent=1))


def _values(given: Sequence[str]) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in given)}


def command(row: dict[str, Any]) -> str:
    """What is typed for a row of the JSON file."""
    words = ["python -m benchmarks.speedrun --json docs/results/speedrun.json"]
    base = {key: value for key, value in row["base"].items() if BASE.get(key) != value}
    for option, values in (("--base", base), ("--hyp", row["hyp"])):
        if values:
            words += [option, *(f"{key}={str(value).lower()}" for key, value in values.items())]
    return " ".join([*words, "--seeds", *(str(run["seed"]) for run in row["runs"])])


def run(data: Path, base: dict[str, Any], hyp: dict[str, float], seed: int, save: Path | None = None) -> dict[str, Any]:
    """One training: its curve, as CPU seconds of training and in total beside map50 and map50_95 after each epoch."""
    import cv2
    import torch

    from detector import checkpoint
    from detector.cache import load_cached
    from detector.scenario import Scenario
    from detector.trainer import train
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scenario = Scenario.from_mapping({**base, "data": str(data.resolve())}, data_root=Path.cwd())
    for epoch in range(scenario.epochs):
        pictures = load_cached(scenario.data, scenario.size_at(epoch))
    curve: list[dict[str, float]] = []
    start = time.process_time()
    evaluating, stepped = 0.0, start

    def progress(_: float) -> None:
        nonlocal stepped
        stepped = time.process_time()

    def report(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal evaluating
        now = time.process_time()
        evaluating += now - stepped
        times = {"training": round(now - start - evaluating, 1), "total": round(now - start, 1)}
        curve.append({"epoch": epoch + 1, **times, **{key: round(metrics[key], 4) for key in ("map50", "map50_95")}})

    trained = train(Hyperparameters(**hyp), scenario, seed=seed, report=report, progress=progress)
    if save:
        checkpoint.save(trained.model, pictures.dataset.names, save, scenario.imgsz)
    return {"seed": seed, "curve": curve}


def reached(curve: Sequence[dict[str, float]], threshold: float, held: bool) -> dict[str, float] | None:
    """The point of ``curve`` where map50 is first seen at ``threshold``, or from which on it is held there; None: never."""
    below = [i for i, point in enumerate(curve) if point["map50"] < threshold]
    safe = below[-1] + 1 if below else 0
    above = [i for i in range(len(curve)) if (i >= safe if held else i not in below)]
    return curve[above[0]] if above else None


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds; None where half of them or more never get there."""
    found: dict[str, Any] = {}
    for name, held in (("seen", False), ("held", True)):
        found[name] = {}
        for threshold in THRESHOLDS:
            points = [reached(r["curve"], threshold, held) for r in runs]
            times = {key: [p[key] if p else float("inf") for p in points] for key in ("training", "total")}
            middle = {key: statistics.median(values) for key, values in times.items()}
            found[name][str(threshold)] = None if middle["total"] == float("inf") else middle
    found["end"] = {key: statistics.median(r["curve"][-1][key] for r in runs) for key in ("map50", "map50_95", "training")}
    return found


if __name__ == "__main__":
    main()
