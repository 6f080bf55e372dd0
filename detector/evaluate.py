"""Evaluation of a model on the validation pictures: losses, detections, metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from detector import metrics
from detector.batches import validation_batches
from detector.boxes import decode
from detector.cache import Picture
from detector.lineages import OPERATING_POINT, Loss
from detector.metrics import Found, Truth
from detector.models import Detector
from detector.nms import nms, nms_on_device
from detector.resident import resident_validation

LEAST_CONFIDENCE = 0.001
NMS_IOU = 0.6
MOST_CANDIDATES = 30_000
MOST_DETECTIONS = 300


def evaluate(
    model: Detector, loss: Loss, pictures: Sequence[Picture], batch: int, device: str, on_device: bool = False
) -> dict[str, float]:
    """The metrics of ``detector.metrics.evaluate`` and val_box, val_obj, val_cls, each the mean over batches with its gain."""
    found, losses = detect(model, loss, pictures, batch, device, on_device)
    result = metrics.evaluate(found, [truth(p) for p in pictures], model.classes, OPERATING_POINT[model.lineage])
    return result | dict(zip(("val_box", "val_obj", "val_cls"), losses.tolist(), strict=True))


@torch.inference_mode()
def detect(
    model: Detector,
    loss: Loss,
    pictures: Sequence[Picture],
    batch: int,
    device: str,
    on_device: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[list[Found], Tensor]:
    """Detections in each picture, in pixels of its file, and the mean parts (3,) of the loss.

    The model is copied, its batch norms folded. ``on_device``: the pictures stay on the device for the next evaluation, and
    suppression runs there. ``progress`` is told the share that is done after each batch.
    """
    model = model.folded().to(memory_format=torch.channels_last)
    found: dict[int, Found] = {}
    losses, weight = torch.zeros(3, device=device), 0
    for item in resident_validation(pictures, batch, device) if on_device else validation_batches(pictures, batch):
        images = item.batch.images.to(device, non_blocking=True).float() / 255
        maps = model(images)
        losses += loss(maps, item.batch.targets.to(device))[1] * len(images)
        weight += len(images)
        rows = decode(maps, model.anchors, model.strides, model.lineage)
        best = detections_on_device(rows) if on_device else [detections(row) for row in rows.cpu()]
        found |= {
            index: _in_file(each, item.places[k], pictures[index])
            for k, (index, each) in enumerate(zip(item.indices, best, strict=True))
        }
        progress(len(found) / len(pictures))
    return [found[i] for i in range(len(pictures))], losses.cpu() / max(weight, 1)


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


def detections_on_device(rows: Tensor) -> list[Found]:
    """``detections`` of a batch of decoded rows (B, n, 5 + nc), where they lie; only what is left comes to the host."""
    scores = rows[..., 4:5] * rows[..., 5:] if rows.shape[2] > 6 else rows[..., 4:5]
    likely = (rows[..., 4:5] > LEAST_CONFIDENCE) & (scores > LEAST_CONFIDENCE)
    # Flat, a pair (row, class) comes before another exactly where nonzero() of the host would put it.
    score, pair = torch.where(likely, scores, -1.0).flatten(1).sort(dim=1, descending=True, stable=True)
    score, pair = score[:, :MOST_CANDIDATES], pair[:, :MOST_CANDIDATES]
    row, classes = pair // scores.shape[2], pair % scores.shape[2]
    centre, half = (rows[..., i : i + 2].gather(1, row[..., None].expand(-1, -1, 2)) for i in (0, 2))
    boxes = torch.cat((centre - half / 2, centre + half / 2), 2)
    keep, real = nms_on_device(boxes, score, classes, NMS_IOU, MOST_DETECTIONS)
    boxes = boxes.gather(1, keep[..., None].expand(-1, -1, 4))
    kept = (v.cpu().numpy() for v in (boxes, score.gather(1, keep), classes.gather(1, keep), real))
    return [Found(b[r], s[r], c[r]) for b, s, c, r in zip(*kept, strict=True)]


def _in_file(found: Found, place: tuple[int, int, int, int], picture: Picture) -> Found:
    """Detections in a batch's pixels, in pixels of the picture's file."""
    x, y, w, h = place
    height, width = picture.native
    boxes = (found.boxes - (x, y, x, y)) * (width / w, height / h, width / w, height / h)
    return found._replace(boxes=np.clip(boxes, 0, (width, height, width, height)))
