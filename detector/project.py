"""The folder of one training: results.csv in the columns that yolov5's readers know, the hyp set, weights, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from detector import charts
from detector.batches import training_batches
from detector.cache import Picture, Pictures
from detector.draw import MOST_TILES, draw_batch, draw_boxes, tiles
from detector.evaluate import detect, truth
from detector.lineages import loss_of
from detector.metrics import Found, confusion, precision_curves
from detector.models import Detector
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

# Column -> metric of ours. The last three are the rates of biases, norms and convolutions, one number here after warm-up.
COLUMNS = {
    "epoch": "epoch",
    "train/box_loss": "train_box",
    "train/obj_loss": "train_obj",
    "train/cls_loss": "train_cls",
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP_0.5": "map50",
    "metrics/mAP_0.5:0.95": "map50_95",
    "val/box_loss": "val_box",
    "val/obj_loss": "val_obj",
    "val/cls_loss": "val_cls",
    "x/lr0": "lr",
    "x/lr1": "lr",
    "x/lr2": "lr",
}
WIDTH = 20
SHOWN_CONFIDENCE = 0.25


class Project:
    """A folder, created, with ``results.csv`` (one row an epoch; cells stay empty where an epoch was not evaluated)."""

    def __init__(self, folder: str | Path, resumed: bool = False) -> None:
        """``resumed`` keeps the rows of an earlier part of the same training.

        Raises:
            ValueError: the folder holds a training already.
        """
        self.folder = Path(folder)
        self.results = self.folder / "results.csv"
        self._rows: dict[int, str] = {}
        if self.results.exists():
            if not resumed:
                raise ValueError(f"{self.results} exists; name another --project, or remove it")
            lines = self.results.read_text(encoding="utf-8").splitlines()[1:]
            self._rows = {int(line.partition(",")[0]): line for line in lines}
        self.folder.mkdir(parents=True, exist_ok=True)

    def describe(self, hyp: Hyperparameters, scenario: Scenario, seed: int) -> None:
        """Writes hyp.yaml and opt.json: with them the training can be repeated."""
        text = "".join(f"{name}: {value!r}\n" for name, value in hyp.to_dict().items())
        (self.folder / "hyp.yaml").write_text(text, encoding="utf-8")
        options = {**asdict(scenario), "seed": seed}
        (self.folder / "opt.json").write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")

    def row(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Adds one epoch to results.csv; an epoch that comes again replaces itself and what followed."""
        values = {"epoch": epoch, **metrics}
        cells = [f"{values[key]:.5g}" if key in values else "" for key in COLUMNS.values()]
        self._rows = {e: line for e, line in self._rows.items() if e < epoch}
        self._rows[epoch] = ",".join(f"{cell:>{WIDTH}}" for cell in cells)
        head = ",".join(f"{name:>{WIDTH}}" for name in COLUMNS)
        self.results.write_text("\n".join((head, *self._rows.values())) + "\n", encoding="utf-8")

    def draw_data(self, pictures: Pictures, hyp: Hyperparameters, scenario: Scenario, seed: int) -> None:
        """The first augmented batch as train_batch0.png and, with matplotlib, labels.png."""
        names = pictures.dataset.names
        batch = next(training_batches(pictures.train, hyp, scenario.imgsz, scenario.batch, scenario.rect, seed, 0))
        cv2.imwrite(str(self.folder / "train_batch0.png"), draw_batch(batch, names))
        if charts.available():
            charts.label_distribution(pictures.train, names, self.folder / "labels.png")

    def draw_evaluation(
        self, model: Detector, hyp: Hyperparameters, pictures: Pictures, imgsz: int, batch: int, device: str
    ) -> None:
        """Detections on validation images beside their labels and, with matplotlib, PR_curve.png and confusion_matrix.png."""
        found, _ = detect(model, loss_of(model, hyp, imgsz), pictures.val, batch, device)
        draw_found(found, pictures.val, pictures.dataset.names, self.folder)


def draw_found(found: Sequence[Found], pictures: Sequence[Picture], names: Sequence[str], folder: Path) -> None:
    """val_labels.png and val_predictions.png of the first pictures; PR_curve.png and confusion_matrix.png of all of them."""
    labels, predictions = [], []
    for picture, item in zip(pictures[:MOST_TILES], found, strict=False):
        scale = np.array((picture.pixels.shape[1] / picture.native[1], picture.pixels.shape[0] / picture.native[0]) * 2)
        real = truth(picture)
        shown = item.scores > SHOWN_CONFIDENCE
        predicted = Found(item.boxes[shown] * scale, item.scores[shown], item.classes[shown])
        labelled = Found(real.boxes * scale, np.full(len(real.classes), np.nan), real.classes)
        labels.append(draw_boxes(picture.pixels, labelled, names))
        predictions.append(draw_boxes(picture.pixels, predicted, names))
    cv2.imwrite(str(folder / "val_labels.png"), tiles(labels))
    cv2.imwrite(str(folder / "val_predictions.png"), tiles(predictions))
    if charts.available():
        truths = [truth(picture) for picture in pictures]
        charts.precision_recall(precision_curves(found, truths, len(names)), names, folder / "PR_curve.png")
        charts.confusion_matrix(confusion(found, truths, len(names)), names, folder / "confusion_matrix.png")
