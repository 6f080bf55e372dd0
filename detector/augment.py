"""One training sample from cached pictures: mosaic, mixup, copy-paste, random perspective, colour jitter, flips.

Everything random comes from the generator that is passed in. A gene at zero costs nothing: its step is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.cache import Picture
from detector.objects import Objects
from evolution.hyperparameters import Hyperparameters

FILL = 114
_FILL = (FILL, FILL, FILL)


def training_sample(
    index: int,
    pictures: Sequence[Picture],
    hyp: Hyperparameters,
    shape: tuple[int, int],
    rng: np.random.Generator,
    mosaics: bool = True,
) -> tuple[np.ndarray, Objects]:
    """Sample ``index``, augmented: pixels (height, width, 3) uint8 BGR and its objects; ``shape`` is (height, width).

    ``mosaics`` False (rectangular training) leaves mosaic and mixup out.
    """
    height, width = shape
    if mosaics and hyp.mosaic > 0 and rng.random() < hyp.mosaic:
        image, objects = mosaic(index, pictures, hyp, width, rng)
        if hyp.mixup > 0 and rng.random() < hyp.mixup:
            other = mosaic(int(rng.integers(len(pictures))), pictures, hyp, width, rng)
            image, objects = mixup((image, objects), other, rng)
    else:
        image, objects, _ = letterbox(pictures[index], shape)
        image, objects = random_perspective(image, objects, hyp, shape, rng)
    if hyp.hsv_h > 0 or hyp.hsv_s > 0 or hyp.hsv_v > 0:
        image = jitter_colour(image, hyp, rng)
    if hyp.flipud > 0 and rng.random() < hyp.flipud:
        image, objects = np.flipud(image), objects.flipped(height=height)
    if hyp.fliplr > 0 and rng.random() < hyp.fliplr:
        image, objects = np.fliplr(image), objects.flipped(width=width)
    return image, objects


def mosaic(
    index: int, pictures: Sequence[Picture], hyp: Hyperparameters, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, Objects]:
    """Picture ``index`` and three random ones around a random centre on a canvas of twice the size, warped back to ``size``."""
    chosen = rng.permutation([index, *rng.integers(len(pictures), size=3)])
    cx, cy = (int(v) for v in rng.uniform(size / 2, 3 * size / 2, 2))
    canvas = np.full((2 * size, 2 * size, 3), FILL, np.uint8)
    parts = []
    for place, choice in enumerate(chosen):
        picture = pictures[choice]
        h, w = picture.pixels.shape[:2]
        # Each picture touches the centre with one corner: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
        x = cx if place % 2 else cx - w
        y = cy if place >= 2 else cy - h
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, 2 * size), min(y + h, 2 * size)
        canvas[y1:y2, x1:x2] = picture.pixels[y1 - y : y2 - y, x1 - x : x2 - x]
        parts.append(Objects.of(picture.labels, picture.outlines, w, h, x, y))
    objects = Objects.joined(parts).clipped(2 * size, 2 * size)
    if hyp.copy_paste > 0 and len(objects.outlines):
        canvas, objects = copy_paste(canvas, objects, hyp.copy_paste, rng)
    return random_perspective(canvas, objects, hyp, (size, size), rng)


def mixup(
    first: tuple[np.ndarray, Objects], second: tuple[np.ndarray, Objects], rng: np.random.Generator
) -> tuple[np.ndarray, Objects]:
    """Two samples blended at a ratio from Beta(32, 32), with the labels of both (arXiv:1710.09412)."""
    ratio = rng.beta(32.0, 32.0)
    return cv2.addWeighted(first[0], ratio, second[0], 1 - ratio, 0), Objects.joined([first[1], second[1]])


def copy_paste(image: np.ndarray, objects: Objects, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, Objects]:
    """Mirrors a fraction of the outlined objects to where they hide less than 30 % of any other (arXiv:2012.07177)."""
    height, width = image.shape[:2]
    outlined = np.flatnonzero(~np.isnan(objects.outlines[:, 0, 0]))
    mask = np.zeros((height, width), np.uint8)
    mirrored = objects.flipped(width=width)
    added: list[int] = []
    boxes = objects.boxes
    for i in rng.permutation(outlined)[: round(fraction * len(outlined))]:
        box = mirrored.boxes[i]
        common = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if np.all(common < 0.30 * area):
            boxes = np.concatenate((boxes, box[None]))
            added.append(int(i))
            cv2.drawContours(mask, [mirrored.outlines[i].round().astype(np.int32)], -1, 1, cv2.FILLED)
    if not added:
        return image, objects
    image = np.where(mask[..., None] > 0, np.fliplr(image), image)
    return image, Objects.joined([objects, mirrored.take(np.array(added))])


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
        canvas = np.full((height, width, 3), FILL, np.uint8)
        canvas[y : y + h, x : x + w] = pixels
        pixels = canvas
    return pixels, Objects.of(picture.labels, picture.outlines, w, h, x, y), (x, y)


def random_perspective(
    image: np.ndarray, objects: Objects, hyp: Hyperparameters, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, Objects]:
    """Zoom, rotation, shear, translation and perspective as one matrix, onto an image of ``shape`` (height, width)."""
    height, width = shape
    matrix, zoom = random_matrix(image.shape[:2], hyp, shape, rng)
    if image.shape[:2] == shape and np.allclose(matrix, np.eye(3)):
        return image, objects
    if hyp.perspective > 0:
        image = cv2.warpPerspective(image, matrix, (width, height), borderValue=_FILL)
    else:
        image = cv2.warpAffine(image, matrix[:2], (width, height), borderValue=_FILL)
    return image, objects.warped(matrix, width, height, zoom)


def random_matrix(
    source: tuple[int, int], hyp: Hyperparameters, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The 3 x 3 matrix from a ``source`` (height, width) image to ``shape``, and the zoom it contains.

    Right to left: centre to the origin; perspective U(-p, p); rotation U(-degrees, degrees) with zoom U(1 - scale, 1 + scale);
    shear U(-shear, shear) degrees in x and y; translation to U(0.5 - translate, 0.5 + translate) of width and height.
    """
    u = rng.uniform(-1, 1, 8)
    centre, perspective, shear, shift = np.eye(3), np.eye(3), np.eye(3), np.eye(3)
    centre[:2, 2] = -source[1] / 2, -source[0] / 2
    perspective[2, :2] = u[:2] * hyp.perspective
    angle, zoom = np.deg2rad(u[2] * hyp.degrees), 1 + u[3] * hyp.scale
    a, b = zoom * np.cos(angle), zoom * np.sin(angle)
    rotation = np.array([[a, b, 0], [-b, a, 0], [0, 0, 1]])
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad(u[4:6] * hyp.shear))
    shift[:2, 2] = (0.5 + u[6:8] * hyp.translate) * (shape[1], shape[0])
    return shift @ shear @ rotation @ perspective @ centre, float(zoom)


def jitter_colour(image: np.ndarray, hyp: Hyperparameters, rng: np.random.Generator) -> np.ndarray:
    """Hue, saturation and value multiplied by 1 + U(-1, 1) x gain, by tables of 256 entries; hue turns around at 180."""
    gains = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    values = np.arange(256)
    tables = np.stack((values * gains[0] % 180, *(np.clip(values * g, 0, 255) for g in gains[1:])), 1).astype(np.uint8)
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables.reshape(256, 1, 3)), cv2.COLOR_HSV2BGR)
