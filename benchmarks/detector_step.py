"""Where the time of a training step on a CPU goes: parts of a step in CPU milliseconds, and its kinds of operators in shares.

python -m benchmarks.detector_step --json docs/results/detector-step.json

BCCD, yolov5n, 320 pixels, batch 16, one thread. Steps in bfloat16 and in float32 take turns; medians over them. Shares are of
the operators' own CPU time, in one more step under the profiler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import record

BCCD = record.ROOT.parent / "shared" / "datasets" / "bccd-voc"
KINDS = {
    "convolutions": ("convolution", "mkldnn_convolution", "conv2d"),
    "batch norms": ("batch_norm",),
    "SiLU": ("silu",),
    "copies and conversions": ("copy_", "to_copy", "contiguous", "clone", "cat"),
    "sums": ("add",),
    "pools and upsampling": ("pool", "upsample"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BCCD)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.exists():
        parser.exit(5, f"{options.data} is absent; give the BCCD data set with --data\n")
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    steps = {kind: _Step(options, kind) for kind in ("bf16", "fp32")}
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in steps}
    for turn in range(options.steps + 2):
        for kind, step in steps.items():
            row = step()
            if turn >= 2:
                rows[kind].append(row)
    results: dict[str, Any] = {"base": {"model": "yolov5n", "imgsz": options.imgsz, "batch": options.batch}}
    for kind, step in steps.items():
        results[kind] = {
            "cpu_ms": {part: round(statistics.median(row[part] for row in rows[kind]), 1) for part in rows[kind][0]},
            "share": step.shares(),
        }
    print(json.dumps(results, indent=1))
    if options.json:
        record.write(options.json, seed=0, results=results)


class _Step:
    """One training step after the other, as ``detector.trainer`` makes them."""

    def __init__(self, options: argparse.Namespace, kind: str) -> None:
        import torch

        from detector import optim
        from detector.batches import training_batches
        from detector.cache import load_cached
        from detector.ema import Average
        from detector.execution import Execution
        from detector.lineages import loss_of
        from detector.scenario import Scenario
        from detector.trainer import initial_model
        from evolution.hyperparameters import Hyperparameters

        hyp = Hyperparameters()
        scenario = Scenario(data=str(options.data.resolve()), imgsz=options.imgsz, batch=options.batch)
        pictures = load_cached(scenario.data, scenario.imgsz)
        model, _ = initial_model(hyp, scenario, pictures, 0)
        self.model = model.to(memory_format=torch.channels_last).train()
        self.loss, self.average = loss_of(model, hyp, scenario.imgsz), Average(model)
        self.optimizer, factor = optim.build(model, "auto", hyp, 1.0)
        optim.apply(self.optimizer, optim.Schedule(hyp, 100, 10, 1, factor).at(50))
        self.execution = Execution(precision=kind)
        self.batches = (
            batch
            for epoch in range(1000)
            for batch in training_batches(pictures.train, hyp, scenario.imgsz, scenario.batch, False, 0, epoch)
        )

    def __call__(self) -> dict[str, float]:
        """CPU milliseconds of its parts."""
        import torch

        from detector.trainer import MOST_GRADIENT

        times: dict[str, float] = {}

        def timed(part: str, work: Callable[[], Any]) -> Any:
            start = time.process_time()
            value = work()
            times[part] = 1000 * (time.process_time() - start)
            return value

        def update() -> None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MOST_GRADIENT, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        start = time.process_time()
        batch = timed("samples", lambda: next(self.batches))
        images = timed("to float", lambda: batch.images.float() / 255)
        with self.execution.autocast():
            maps = timed("forward", lambda: self.model(images))
        loss, _ = timed("loss and assignment", lambda: self.loss(maps, batch.targets))
        timed("backward", loss.backward)
        timed("clip and optimizer", update)
        timed("weight average", self.average.update)
        times["step"] = 1000 * (time.process_time() - start)
        return times

    def shares(self) -> dict[str, float]:
        """Of the operators of one step."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            self()
        events = profiled.key_averages()
        whole = sum(event.self_cpu_time_total for event in events)
        shares = dict.fromkeys((*KINDS, "the rest"), 0.0)
        for event in events:
            kind = next((k for k, words in KINDS.items() if any(word in event.key for word in words)), "the rest")
            shares[kind] += event.self_cpu_time_total / whole
        return {kind: round(share, 3) for kind, share in shares.items()}


if __name__ == "__main__":
    main()
