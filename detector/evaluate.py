"""Evaluation of a model on the validation pictures: losses, detections, metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detector import metrics
from detector.batches import ValBatch, validation_batches
from detector.boxes import decode
from detector.cache import Picture
from detector.lineages import OPERATING_POINT, Loss
from detector.metrics import Found, Truth
from detector.models import Detector
from detector.nms import nms

LEAST_CONFIDENCE = 0.001
NMS_IOU = 0.6
MOST_CANDIDATES = 30_000
MOST_DETECTIONS = 300


def evaluate(model: Detector, loss: Loss, pictures: Sequence[Picture], batch: int, device: str) -> dict[str, float]:
    """The metrics of ``detector.metrics.evaluate`` and val_box, val_obj, val_cls, each the mean over batches with its gain."""
    found, losses = detect(model, loss, pictures, batch, device)
    result = metrics.evaluate(found, [truth(p) for p in pictures], model.classes, OPERATING_POINT[model.lineage])
    return result | dict(zip(("val_box", "val_obj", "val_cls"), losses.tolist(), strict=True))


@torch.inference_mode()
def detect(model: Detector, loss: Loss, pictures: Sequence[Picture], batch: int, device: str) -> tuple[list[Found], Tensor]:
    """Detections in each picture, in pixels of its file, and the mean parts (3,) of the loss.

    The model is copied, its batch norms folded.
    """
    model = model.folded().to(memory_format=torch.channels_last)
    found: dict[int, Found] = {}
    losses, weight = torch.zeros(3), 0
    for item in validation_batches(pictures, batch):
        images = item.batch.images.to(device, non_blocking=True).float() / 255
        maps = model(images)
        losses += loss(maps, item.batch.targets.to(device))[1].cpu() * len(images)
        weight += len(images)
        rows = decode(maps, model.anchors, model.strides, model.lineage).cpu()
        found |= {
            index: _detections(row, item, k, pictures[index])
            for k, (index, row) in enumerate(zip(item.indices, rows, strict=True))
        }
    return [found[i] for i in range(len(pictures))], losses / max(weight, 1)


def truth(picture: Picture) -> Truth:
    """A picture's labels as corner boxes in pixels of its file."""
    height, width = picture.native
    centre, half = picture.labels[:, 1:3].astype(np.float64), picture.labels[:, 3:5].astype(np.float64) / 2
    boxes = np.concatenate((centre - half, centre + half), 1) * (width, height, width, height)
    return Truth(boxes, picture.labels[:, 0].astype(int))


def detections(rows: Tensor) -> Found:
    """Final detections of one image from its decoded rows (n, 5 + nc), in the network's pixels.

    Score = objectness x class score; a row may yield several classes. Above confidence 0.001 the best 30,000 enter suppression
    at IoU 0.6, and at most 300 stay.
    """
    values = rows.numpy()
    values = values[values[:, 4] > LEAST_CONFIDENCE]
    scores = values[:, 4:5] * values[:, 5:] if values.shape[1] > 6 else values[:, 4:5]
    row, classes = np.nonzero(scores > LEAST_CONFIDENCE)
    score = scores[row, classes]
    if len(score) > MOST_CANDIDATES:
        best = np.argsort(-score, kind="stable")[:MOST_CANDIDATES]
        row, classes, score = row[best], classes[best], score[best]
    centre, half = values[row, :2], values[row, 2:4] / 2
    boxes = np.concatenate((centre - half, centre + half), 1)
    keep = nms(boxes, score, classes, NMS_IOU, MOST_DETECTIONS)
    return Found(boxes[keep], score[keep], classes[keep])


def _detections(rows: Tensor, item: ValBatch, position: int, picture: Picture) -> Found:
    found = detections(rows)
    x, y, w, h = item.places[position]
    height, width = picture.native
    boxes = (found.boxes - (x, y, x, y)) * (width / w, height / h, width / w, height / h)
    return found._replace(boxes=np.clip(boxes, 0, (width, height, width, height)))
