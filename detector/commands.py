"""What each command of ``python -m detector`` does, once its options are parsed. Each returns an exit code."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detector import checkpoint, data, digits, optim, precision
from detector.boxes import decode
from detector.cache import load_cached
from detector.dataset import read_text
from detector.ema import Average
from detector.errors import DataError, TrainingDiverged
from detector.evaluate import detect, detections, truth
from detector.execution import Execution
from detector.export import to_onnx
from detector.lineages import OPERATING_POINT, loss_of
from detector.metrics import evaluate as judge
from detector.models import ARCHITECTURES, Detector, cost
from detector.predict import write
from detector.project import Project, draw_found
from detector.scenario import LARGEST_STRIDE, Scenario
from detector.team import Team, joined
from detector.trainer import MOST_GRADIENT, describe
from detector.trainer import train as run_training
from evolution import yaml
from evolution.hyperparameters import SCENARIO_GENES, Hyperparameters, split_hyp

EXIT_DIVERGED = 4
EXIT_DATA = 5
_KEYS = (
    "model",
    "weights",
    "epochs",
    "imgsz",
    "batch",
    "nominal_batch",
    "optimizer",
    "anchors",
    "rect",
    "val_every",
    "progressive",
    "multi_scale",
    "lineage",
)


class UsageError(ValueError):
    """An option has a value that cannot be used. The one-line text names it."""


def train(options: argparse.Namespace) -> int:
    """Trains once, with others where torchrun started them; with ``--check`` only looks for what is wrong with the data."""
    if options.check:
        return _check(options.data)
    with joined(options.device) as (team, options.device):
        return _train(options, team)


def _train(options: argparse.Namespace, team: Team) -> int:
    genes, instead = _hyp_file(options.hyp)
    base = {"data": options.data} | {key: getattr(options, key) for key in _KEYS} | instead
    try:
        scenario = Scenario.from_mapping(base, data_root=Path.cwd())
        execution = Execution(options.device, options.augment, options.precision, options.compile, options.sync_norms, team)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _machine(options)
    try:
        hyp = Hyperparameters.from_mapping(genes, scenario.lineage)
    except ValueError as error:
        raise ValueError(f"{options.hyp}: {error}") from None
    facts = describe(scenario)
    for remark in facts["remarks"] if team.leads else ():
        print(f"{scenario.data}: {remark}", file=sys.stderr)
    project = None
    if options.project and team.leads:
        project = Project(options.project, resumed=options.checkpoints is not None)
        project.describe(hyp, scenario, options.seed)
        project.draw_data(load_cached(scenario.data, scenario.imgsz), hyp, scenario, options.seed)
    curve: list[dict[str, float]] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        curve.append({"epoch": epoch, **metrics})
        if project:
            project.row(epoch, metrics)
        shown = ("train_box", "train_obj", "train_cls", "precision", "recall", "map50", "map50_95")
        print(f"epoch {epoch + 1}/{scenario.epochs}", *(f"{k} {metrics[k]:.4f}" for k in shown if k in metrics), flush=True)

    try:
        result = run_training(
            hyp,
            scenario,
            seed=options.seed,
            execution=execution,
            report=report,
            progress=_bar,
            checkpoints=options.checkpoints,
            checkpoint_every_s=None if options.checkpoint_every is None else 60 * options.checkpoint_every,
            checkpoint_least_s=60 * (options.checkpoint_every or 0),
        )
    except TrainingDiverged as error:
        print(f"detector train: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    if not team.leads:
        return 0
    print(*(f"{key} {value:.4f}" for key, value in result.metrics.items()), f"seconds {result.seconds:.1f}")
    if result.unmatched:
        print(f"{scenario.weights}: did not fill {', '.join(result.unmatched)}", file=sys.stderr)
    if options.save:
        checkpoint.save(result.model, facts["classes"], options.save, scenario.imgsz)
    if project:
        checkpoint.save(result.model, facts["classes"], project.folder / "last.safetensors", scenario.imgsz)
        pictures = load_cached(scenario.data, scenario.imgsz)
        project.draw_evaluation(result.model, hyp, pictures, scenario.imgsz, 2 * scenario.batch, options.device)
    if options.json:
        document: dict[str, Any] = {"scenario": asdict(scenario), "hyp": hyp.to_dict(), "seed": options.seed, "data": facts}
        document |= {"curve": curve, "metrics": result.metrics, "seconds": result.seconds}
        _write_json(options.json, document)
    return 0


def val(options: argparse.Namespace) -> int:
    """Evaluates a checkpoint on the validation images of a data set."""
    _machine(options)
    opened = checkpoint.open_model(options.weights)
    imgsz = options.imgsz or opened.imgsz
    pictures = load_cached(options.data, imgsz)
    names = pictures.dataset.names
    if len(names) != len(opened.names):
        raise DataError(
            f"{options.weights} knows {len(opened.names)} classes ({_some(opened.names)}), {options.data} has {len(names)} "
            f"({_some(names)}); name the data set that it was trained on"
        )
    model = opened.model.to(options.device)
    hyp = Hyperparameters.from_mapping({}, model.lineage)
    found, losses = detect(model, loss_of(model, hyp, imgsz), pictures.val, options.batch, options.device, progress=_bar)
    metrics = judge(found, [truth(p) for p in pictures.val], model.classes, OPERATING_POINT[model.lineage])
    metrics |= dict(zip(("val_box", "val_obj", "val_cls"), losses.tolist(), strict=True))
    print(f"images {len(pictures.val)}", *(f"{key} {value:.4f}" for key, value in metrics.items()))
    if options.project:
        Path(options.project).mkdir(parents=True, exist_ok=True)
        draw_found(found, pictures.val, names, Path(options.project))
    if options.json:
        _write_json(options.json, {"weights": options.weights, "data": options.data, "imgsz": imgsz, "metrics": metrics})
    return 0


def predict(options: argparse.Namespace) -> int:
    """Draws detections on an image or a folder of images; names those that cannot be read, and goes on."""
    _machine(options)
    if not 0 <= options.conf <= 1:
        raise UsageError(f"--conf is {options.conf:g}, but must be from 0 to 1")
    opened = checkpoint.open_model(options.weights)
    bad: list[str] = []

    def skipped(why: str) -> None:
        bad.append(why)
        print(f"detector predict: {why}", file=sys.stderr)

    imgsz = options.imgsz or opened.imgsz
    rows = write(opened, options.source, options.out, imgsz, options.conf, options.device, skipped, progress=_bar)
    boxes = sum(len(row["boxes"]) for row in rows)
    print(f"{len(rows)} images, {boxes} boxes above {options.conf:g}: {options.out}/predictions.json")
    if bad:
        print(f"detector predict: {len(bad)} of {len(rows) + len(bad)} images could not be read", file=sys.stderr)
    return EXIT_DATA if bad else 0


def export(options: argparse.Namespace) -> int:
    """Writes a checkpoint in another format."""
    opened = checkpoint.open_model(options.weights)
    imgsz, step = options.imgsz or opened.imgsz, int(opened.model.strides.max())
    if imgsz < step or imgsz % step:
        raise UsageError(f"--imgsz is {imgsz}, but must be a multiple of {step}")
    out = options.out or Path(options.weights).with_suffix(f".{options.format}")
    worst = to_onnx(opened, out, imgsz)
    print(f"{out}: {len(opened.names)} classes, rows differ from the network's by at most {worst:.1e}")
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Images per second of training steps as ``train`` makes them, and of inference with suppression, on random pixels."""
    _machine(options)
    try:
        execution = Execution(options.device, precision=options.precision)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if options.imgsz % LARGEST_STRIDE:
        raise UsageError(f"--imgsz is {options.imgsz}, but must be a multiple of {LARGEST_STRIDE}")
    rng = np.random.default_rng(0)
    batch, imgsz, device = options.batch, options.imgsz, options.device
    model = Detector(options.model, options.classes).to(device, memory_format=torch.channels_last)
    model.expect(640)
    hyp = Hyperparameters()
    loss = loss_of(model, hyp, imgsz)
    optimizer, _ = optim.build(model, "auto", hyp, 1.0)
    average, scaler = Average(model), torch.amp.GradScaler(execution.kind, enabled=execution.scaled)
    pixels = torch.from_numpy(rng.integers(0, 256, (batch, imgsz, imgsz, 3), np.uint8)).permute(0, 3, 1, 2).to(device)
    boxes = np.concatenate((rng.uniform(0.2, 0.8, (8 * batch, 2)), rng.uniform(0.05, 0.3, (8 * batch, 2))), 1)
    heads = np.stack((np.arange(8 * batch) % batch, rng.integers(options.classes, size=8 * batch)), 1)
    targets = torch.tensor(np.concatenate((heads, boxes), 1), dtype=torch.float32, device=device)

    def step() -> None:
        with execution.autocast():
            maps = model(pixels.float() / 255)
        scaler.scale(loss(maps, targets)[0]).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT, foreach=True)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        average.update()

    model.train()
    row: dict[str, Any] = {"model": options.model, "imgsz": imgsz, "batch": batch, "threads": torch.get_num_threads()}
    row["precision"] = precision.resolved(options.precision, execution.kind)
    row["train_images_per_s"] = round(batch / _median(step, options.seconds), 2)
    folded = model.folded().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def infer() -> None:
        for rows in decode(folded(pixels.float() / 255), folded.anchors, folded.strides).cpu():
            detections(rows)

    row["predict_images_per_s"] = round(batch / _median(infer, options.seconds), 2)
    print(json.dumps(row) if options.json else " ".join(f"{key} {value}" for key, value in row.items()))
    return 0


def models(options: argparse.Namespace) -> int:
    """Lists the models."""
    rows = [cost(name) for name in ARCHITECTURES]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'name':<12} {'parameters':>11} {'GFLOPs':>7} {'rows':>6}")
        for row in rows:
            print(f"{row['name']:<12} {row['parameters']:>11,} {row['gflops']:>7} {row['rows']:>6}")
    return 0


def write_digits(options: argparse.Namespace) -> int:
    """Writes the built-in data set."""
    print(digits.write(options.folder, options.seed))
    return 0


def _check(path: str) -> int:
    faults = data.check(path)
    for fault in faults:
        print(fault)
    if faults:
        print(f"detector train: {len(faults)} faults in {path}", file=sys.stderr)
        return EXIT_DATA
    dataset = data.load(path)
    for remark in dataset.remarks:
        print(f"{path}: {remark}")
    labels = [sum(len(s.labels) for s in split) for split in (dataset.train, dataset.val)]
    print(f"{path}: {len(dataset.train)} + {len(dataset.val)} images, {labels[0]} + {labels[1]} labels, nothing wrong")
    return 0


def _machine(options: argparse.Namespace) -> None:
    """Threads and device as asked for. Raises UsageError where they, or another number, cannot be had."""
    for name, least in (("threads", 1), ("seed", 0), ("imgsz", 1), ("batch", 1), ("classes", 1)):
        value = getattr(options, name, None)
        if value is not None and value < least:
            raise UsageError(f"--{name} must be at least {least}")
    try:
        torch.zeros(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {options.device}: {str(error).splitlines()[0]}") from None
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)


def _bar(fraction: float) -> None:
    """A bar on a terminal; nothing in a file."""
    if sys.stderr.isatty():
        full = round(30 * fraction)
        end = "\r\033[K" if fraction >= 1 else "\r"
        print(f"[{'=' * full:<30}] {fraction:4.0%}", end=end, file=sys.stderr, flush=True)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _median(call: Any, seconds: float) -> float:
    """Median wall seconds of a call, after two for warm-up, over at least three and about ``seconds``."""
    for _ in range(2):
        call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _write_json(path: str, document: Any) -> None:
    Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _hyp_file(path: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The genes of a hyp file, and those that take the place of an option, such as ``optimizer: AdamW``.

    Raises:
        ValueError: one line that names the file.
    """
    if path is None:
        return {}, {}
    values = yaml.load(read_text(Path(path)), path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is no mapping of genes; write one 'gene: number' a line")
    genes, instead = split_hyp(values)
    for name, value in genes.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path} key {name}: is {value!r}, no number; write {name}: NUMBER")
    for name, value in instead.items():
        if value not in SCENARIO_GENES[name]:
            known = ", ".join(map(str, SCENARIO_GENES[name]))
            raise ValueError(f"{path} key {name}: is {value!r}; choices are {known}")
    return genes, instead
