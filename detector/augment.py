"""Training samples rendered by OpenCV: pictures on grey, copy-paste, warp, mixup, colours, mirrors (``detector.samples``)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.cache import Picture
from detector.objects import Objects
from detector.samples import Layer, Sample, objects_on, pasted_mask

FILL = 114
_FILL = (FILL, FILL, FILL)


def render(sample: Sample, pictures: Sequence[Picture]) -> tuple[np.ndarray, Objects]:
    """Pixels (height, width, 3) uint8 BGR of a sample, and its objects."""
    height, width = sample.shape
    image, objects = _warped(sample.layers[0], pictures, sample.shape)
    if len(sample.layers) == 2:
        # Blended with the labels of both (arXiv:1710.09412).
        other, more = _warped(sample.layers[1], pictures, sample.shape)
        image, objects = cv2.addWeighted(image, sample.ratio, other, 1 - sample.ratio, 0), Objects.joined([objects, more])
    if sample.gains is not None:
        image = coloured(image, sample.gains)
    if sample.flipud:
        image, objects = np.flipud(image), objects.flipped(height=height)
    if sample.fliplr:
        image, objects = np.fliplr(image), objects.flipped(width=width)
    return image, objects


def _warped(layer: Layer, pictures: Sequence[Picture], shape: tuple[int, int]) -> tuple[np.ndarray, Objects]:
    """The canvas of a layer, warped onto an image of ``shape`` (height, width)."""
    image, objects = canvas(layer, pictures)
    height, width = shape
    if layer.canvas == shape and np.allclose(layer.matrix, np.eye(3)):
        return image, objects
    if layer.matrix[2, 0] or layer.matrix[2, 1]:
        image = cv2.warpPerspective(image, layer.matrix, (width, height), borderValue=_FILL)
    else:
        image = cv2.warpAffine(image, layer.matrix[:2], (width, height), borderValue=_FILL)
    return image, objects.warped(layer.matrix, width, height, layer.zoom)


def canvas(layer: Layer, pictures: Sequence[Picture]) -> tuple[np.ndarray, Objects]:
    """A layer before its warp: its pictures where they lie on grey, with the pasted objects."""
    height, width = layer.canvas
    first = pictures[layer.members[0]].pixels
    every = objects_on(layer, pictures)
    if len(layer.members) == 1 and first.shape[:2] == layer.canvas:
        return first, every
    image = np.full((height, width, 3), FILL, np.uint8)
    for member, (x, y) in zip(layer.members, layer.corners, strict=True):
        pixels = pictures[member].pixels
        h, w = pixels.shape[:2]
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        image[y1:y2, x1:x2] = pixels[y1 - y : y2 - y, x1 - x : x2 - x]
    if len(layer.members) == 1:
        return image, every
    objects = every.clipped(width, height)
    if layer.pasted:
        image = np.where(pasted_mask(layer, pictures)[..., None] > 0, np.fliplr(image), image)
        pasted = every.take(np.array(layer.pasted)).clipped(width, height).flipped(width=width)
        objects = Objects.joined([objects, pasted])
    return image, objects


def letterbox(picture: Picture, shape: tuple[int, int]) -> tuple[np.ndarray, Objects, tuple[int, int]]:
    """The picture, reduced only if it does not fit, centred on grey: pixels, objects, and the corner (x, y) where it lies."""
    height, width = shape
    pixels = picture.pixels
    h, w = pixels.shape[:2]
    ratio = min(height / h, width / w)
    if ratio < 1:
        w, h = min(max(round(w * ratio), 1), width), min(max(round(h * ratio), 1), height)
        pixels = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
    x, y = (width - w) // 2, (height - h) // 2
    if (h, w) != shape:
        grey = np.full((height, width, 3), FILL, np.uint8)
        grey[y : y + h, x : x + w] = pixels
        pixels = grey
    return pixels, Objects.of(picture.labels, picture.outlines, w, h, x, y), (x, y)


def coloured(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Hue, saturation and value multiplied by ``gains`` (3,), by tables of 256 entries; hue turns around at 180."""
    values = np.arange(256)
    tables = np.stack((values * gains[0] % 180, *(np.clip(values * g, 0, 255) for g in gains[1:])), 1).astype(np.uint8)
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables.reshape(256, 1, 3)), cv2.COLOR_HSV2BGR)
