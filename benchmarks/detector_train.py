"""How fast a candidate is evaluated: ours against the same network and recipe run in the usual program's manner.

python -m benchmarks.detector_train --data ../shared/datasets/bccd-voc --json docs/results/detector-train.json

Ours is one warm process, as a worker keeps it. ``--as-reference`` is what a candidate costs where each starts a program: a
fresh process that imports, reads and decodes everything anew, trains in NCHW with deterministic algorithms, updates optimizer
and average tensor by tensor, and evaluates without folded batch norms. Network, data, augmentation, loss, schedule and seed are
the same. The two take turns within one run, one thread each, so that load on the machine meets both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set (default: the built-in digits)")
    parser.add_argument("--model", default="yolov5n")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="candidates of each kind, after one of ours for warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-reference", action="store_true", help="one candidate in that manner; one JSON line on stdout")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.as_reference:
        print(json.dumps(_as_reference(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            from detector import digits

            options.data = digits.write(Path(folder) / "digits")
        results = _compare(options)
    print(json.dumps(results["summary"], indent=1))
    if options.json:
        write(options.json, seed=options.seed, results=results)


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    names = ("data", "model", "imgsz", "batch", "epochs", "seed")
    arguments = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, "-m", "benchmarks.detector_train", "--as-reference", *arguments]
    first = _ours(options)
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "as_reference": []}
    for number in range(options.rounds):
        rows["ours"].append(_ours(options))
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        # The process's own start and end belong to the candidate.
        row = json.loads(done.stdout.splitlines()[-1]) | {"wall_s": time.perf_counter() - start}
        rows["as_reference"].append(row)
        print(
            f"round {number + 1}: ours {rows['ours'][-1]['cpu_s']:.1f}, as reference {row['cpu_s']:.1f} CPU s", file=sys.stderr
        )
    middle = {kind: {key: statistics.median(r[key] for r in held) for key in held[0]} for kind, held in rows.items()}
    ours, reference = middle["ours"], middle["as_reference"]
    summary = {
        "images_per_cpu_s": {kind: round(m["images_per_cpu_s"], 2) for kind, m in middle.items()},
        "images_per_s_ratio": round(ours["images_per_cpu_s"] / reference["images_per_cpu_s"], 3),
        "candidates_per_cpu_hour": {kind: round(3600 / m["cpu_s"], 1) for kind, m in middle.items()},
        "candidates_ratio": round(reference["cpu_s"] / ours["cpu_s"], 3),
        "candidates_ratio_wall": round(reference["wall_s"] / ours["wall_s"], 3),
        "cpu_s_outside_steps_and_validation": {kind: round(m["other_cpu_s"], 2) for kind, m in middle.items()},
    }
    scenario = {name: str(getattr(options, name)) for name in names[1:]} | {"data": Path(options.data).name}
    return {"scenario": scenario, "summary": summary, "first_of_ours": first, "rounds": rows}


class _Clock:
    """CPU seconds since the process began or since ``restart``, and those of each step."""

    def __init__(self, from_start: bool) -> None:
        self.began = 0.0 if from_start else time.process_time()
        self.wall = time.perf_counter()
        self.steps: list[float] = []
        self.validation = 0.0
        self._last = self.began

    def tick(self) -> float:
        now = time.process_time()
        passed, self._last = now - self._last, now
        return passed

    def row(self, batch: int) -> dict[str, float]:
        """The median step gives images per CPU second; what is neither step nor validation is the candidate's overhead."""
        cpu, step = time.process_time() - self.began, statistics.median(self.steps)
        other = cpu - step * len(self.steps) - self.validation
        return {
            "cpu_s": cpu,
            "wall_s": time.perf_counter() - self.wall,
            "step_cpu_s": step,
            "images_per_cpu_s": batch / step,
            "validation_cpu_s": self.validation,
            "other_cpu_s": other,
        }


def _scenario(options: argparse.Namespace) -> Any:
    from detector.scenario import Scenario

    base = {"data": str(options.data), "model": options.model, "imgsz": options.imgsz, "batch": options.batch}
    return Scenario.from_mapping({**base, "epochs": options.epochs}, data_root=Path.cwd())


def _ours(options: argparse.Namespace) -> dict[str, float]:
    import cv2
    import torch

    from detector import trainer
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = _Clock(from_start=False)
    measured = trainer.evaluate

    def evaluate(*arguments: Any) -> dict[str, float]:
        start = time.process_time()
        try:
            return measured(*arguments)
        finally:
            clock.validation += time.process_time() - start

    def progress(_: float) -> None:
        clock.steps.append(clock.tick())

    trainer.evaluate = evaluate
    try:
        trainer.train(Hyperparameters(), _scenario(options), seed=options.seed, progress=progress)
    finally:
        trainer.evaluate = measured
    # The first step's time holds everything before it.
    clock.steps[0] = statistics.median(clock.steps)
    return clock.row(options.batch)


def _as_reference(options: argparse.Namespace) -> dict[str, float]:
    clock = _Clock(from_start=True)
    import cv2
    import numpy as np
    import torch

    from detector import metrics, optim
    from detector.batches import batches_per_epoch, training_batches, validation_batches
    from detector.boxes import decode
    from detector.cache import load_cached
    from detector.ema import Average
    from detector.evaluate import _detections, truth
    from detector.lineages import loss_of
    from detector.trainer import MOST_GRADIENT, initial_model
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True)
    hyp, scenario = Hyperparameters(), _scenario(options)
    pictures = load_cached(scenario.data, scenario.imgsz)
    model, _ = initial_model(hyp, scenario, pictures, options.seed)
    average = copy.deepcopy(model).eval()
    per_epoch = batches_per_epoch(len(pictures.train), scenario.batch)
    fused, factor = optim.build(model, scenario.optimizer, hyp, 1.0)
    groups = [{key: group[key] for key in ("params", "weight_decay")} for group in fused.param_groups]
    betas = (hyp.momentum, optim.AUTO_BETA2)
    optimizer = torch.optim.AdamW(groups, lr=hyp.lr0, betas=betas, fused=False, foreach=False)
    schedule = optim.Schedule(hyp, scenario.epochs * per_epoch, per_epoch, factor=factor)
    loss_function = loss_of(model, hyp, scenario.imgsz)
    iteration = 0
    for epoch in range(scenario.epochs):
        model.train()
        for batch in training_batches(pictures.train, hyp, scenario.imgsz, scenario.batch, False, options.seed, epoch):
            optim.apply(optimizer, schedule.at(iteration))
            images = batch.images.contiguous().float() / 255
            loss, _ = loss_function(model(images), batch.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT, foreach=False)
            optimizer.step()
            optimizer.zero_grad()
            iteration += 1
            decay, now = Average.decay(iteration), model.state_dict()
            with torch.no_grad():
                for key, value in average.state_dict().items():
                    if value.is_floating_point():
                        value.mul_(decay).add_(now[key], alpha=1 - decay)
            clock.steps.append(clock.tick())
    clock.steps[0] = statistics.median(clock.steps)
    found: dict[int, Any] = {}
    with torch.inference_mode():
        for item in validation_batches(pictures.val, 2 * scenario.batch):
            maps = average(item.batch.images.contiguous().float() / 255)
            loss_function(maps, item.batch.targets)
            rows = decode(maps, average.anchors, average.strides)
            for k, index in enumerate(item.indices):
                found[index] = _detections(rows[k], item, k, pictures.val[index])
    judged = metrics.evaluate([found[i] for i in range(len(found))], [truth(p) for p in pictures.val], average.classes)
    assert np.isfinite(judged["map50"])
    clock.validation = clock.tick()
    return clock.row(scenario.batch)


if __name__ == "__main__":
    main()
