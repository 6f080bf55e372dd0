"""Accuracy on BCCD (blood cells, 205 images): yolov5n from scratch, map50 and map50_95 for two seeds.

python -m benchmarks.detector_bccd --json docs/results/detector-bccd.json
python -m benchmarks.detector_bccd --reference-setting --json docs/results/detector-bccd-reference-setting.json

The first is the recipe for short budgets: 10 epochs, batch 8, optimizer auto, evaluated after each. The second is the setting
in which the reference was measured: 30 epochs, batch 16, SGD, the low-augmentation preset.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks import record

BASE = {"model": "yolov5n", "imgsz": 320}
SHORT = BASE | {"epochs": 10, "batch": 8, "optimizer": "auto", "val_every": 1}
REFERENCE = BASE | {"epochs": 30, "batch": 16, "optimizer": "SGD", "val_every": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=record.ROOT.parent / "shared" / "datasets" / "bccd-voc")
    parser.add_argument("--reference-setting", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.exit(5, f"{options.data} is absent; give the BCCD data set (VOC format) with --data\n")

    import cv2
    import torch

    from detector.scenario import Scenario
    from detector.trainer import train
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    base = REFERENCE if options.reference_setting else SHORT
    scenario = Scenario.from_mapping({**base, "data": str(options.data.resolve())}, data_root=record.ROOT)
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        curve: list[dict[str, float]] = []

        def report(epoch: int, metrics: dict[str, float], curve: list[dict[str, float]] = curve, seed: int = seed) -> None:
            curve.append({"epoch": epoch, **metrics})
            if "map50" in metrics:
                values = "  ".join(f"{key} {metrics[key]:.3f}" for key in ("map50", "map50_95"))
                print(f"seed {seed} epoch {epoch + 1}  {values}", flush=True)

        start = time.process_time()
        result = train(Hyperparameters(), scenario, seed=seed, report=report)
        cpu = round(time.process_time() - start, 1)
        runs.append({"seed": seed, "cpu_seconds": cpu, "metrics": result.metrics, "curve": curve})
        print(f"seed {seed}: {cpu} CPU s")
        if options.json:
            record.write(options.json, seed=None, results={"base": base, "hyp": Hyperparameters().to_dict(), "runs": runs})


if __name__ == "__main__":
    main()
