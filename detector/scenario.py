"""The base scenario: everything about a training that is not a gene, checked before any work starts. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evolution.hyperparameters import LINEAGES

OPTIMIZERS = ("auto", "SGD", "Adam", "AdamW")
ANCHORS = ("auto", "stock", "fitted")
MODELS = ("yolov3", "yolov3-spp", "yolov3-tiny", "yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
WEIGHTS = (".safetensors", ".pt", ".weights")
LARGEST_STRIDE = 32
# A progressive training: this share of the epochs at this share of the size.
EARLY_EPOCHS = 2 / 3
EARLY_SIZE = 0.6


@dataclass(frozen=True)
class Scenario:
    """What one would type after ``train.py``.

    ``data`` is a path (YOLO YAML, Darknet ``.data``, VOC folder, COCO JSON or folder). ``weights`` is '' or a file that the
    training starts from (``detector.checkpoint``). ``imgsz`` is the long side in pixels, a
    multiple of 32. ``nominal_batch`` is the number of images per optimizer step; None means ``batch``, that is, no
    accumulation. ``optimizer`` "auto" is AdamW at 0.4 x the learning-rate genes (docs/DETECTOR.md). ``anchors`` "stock" keeps
    the model's own, "fitted" fits them to the data, "auto" chooses. ``rect`` trains on batches of one aspect ratio, without
    mosaic. ``progressive`` trains the first two thirds of the epochs at 0.6 x ``imgsz``. ``multi_scale`` enlarges or reduces
    each batch by a factor between 0.5 and 1.5. ``val_every`` is the number of epochs between evaluations; 0 evaluates after the
    last epoch alone.
    """

    data: str
    model: str = "yolov5n"
    weights: str = ""
    epochs: int = 10
    imgsz: int = 640
    batch: int = 16
    nominal_batch: int | None = None
    optimizer: str = "auto"
    anchors: str = "auto"
    rect: bool = False
    progressive: bool = False
    multi_scale: bool = False
    val_every: int = 0
    lineage: str = "yolov5"

    def __post_init__(self) -> None:
        """Raises ValueError, one line, naming the key and the remedy."""
        _text(self.data, "data", "give the path of a YOLO YAML, a Darknet .data, a VOC folder or a COCO JSON")
        _one_of(self.model, "model", MODELS)
        _one_of(self.optimizer, "optimizer", OPTIMIZERS)
        _one_of(self.anchors, "anchors", ANCHORS)
        _one_of(self.lineage, "lineage", LINEAGES)
        for key, least in (("epochs", 1), ("imgsz", LARGEST_STRIDE), ("batch", 1), ("val_every", 0)):
            _whole(getattr(self, key), key, least)
        if self.nominal_batch is not None:
            _whole(self.nominal_batch, "nominal_batch", 1)
        if self.imgsz % LARGEST_STRIDE:
            near = max(round(self.imgsz / LARGEST_STRIDE), 1) * LARGEST_STRIDE
            raise ValueError(f"base.imgsz is {self.imgsz}, but must be a multiple of {LARGEST_STRIDE}; write imgsz: {near}")
        for key in ("rect", "progressive", "multi_scale"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"base.{key} is {getattr(self, key)!r}; write {key}: true or {key}: false")
        if not isinstance(self.weights, str) or (self.weights and not self.weights.endswith(WEIGHTS)):
            raise ValueError(
                f"base.weights is {self.weights!r}; write weights: '' to train from scratch, or name a .safetensors checkpoint "
                "written by this detector, a released .pt, or Darknet .weights"
            )

    def size_at(self, epoch: int) -> int:
        """Size in pixels at which epoch 0, 1, ... is trained; the last one always at ``imgsz``.

        Early steps learn what a smaller image shows as well, at a third of the cost (progressive resizing; arXiv:2104.00298).
        """
        if self.progressive and epoch < int(self.epochs * EARLY_EPOCHS):
            return max(round(self.imgsz * EARLY_SIZE / LARGEST_STRIDE), 1) * LARGEST_STRIDE
        return self.imgsz

    @classmethod
    def from_mapping(cls, base: Mapping[str, Any], *, data_root: Path) -> Scenario:
        """A scenario from the ``base`` mapping of a campaign file; relative paths start at ``data_root``.

        Raises:
            ValueError: one line that names the key, such as ``base.optimzer``, and the remedy.
        """
        known = [f.name for f in fields(cls)]
        for key in base:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                remedy = f"did you mean '{near[0]}'?" if near else f"keys are {', '.join(known)}"
                raise ValueError(f"base.{key} is no key of a base scenario; {remedy}")
        if "data" not in base:
            raise ValueError("base.data is missing; give the path of the data set")
        values = dict(base)
        for key in ("data", "weights"):
            if isinstance(values.get(key), str) and values[key]:
                values[key] = str((data_root / values[key]).resolve())
        return cls(**values)


def _text(value: object, key: str, remedy: str) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"base.{key} is {value!r}; {remedy}")


def _one_of(value: object, key: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"base.{key} is {value!r}, which is unknown; known: {', '.join(known)}")


def _whole(value: object, key: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"base.{key} is {value!r}; write a whole number, at least {least}")
