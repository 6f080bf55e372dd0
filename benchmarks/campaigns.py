"""``hypevolve run`` on real data, to its end: ``python -m benchmarks.campaigns bccd coco128 --datasets FOLDER --json OUT``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record

CAMPAIGNS = {
    "bccd": ("bccd-voc", {"model": "yolov5n", "epochs": 3, "imgsz": 320, "batch": 8}, 6),
    "coco128": ("coco128/coco128.yaml", {"model": "yolov5n", "epochs": 1, "imgsz": 160, "batch": 8}, 2),
}


def run(name: str, datasets: Path, folder: Path) -> dict[str, Any]:
    """One campaign with two workers in ``folder``; its numbers."""
    data, base, candidates = CAMPAIGNS[name]
    campaign = {"name": name, "base": {"data": str(datasets / data), **base}, "budget": {"candidates": candidates}}
    (folder / "campaign.yaml").write_text(json.dumps(campaign))
    command = [sys.executable, "-m", "hypevolve", "run", "campaign.yaml", "--workers", "2", "--folder", "run", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    summary = json.loads(done.stdout)
    return {
        "base": campaign["base"] | {"data": data},
        "counts": summary["counts"],
        "seconds": round(summary["seconds"], 1),
        "default": summary["default"]["metrics"],
        "best_number": summary["best"]["number"],
        "best": summary["best"]["metrics"],
        "files": summary["files"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Run campaigns on real data sets.")
    parser.add_argument("names", nargs="+", choices=sorted(CAMPAIGNS))
    parser.add_argument("--datasets", type=Path, default=record.ROOT.parent / "shared" / "datasets")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = {}
    for name in asked.names:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(name, asked.datasets.resolve(), Path(folder))
        print(name, json.dumps({key: results[name][key] for key in ("counts", "seconds", "best")}))
    if asked.json:
        record.write(asked.json, seed=0, results=results)


if __name__ == "__main__":
    main()
