"""Boxes on pixels, and many images as one: what a batch, a prediction or a label looks like."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from detector.batches import Batch
from detector.metrics import Found

MOST_TILES = 16


def colour(label_class: int) -> tuple[int, int, int]:
    """A class's colour (BGR): hues a golden angle apart, so that neighbours differ."""
    hue = round(label_class * 137.508 / 2) % 180
    b, g, r = cv2.cvtColor(np.array([[[hue, 200, 230]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return b, g, r


def draw_boxes(pixels: np.ndarray, found: Found, names: Sequence[str]) -> np.ndarray:
    """A copy of ``pixels`` (h, w, 3) BGR with boxes (corners in pixels), names and scores; labels have scores of NaN."""
    image = np.ascontiguousarray(pixels).copy()
    line = max(round(max(image.shape[:2]) / 400), 1)
    size = max(max(image.shape[:2]) / 1500, 0.33)
    # Worst first, so that the best ones lie on top.
    for i in np.argsort(np.nan_to_num(found.scores), kind="stable"):
        c, tint = int(found.classes[i]), colour(int(found.classes[i]))
        x1, y1, x2, y2 = (round(float(v)) for v in found.boxes[i])
        cv2.rectangle(image, (x1, y1), (x2, y2), tint, line, cv2.LINE_AA)
        text = names[c] if np.isnan(found.scores[i]) else f"{names[c]} {found.scores[i]:.2f}"
        (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        top = max(y1 - h - below, 0)
        cv2.rectangle(image, (x1, top), (x1 + w, top + h + below), tint, -1)
        cv2.putText(image, text, (x1, top + h), cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), line, cv2.LINE_AA)
    return image


def tiles(images: Sequence[np.ndarray], most: int = MOST_TILES) -> np.ndarray:
    """Up to ``most`` images (h, w, 3) as a square of tiles on grey."""
    images = images[:most]
    columns = math.ceil(math.sqrt(len(images)))
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = math.ceil(len(images) / columns)
    canvas = np.full((rows * height, columns * width, 3), 114, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height, i % columns * width
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def draw_batch(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """The images of a batch, as the network sees them, with their labels."""
    drawn = []
    for i, image in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
        rows = batch.targets[batch.targets[:, 0] == i].numpy()
        centre, half = rows[:, 2:4], rows[:, 4:6] / 2
        boxes = np.concatenate((centre - half, centre + half), 1) * np.array((image.shape[1], image.shape[0]) * 2)
        found = Found(boxes, np.full(len(rows), np.nan), rows[:, 1].astype(int))
        drawn.append(draw_boxes(image[..., ::-1], found, names))
    return tiles(drawn)
