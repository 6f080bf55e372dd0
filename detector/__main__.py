"""``python -m detector train | val | predict | export | benchmark | models | digits``: the detector on its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from detector.scenario import MODELS

EXIT_USAGE = 2
EXIT_DATA = 5
_DATA = "YOLO YAML, Darknet .data, VOC folder, COCO JSON or folder"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, or with one line on stderr: 2 usage, 4 the training diverged, 5 data or hyp file invalid."""
    options = _parser().parse_args(argv)
    from detector import commands  # torch is loaded once the options are known to be sound

    command = {"digits": commands.write_digits}.get(options.command) or getattr(commands, options.command)
    try:
        return command(options)
    except BrokenPipeError:
        return 0
    except commands.UsageError as error:
        print(f"detector {options.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (ValueError, OSError) as error:
        print(f"detector {options.command}: {error}", file=sys.stderr)
        return EXIT_DATA


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m detector", description="A YOLO detector: trains, evaluates, predicts.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train once and print the metrics")
    train.add_argument("--data", required=True, help=_DATA)
    train.add_argument("--check", action="store_true", help="list every bad file and row of the data, and train nothing")
    train.add_argument("--model", default="yolov5n")
    train.add_argument("--epochs", type=int, default=10)
    train.add_argument("--imgsz", type=int, default=640)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--nominal-batch", type=int, help="images per optimizer step (default: the batch)")
    train.add_argument("--optimizer", default="auto", help="auto, SGD, Adam or AdamW")
    train.add_argument("--anchors", default="auto", help="auto, stock or fitted")
    train.add_argument("--rect", action="store_true", help="batches of one aspect ratio, without mosaic")
    train.add_argument("--progressive", action="store_true", help="smaller images in the first two thirds of the epochs")
    train.add_argument("--multi-scale", action="store_true", help="each batch enlarged or reduced by a factor of 0.5 to 1.5")
    train.add_argument("--val-every", type=int, default=0, help="epochs between evaluations (default: after the last alone)")
    train.add_argument("--lineage", default="yolov5", help="yolov5, yolov3-2019 or yolov3-2020: loss, assignment and genes")
    train.add_argument("--hyp", help="YAML file with genes; those it omits take their default")
    train.add_argument("--seed", type=int, default=0)
    _add_machine(train)
    train.add_argument("--augment", default="auto", help="host (OpenCV), device (tensors; the data set lives there) or auto")
    train.add_argument("--precision", default="auto", help="of the network in training: fp32, bf16, fp16 or auto")
    train.add_argument("--compile", action="store_true", help="through torch.compile: minutes that long trainings earn back")
    train.add_argument("--sync-norms", action="store_true", help="under torchrun on GPUs: batch norms over the whole batch")
    train.add_argument("--weights", default="", help="start from: a checkpoint of ours, a released .pt, Darknet .weights")
    train.add_argument("--save", metavar="OUT", help="write the averaged weights to this .safetensors file")
    train.add_argument("--checkpoints", metavar="FOLDER", help="keep checkpoints there, and go on from the newest one found")
    train.add_argument("--checkpoint-every", type=float, metavar="MIN", help="minutes between them (default: one each epoch)")
    train.add_argument("--project", metavar="FOLDER", help="write results.csv, hyp set, weights and pictures there")
    train.add_argument("--json", metavar="OUT", help="write scenario, hyp set, curve and metrics to this file")
    val = commands.add_parser("val", help="evaluate a checkpoint")
    val.add_argument("--weights", required=True, help="a .safetensors checkpoint of ours")
    val.add_argument("--data", required=True, help=_DATA)
    val.add_argument("--imgsz", type=int, help="pixels, long side (default: what it was trained at)")
    val.add_argument("--batch", type=int, default=16)
    val.add_argument("--project", metavar="FOLDER", help="write pictures of predictions, PR curve and confusion matrix there")
    val.add_argument("--json", metavar="OUT", help="write the metrics to this file")
    _add_machine(val)
    predict = commands.add_parser("predict", help="draw detections on an image or a folder of images")
    predict.add_argument("source", help="an image, or a folder of images")
    predict.add_argument("--weights", required=True, help="a .safetensors checkpoint of ours")
    predict.add_argument("--out", default="runs/predict", help="folder for images, .txt files and predictions.json")
    predict.add_argument("--imgsz", type=int, help="pixels, long side (default: what it was trained at)")
    predict.add_argument("--conf", type=float, default=0.25, help="least confidence")
    _add_machine(predict)
    export = commands.add_parser("export", help="write a checkpoint as an ONNX file, and compare what it computes")
    export.add_argument("weights", help="a .safetensors checkpoint of ours")
    export.add_argument("--format", default="onnx", choices=("onnx",))
    export.add_argument("--out", metavar="FILE", help="default: beside the checkpoint")
    export.add_argument("--imgsz", type=int, help="pixels of the size it is checked at (default: what it was trained at)")
    benchmark = commands.add_parser("benchmark", help="images per second of training and of prediction, on random pixels")
    benchmark.add_argument("--model", default="yolov5n", choices=MODELS)
    benchmark.add_argument("--imgsz", type=int, default=320)
    benchmark.add_argument("--batch", type=int, default=16)
    benchmark.add_argument("--classes", type=int, default=80)
    benchmark.add_argument("--precision", default="auto", help="of the network in training: fp32, bf16, fp16 or auto")
    benchmark.add_argument("--seconds", type=float, default=5, help="of each measurement")
    benchmark.add_argument("--json", action="store_true")
    _add_machine(benchmark)
    models = commands.add_parser("models", help="list the models with their size at 80 classes and 640 pixels")
    models.add_argument("--json", action="store_true")
    digits = commands.add_parser("digits", help="write the built-in data set")
    digits.add_argument("folder")
    digits.add_argument("--seed", type=int, default=0)
    return parser


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: one for each training on a machine)")


if __name__ == "__main__":
    sys.exit(main())
