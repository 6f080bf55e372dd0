"""What happens to one training sample, as numbers: which pictures lie where, how they are warped, coloured and mirrored.

Drawn once, in one order, from the sample's own generator; OpenCV renders it on the host (``detector.augment``), tensors render
it on a device (``detector.resident``): the same numbers, so the same picture. A gene at zero draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from detector.cache import Picture
from detector.objects import Objects
from evolution.hyperparameters import Hyperparameters


class Layer(NamedTuple):
    """Pictures on a grey canvas, warped onto the sample by ``matrix``, which contains the factor ``zoom`` on lengths.

    ``members``: one picture, or the four of a mosaic: upper left, upper right, lower left, lower right of the point ``split``
    (x, y). ``corners`` (x, y): where the upper left pixel of each lies, which may be beside the canvas (height, width).
    ``pasted``: objects, counted through the members, that are mirrored into the canvas (copy-paste).
    """

    members: tuple[int, ...]
    corners: tuple[tuple[int, int], ...]
    split: tuple[int, int]
    canvas: tuple[int, int]
    matrix: np.ndarray
    zoom: float
    pasted: tuple[int, ...] = ()


class Sample(NamedTuple):
    """One layer, or two blended at ``ratio`` of the first (mixup), of ``shape`` (height, width).

    Then ``gains`` of hue, saturation and value (None leaves colours alone), then mirrored up-down, then left-right.
    """

    shape: tuple[int, int]
    layers: tuple[Layer, ...]
    ratio: float
    gains: np.ndarray | None
    flipud: bool
    fliplr: bool


def draw(
    index: int,
    pictures: Sequence[Picture],
    hyp: Hyperparameters,
    shape: tuple[int, int],
    rng: np.random.Generator,
    mosaics: bool = True,
) -> Sample:
    """Sample ``index`` of ``shape`` (height, width), at least the picture's own.

    ``mosaics`` False (rectangular training) leaves mosaic and mixup out.
    """
    layers, ratio = [], 1.0
    if mosaics and hyp.mosaic > 0 and rng.random() < hyp.mosaic:
        layers.append(_mosaic(index, pictures, hyp, shape[1], rng))
        if hyp.mixup > 0 and rng.random() < hyp.mixup:
            layers.append(_mosaic(int(rng.integers(len(pictures))), pictures, hyp, shape[1], rng))
            ratio = float(rng.beta(32.0, 32.0))
    else:
        h, w = pictures[index].pixels.shape[:2]
        corner = (shape[1] - w) // 2, (shape[0] - h) // 2
        layers.append(Layer((index,), (corner,), (0, 0), shape, *random_matrix(shape, hyp, shape, rng)))
    gains = None
    if hyp.hsv_h > 0 or hyp.hsv_s > 0 or hyp.hsv_v > 0:
        gains = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    flipud = hyp.flipud > 0 and rng.random() < hyp.flipud
    fliplr = hyp.fliplr > 0 and rng.random() < hyp.fliplr
    return Sample(shape, tuple(layers), ratio, gains, flipud, fliplr)


def _mosaic(index: int, pictures: Sequence[Picture], hyp: Hyperparameters, size: int, rng: np.random.Generator) -> Layer:
    """Picture ``index`` and three random ones around a random centre on a canvas of twice the size, warped back to ``size``."""
    members = tuple(rng.permutation([index, *rng.integers(len(pictures), size=3)]).tolist())
    cx, cy = (int(v) for v in rng.uniform(size / 2, 3 * size / 2, 2))
    corners = []
    for place, member in enumerate(members):
        # Each picture touches the centre with one corner.
        h, w = pictures[member].pixels.shape[:2]
        corners.append((cx if place % 2 else cx - w, cy if place >= 2 else cy - h))
    canvas = (2 * size, 2 * size)
    layer = Layer(members, tuple(corners), (cx, cy), canvas, np.eye(3), 1.0)
    pasted = _pasted(layer, pictures, hyp.copy_paste, rng) if hyp.copy_paste > 0 else ()
    matrix, zoom = random_matrix(canvas, hyp, (size, size), rng)
    return layer._replace(matrix=matrix, zoom=zoom, pasted=pasted)


def _pasted(layer: Layer, pictures: Sequence[Picture], fraction: float, rng: np.random.Generator) -> tuple[int, ...]:
    """A fraction of the outlined objects, those that mirrored hide less than 30 % of any other (arXiv:2012.07177)."""
    height, width = layer.canvas
    every = objects_on(layer, pictures)
    if not len(every.outlines):
        return ()
    numbers, objects = np.flatnonzero(every.inside(width, height)), every.clipped(width, height)
    outlined = np.flatnonzero(~np.isnan(objects.outlines[:, 0, 0]))
    mirrored, boxes = objects.flipped(width=width).boxes, objects.boxes
    chosen: list[int] = []
    for i in rng.permutation(outlined)[: round(fraction * len(outlined))]:
        box = mirrored[i]
        common = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if np.all(common < 0.30 * area):
            boxes = np.concatenate((boxes, box[None]))
            chosen.append(int(numbers[i]))
    return tuple(chosen)


def objects_on(layer: Layer, pictures: Sequence[Picture]) -> Objects:
    """All objects of a layer's members in pixels of its canvas, also those that lie beside it."""
    parts = []
    for member, (x, y) in zip(layer.members, layer.corners, strict=True):
        picture = pictures[member]
        h, w = picture.pixels.shape[:2]
        parts.append(Objects.of(picture.labels, picture.outlines, w, h, x, y))
    return Objects.joined(parts)


def pasted_mask(layer: Layer, pictures: Sequence[Picture]) -> np.ndarray:
    """1 where the canvas shows its own mirror image, (height, width) uint8."""
    height, width = layer.canvas
    mask = np.zeros((height, width), np.uint8)
    mirrored = objects_on(layer, pictures).take(np.array(layer.pasted, int)).flipped(width=width)
    for outline in mirrored.outlines:
        cv2.drawContours(mask, [outline.round().astype(np.int32)], -1, 1, cv2.FILLED)
    return mask


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
