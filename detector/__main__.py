"""``python -m detector train | models | digits``: the detector on its own, without a campaign."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

EXIT_USAGE = 2
EXIT_DIVERGED = 4
EXIT_DATA = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, or with one line on stderr: 2 usage, 4 the training diverged, 5 data or hyp file invalid."""
    options = _parser().parse_args(argv)
    command = {"train": _train, "models": _models, "digits": _digits}[options.command]
    try:
        return command(options)
    except BrokenPipeError:
        return 0
    except (ValueError, OSError) as error:
        print(f"detector {options.command}: {error}", file=sys.stderr)
        return EXIT_DATA


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m detector", description="Trains a YOLO detector from scratch.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train once and print the metrics")
    train.add_argument("--data", required=True, help="YOLO YAML, Darknet .data, VOC folder, COCO JSON or folder")
    train.add_argument("--model", default="yolov5n")
    train.add_argument("--epochs", type=int, default=10)
    train.add_argument("--imgsz", type=int, default=640)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--nominal-batch", type=int, help="images per optimizer step (default: the batch)")
    train.add_argument("--optimizer", default="auto", help="auto, SGD, Adam or AdamW")
    train.add_argument("--anchors", default="auto", help="auto, stock or fitted")
    train.add_argument("--rect", action="store_true", help="batches of one aspect ratio, without mosaic")
    train.add_argument("--val-every", type=int, default=0, help="epochs between evaluations (default: after the last alone)")
    train.add_argument("--lineage", default="yolov5", help="yolov5, yolov3-2019 or yolov3-2020: loss, assignment and genes")
    train.add_argument("--hyp", help="YAML file with genes; those it omits take their default")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu")
    train.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: one for each training on a machine)")
    train.add_argument("--weights", default="", help="start from: a checkpoint of ours, a released .pt, Darknet .weights")
    train.add_argument("--save", metavar="OUT", help="write the averaged weights to this .safetensors file")
    train.add_argument("--checkpoints", metavar="FOLDER", help="keep checkpoints there, and go on from the newest one found")
    train.add_argument("--checkpoint-every", type=float, metavar="MIN", help="minutes between them (default: one each epoch)")
    train.add_argument("--json", metavar="OUT", help="write scenario, hyp set, curve and metrics to this file")
    models = commands.add_parser("models", help="list the models with their size at 80 classes and 640 pixels")
    models.add_argument("--json", action="store_true")
    digits = commands.add_parser("digits", help="write the built-in data set")
    digits.add_argument("folder")
    digits.add_argument("--seed", type=int, default=0)
    return parser


def _train(options: argparse.Namespace) -> int:
    import torch

    from detector import checkpoint
    from detector.errors import TrainingDiverged
    from detector.scenario import Scenario
    from detector.trainer import describe, train

    keys = (
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
        "lineage",
    )
    try:
        base = {"data": options.data} | {key: getattr(options, key) for key in keys}
        scenario = Scenario.from_mapping(base, data_root=Path.cwd())
        if options.seed < 0 or options.threads < 1:
            raise ValueError("--seed must be at least 0 and --threads at least 1")
        torch.zeros(1, device=options.device)
    except (ValueError, RuntimeError, AssertionError) as error:
        print(f"detector train: {str(error).splitlines()[0]}", file=sys.stderr)
        return EXIT_USAGE
    hyp = _hyp(options.hyp, scenario.lineage)
    torch.set_num_threads(options.threads)
    facts = describe(scenario)
    for remark in facts["remarks"]:
        print(f"{scenario.data}: {remark}", file=sys.stderr)
    curve: list[dict[str, float]] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        curve.append({"epoch": epoch, **metrics})
        shown = ("train_box", "train_obj", "train_cls", "precision", "recall", "map50", "map50_95")
        print(f"epoch {epoch + 1}/{scenario.epochs}", *(f"{k} {metrics[k]:.4f}" for k in shown if k in metrics), flush=True)

    try:
        result = train(
            hyp,
            scenario,
            seed=options.seed,
            device=options.device,
            report=report,
            checkpoints=options.checkpoints,
            checkpoint_every_s=None if options.checkpoint_every is None else 60 * options.checkpoint_every,
        )
    except TrainingDiverged as error:
        print(f"detector train: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    print(*(f"{key} {value:.4f}" for key, value in result.metrics.items()), f"seconds {result.seconds:.1f}")
    if result.unmatched:
        print(f"{scenario.weights}: did not fill {', '.join(result.unmatched)}", file=sys.stderr)
    if options.save:
        checkpoint.save(result.model, facts["classes"], options.save)
    if options.json:
        document: dict[str, Any] = {"scenario": asdict(scenario), "hyp": hyp.to_dict(), "seed": options.seed, "data": facts}
        document |= {"curve": curve, "metrics": result.metrics, "seconds": result.seconds}
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _hyp(path: str | None, lineage: str) -> Any:
    """The hyp set of a YAML file. Raises ValueError, one line that names the file."""
    from detector.dataset import read_text
    from evolution import yaml
    from evolution.hyperparameters import Hyperparameters

    if path is None:
        return Hyperparameters.from_mapping({}, lineage)
    values = yaml.load(read_text(Path(path)), path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is no mapping of genes; write one 'gene: number' a line")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path} key {name}: is {value!r}, no number; write {name}: NUMBER")
    try:
        return Hyperparameters.from_mapping(values, lineage)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _models(options: argparse.Namespace) -> int:
    from detector.models import ARCHITECTURES, cost

    rows = [cost(name) for name in ARCHITECTURES]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'name':<12} {'parameters':>11} {'GFLOPs':>7} {'rows':>6}")
        for row in rows:
            print(f"{row['name']:<12} {row['parameters']:>11,} {row['gflops']:>7} {row['rows']:>6}")
    return 0


def _digits(options: argparse.Namespace) -> int:
    from detector import digits

    print(digits.write(options.folder, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
