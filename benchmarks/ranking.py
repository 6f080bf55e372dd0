"""Does a short training rank hyp sets as a long one would? Spearman's correlation, from two campaigns of the product itself.

python -m benchmarks.ranking --folder runs/ranking --json docs/results/ranking.json

Both campaigns draw the same hyp sets (strategy random, one seed) from a space narrowed to a third and three times of each
gene's default (genes that are 0 stay 0); one trains each ``--epochs`` epochs, the other four times as many. They take turns in
steps of a few candidates, by ``hypevolve run`` with a growing budget: interrupt it, type it again, and it goes on. Candidate 0,
the default hyp set, is left out. The interval is a bootstrap over the hyp sets (2.5 to 97.5 %).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks import record
from evolution.hyperparameters import lineage_space

TIMES = 4
FACTOR = 3.0
METRICS = {"map50": "metrics/mAP_0.5", "map50_95": "metrics/mAP_0.5:0.95"}
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=record.ROOT.parent / "shared" / "datasets" / "bccd-voc")
    parser.add_argument("--folder", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--candidates", type=int, default=21, help="hyp sets, the default one included")
    parser.add_argument("--step", type=int, default=7, help="candidates by which the budgets grow in turn")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    base = {"data": str(options.data.resolve()), "model": "yolov5n", "imgsz": options.imgsz, "batch": options.batch}
    bases = {name: base | {"epochs": epochs} for name, epochs in (("short", options.epochs), ("long", TIMES * options.epochs))}
    for planned in [*range(options.step, options.candidates, options.step), options.candidates]:
        tables = {name: _campaign(name, scenario, planned, options) for name, scenario in bases.items()}
        results = compare(tables["short"], tables["long"], options.seed)
        results["base"] = {name: scenario | {"data": options.data.name} for name, scenario in bases.items()}
        print(f"{planned} candidates: " + json.dumps(results["spearman"]), flush=True)
        if options.json:
            record.write(options.json, seed=options.seed, results=results)


def _campaign(name: str, base: dict[str, Any], planned: int, options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of evolve.csv once ``planned`` candidates are done."""
    folder = options.folder.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    campaign = {
        "name": f"ranking-{name}",
        "base": base,
        "space": space(),
        "fixed": [gene.name for gene in lineage_space("yolov5") if gene.name not in space()],
        "evolve": {"strategy": "random", "scaled": True, "seed": options.seed},
        "budget": {"candidates": planned},
    }
    (folder / "campaign.yaml").write_text(json.dumps(campaign, indent=1))
    command = [sys.executable, "-m", "hypevolve", "run", str(folder / "campaign.yaml"), "--folder", str(folder / "run")]
    subprocess.run([*command, "--workers", str(options.workers)], cwd=record.ROOT, check=True)
    with (folder / "run" / "evolve.csv").open() as file:
        rows = csv.reader(file)
        head = [cell.strip() for cell in next(rows)]
        return [dict(zip(head, (cell.strip() for cell in row), strict=True)) for row in rows]


def space() -> dict[str, list[float]]:
    """Every gene that is not 0 by default, between a third and three times its default, within its own bounds."""
    narrowed = {}
    for gene in lineage_space("yolov5"):
        if gene.start > 0 and gene.lower < gene.upper:
            narrowed[gene.name] = [1.0, max(gene.lower, gene.start / FACTOR), min(gene.upper, gene.start * FACTOR)]
    return narrowed


def compare(short: Sequence[dict[str, str]], long: Sequence[dict[str, str]], seed: int) -> dict[str, Any]:
    """Spearman's correlation of each metric over the hyp sets that both have, but for the default one (the first)."""
    outcomes = (*METRICS.values(), "metrics/precision", "metrics/recall", "val/box_loss", "val/obj_loss", "val/cls_loss")

    def hyp(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(value for name, value in row.items() if name not in outcomes)

    later = {hyp(row): row for row in long[1:]}
    pairs = [(row, later[hyp(row)]) for row in short[1:] if hyp(row) in later]
    found: dict[str, Any] = {}
    table: dict[str, list[list[float]]] = {}
    for metric, column in METRICS.items():
        values = np.array([[float(one[column]) for one in pair] for pair in pairs])
        table[metric] = values.tolist()
        if len(pairs) > 2:
            rng = np.random.default_rng(seed)
            drawn = _spearman(values[rng.integers(len(values), size=(RESAMPLES, len(values)))])
            low, high = np.nanpercentile(drawn, [2.5, 97.5])
            found[metric] = {
                "rho": round(float(_spearman(values)), 3),
                "low": round(float(low), 3),
                "high": round(float(high), 3),
            }
    return {"hyp_sets": len(pairs), "spearman": found, "short_and_long": table}


def _spearman(values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks of pairs (..., n, 2); NaN where one value throughout has no rank."""
    ranks = rankdata(values, axis=-2)
    off = ranks - ranks.mean(-2, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (off[..., 0] * off[..., 1]).sum(-1) / np.sqrt((off**2).sum(-2).prod(-1))


if __name__ == "__main__":
    main()
