"""Ten epochs of yolov5n from scratch on BCCD (blood cells, 205 images): map50 after each epoch for two seeds.

python benchmarks/detector_bccd.py --data ../shared/datasets/bccd-voc --json docs/results/detector-bccd.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from detector_demo import ROOT, circumstances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "datasets" / "bccd-voc")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
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
    base = {"model": "yolov5n", "epochs": options.epochs, "imgsz": 320, "batch": 8, "optimizer": "auto", "val_every": 1}
    scenario = Scenario.from_mapping({**base, "data": str(options.data.resolve())}, data_root=ROOT)
    runs = []
    for seed in options.seeds:
        curve: list[dict[str, float]] = []

        def report(epoch: int, metrics: dict[str, float], curve: list[dict[str, float]] = curve, seed: int = seed) -> None:
            curve.append({"epoch": epoch, **metrics})
            print(
                f"seed {seed} epoch {epoch + 1}  map50 {metrics['map50']:.3f}  map50_95 {metrics['map50_95']:.3f}", flush=True
            )

        start = time.process_time()
        result = train(Hyperparameters(), scenario, seed=seed, report=report)
        cpu = round(time.process_time() - start, 1)
        runs.append({"seed": seed, "cpu_seconds": cpu, "metrics": result.metrics, "curve": curve})
        print(f"seed {seed}: {cpu} CPU s")
    if options.json:
        document = {**circumstances(), "scenario": base, "hyp": Hyperparameters().to_dict(), "runs": runs}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
