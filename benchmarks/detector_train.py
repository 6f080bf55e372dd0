"""How fast a node evaluates candidates: ours against the same network and recipe run in the usual program's manner.

python -m benchmarks.detector_train --json docs/results/detector-train.json

Ours: as many warm processes as the node has cores, one thread each, as workers keep them. ``--as-reference``: what a candidate
costs where each starts a program, one at a time: a fresh process that imports, reads and decodes everything anew, trains in
NCHW and float32 with deterministic algorithms, updates optimizer and average tensor by tensor, and evaluates without folded
batch norms; with one thread and with one per core, of which the better counts. Network, data, augmentation, loss, schedule and
seed are the same. They take turns within one run, so that load on the machine meets all.

``--peer "NAME=COMMAND"`` times a program of your own installation beside them, once a round: one candidate, as a subprocess.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, write

Row = dict[str, float]
BCCD = ROOT.parent / "shared" / "datasets" / "bccd-voc"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set (default: BCCD where it is, else the built-in digits)")
    parser.add_argument("--model", default="yolov5n")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns; each of our processes trains one candidate for warm-up before"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of ours (default: one per core)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--as-reference", type=int, metavar="THREADS", help="one candidate in that manner; one JSON line")
    parser.add_argument("--warm", action="store_true", help="one of our processes: a candidate for each line on stdin")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.as_reference:
        print(json.dumps(_as_reference(options)))
    elif options.warm:
        for _ in sys.stdin:
            print(json.dumps(_ours(options)), flush=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            if options.data is None and BCCD.is_dir():
                options.data = BCCD
            elif options.data is None:
                from detector import digits

                options.data = digits.write(Path(folder) / "digits")
            results = _compare(options)
        print(json.dumps(results["summary"], indent=1))
        if options.json:
            write(options.json, seed=options.seed, results=results)


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    names = ("data", "model", "imgsz", "batch", "epochs", "seed")
    command = [sys.executable, "-m", "benchmarks.detector_train", *(f"--{name}={getattr(options, name)}" for name in names)]
    threads = sorted({1, os.cpu_count() or 1})
    rows: dict[str, list[Row]] = {"ours": [], **{_manner(t): [] for t in threads}}
    walls: list[float] = []
    peers: dict[str, list[Row]] = {}
    ours = [_start([*command, "--warm"], 1) for _ in range(options.processes)]
    try:
        first = _turn(ours)
        for number in range(options.rounds):
            start = time.perf_counter()
            rows["ours"] += _turn(ours)
            walls.append(time.perf_counter() - start)
            for count in threads:
                rows[_manner(count)].append(_fresh([*command, f"--as-reference={count}"], count))
            for peer in options.peer:
                name, _, line = peer.partition("=")
                peers.setdefault(name, []).append(_timed(shlex.split(line))[1])
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    finally:
        for process in ours:
            process.stdin.close()
            process.wait()
    scenario = {name: str(getattr(options, name)) for name in names[1:]} | {"data": options.data.name}
    summary = summarise(rows, walls, options.processes, options.batch, peers)
    return {"scenario": scenario, "summary": summary, "first_of_ours": first, "rounds": rows, "peers": peers}


def _manner(threads: int) -> str:
    return f"as_reference_{threads}"


def summarise(
    rows: Mapping[str, Sequence[Row]], walls: Sequence[float], processes: int, batch: int, peers: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """Medians over the turns, and ours as a multiple of the reference's manner at its better number of threads."""
    middle = {kind: {key: statistics.median(r[key] for r in held) for key in held[0]} for kind, held in rows.items()}
    ours, single = middle["ours"], middle[_manner(1)]
    best = min((kind for kind in middle if kind != "ours"), key=lambda kind: middle[kind]["wall_s"])
    node = {"ours": processes * batch / ours["step_wall_s"], best: batch / middle[best]["step_wall_s"]}
    hourly = {"ours": 3600 * processes / statistics.median(walls), best: 3600 / middle[best]["wall_s"]}
    hourly |= {name: 3600 / statistics.median(r["wall_s"] for r in held) for name, held in peers.items()}
    per_cpu = {"ours": batch / ours["step_cpu_s"], _manner(1): batch / single["step_cpu_s"]}
    return {
        "processes_of_ours": processes,
        "images_per_s_of_the_node": _rounded(node) | {"ratio": round(node["ours"] / node[best], 2)},
        "images_per_cpu_s_of_one_thread": _rounded(per_cpu) | {"ratio": round(per_cpu["ours"] / per_cpu[_manner(1)], 2)},
        "candidates_per_hour_of_the_node": _rounded(hourly) | {"ratio": round(hourly["ours"] / hourly[best], 2)},
        "candidates_per_cpu_hour": {kind: round(3600 / m["cpu_s"], 1) for kind, m in middle.items()}
        | {"ratio": round(single["cpu_s"] / ours["cpu_s"], 2)},
        "cpu_s_outside_steps_and_validation": {kind: round(m["other_cpu_s"], 2) for kind, m in middle.items()},
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 1) for key, value in values.items()}


def _start(command: Sequence[str], threads: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _turn(processes: Sequence[subprocess.Popen[str]]) -> list[Row]:
    """One candidate in each of our processes, all at once."""
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [json.loads(process.stdout.readline()) for process in processes]


def _fresh(command: Sequence[str], threads: int) -> Row:
    said, spent = _timed(command, threads)
    # The process's own start and end belong to the candidate.
    return json.loads(said.splitlines()[-1]) | spent


def _timed(command: Sequence[str], threads: int | None = None) -> tuple[str, Row]:
    """What a program prints, and the wall and CPU seconds that it and its children take."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"wall_s": time.perf_counter() - start, "cpu_s": cpu}


class _Clock:
    """Wall and CPU seconds since the process began or since it was made, of each step and of validation."""

    def __init__(self, from_start: bool) -> None:
        self.began = (time.perf_counter(), 0.0 if from_start else time.process_time())
        self.steps: list[tuple[float, float]] = []
        self.validation_cpu = 0.0
        self._last = self.began

    def step(self) -> None:
        self.steps.append(self._passed())

    def validated(self) -> None:
        self.validation_cpu += self._passed()[1]

    def _passed(self) -> tuple[float, float]:
        now = (time.perf_counter(), time.process_time())
        wall, cpu = (b - a for a, b in zip(self._last, now, strict=True))
        self._last = now
        return wall, cpu

    def row(self) -> Row:
        """The median step; what is neither step nor validation is the candidate's overhead. The first step's time holds it."""
        wall, cpu = (b - a for a, b in zip(self.began, (time.perf_counter(), time.process_time()), strict=True))
        step_wall, step_cpu = (statistics.median(values) for values in zip(*self.steps[1:], strict=True))
        return {
            "wall_s": wall,
            "cpu_s": cpu,
            "step_wall_s": step_wall,
            "step_cpu_s": step_cpu,
            "validation_cpu_s": self.validation_cpu,
            "other_cpu_s": cpu - sum(c for _, c in self.steps[1:]) - step_cpu - self.validation_cpu,
        }


def _scenario(options: argparse.Namespace) -> Any:
    from detector.scenario import Scenario

    base = {"data": str(options.data), "model": options.model, "imgsz": options.imgsz, "batch": options.batch}
    return Scenario.from_mapping({**base, "epochs": options.epochs}, data_root=Path.cwd())


def _ours(options: argparse.Namespace) -> Row:
    import cv2
    import torch

    from detector.trainer import train
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = _Clock(from_start=False)
    train(
        Hyperparameters(),
        _scenario(options),
        seed=options.seed,
        progress=lambda fraction: clock.step(),
        report=lambda epoch, metrics: clock.validated(),
    )
    return clock.row()


def _as_reference(options: argparse.Namespace) -> Row:
    clock = _Clock(from_start=True)
    import cv2
    import numpy as np
    import torch

    from detector import decoded, metrics, optim
    from detector.batches import batches_per_epoch, training_batches, validation_batches
    from detector.boxes import decode
    from detector.cache import load_cached
    from detector.ema import Average
    from detector.evaluate import _in_file, detections, truth
    from detector.lineages import loss_of
    from detector.trainer import MOST_GRADIENT, initial_model
    from evolution.hyperparameters import Hyperparameters

    torch.set_num_threads(options.as_reference)
    cv2.setNumThreads(options.as_reference)
    torch.use_deterministic_algorithms(True)
    hyp, scenario = Hyperparameters(), _scenario(options)
    decoded.load = lambda wanted, imgsz, decode, folder: [decode(one, imgsz) for one in wanted]  # nothing shared
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
            clock.step()
    found: dict[int, Any] = {}
    with torch.inference_mode():
        for item in validation_batches(pictures.val, 2 * scenario.batch):
            maps = average(item.batch.images.contiguous().float() / 255)
            loss_function(maps, item.batch.targets)
            rows = decode(maps, average.anchors, average.strides)
            for k, index in enumerate(item.indices):
                found[index] = _in_file(detections(rows[k]), item.places[k], pictures.val[index])
    judged = metrics.evaluate([found[i] for i in range(len(found))], [truth(p) for p in pictures.val], average.classes)
    assert np.isfinite(judged["map50"])
    clock.validated()
    return clock.row()


if __name__ == "__main__":
    main()
