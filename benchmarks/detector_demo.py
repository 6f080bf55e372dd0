"""How good and how long is one training of the demo: map50 for three seeds, and CPU seconds.

python benchmarks/detector_demo.py --json docs/results/detector-demo.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
ROOT = Path(__file__).resolve().parents[1]


def circumstances() -> dict[str, object]:
    """What a reader needs to repeat the figures: command, commit, machine, versions."""
    import torch

    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), ""
    )
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": git.stdout.strip() or "none yet",
        "machine": {"cpu": cpu or platform.processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lineage", default="yolov5", help="another one is trained with its default hyps alone")
    options = parser.parse_args()

    import cv2
    import torch

    from detector import digits
    from detector.scenario import Scenario
    from detector.trainer import train
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # What a search can reach: one better hyp set, found by hand.
    better = {"lr0": 0.02, "warmup_epochs": 1.0, "momentum": 0.9}
    sets = {"default": {}, "better": better} if options.lineage == "yolov5" else {"default": {}}
    base = {**digits.DEMO_BASE, "lineage": options.lineage}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        data = digits.write(Path(folder) / "digits")
        scenario = Scenario.from_mapping({**base, "data": str(data)}, data_root=Path(folder))
        for name, genes in sets.items():
            for seed in options.seeds:
                start = time.process_time()
                result = train(Hyperparameters.from_mapping(genes, options.lineage), scenario, seed=seed)
                cpu = time.process_time() - start
                runs.append({"hyp": name, "seed": seed, "cpu_seconds": round(cpu, 2), **result.metrics})
                print(f"{name:<8} seed {seed}  map50 {result.metrics['map50']:.3f}  {cpu:.1f} CPU s", flush=True)
    means = {n: statistics.mean(r["map50"] for r in runs if r["hyp"] == n) for n in sets}
    cpu = statistics.mean(r["cpu_seconds"] for r in runs)
    print("mean map50:", ", ".join(f"{n} {mean:.3f}" for n, mean in means.items()) + f"; {cpu:.1f} CPU s a training")
    if options.json:
        document = {**circumstances(), "scenario": base, "hyps": sets, "runs": runs}
        document |= {"mean_map50": means, "mean_cpu_seconds": cpu}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
