"""Batches for training and validation: which samples, in which order, of which shape, as tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detector.augment import letterbox, render
from detector.cache import Picture
from detector.objects import Objects
from detector.samples import Sample, draw
from evolution.hyperparameters import Hyperparameters


class Batch(NamedTuple):
    """``images`` (B, 3, H, W) uint8 RGB, channels last; ``targets`` (n, 6) float32: image, class, xc, yc, w, h (fractions)."""

    images: Tensor
    targets: Tensor


Show = Callable[[Sequence[Sample]], Batch]


class ValBatch(NamedTuple):
    """A batch with, for each of its images, the picture's index and the corner (x, y) and size (w, h) where it lies on grey."""

    batch: Batch
    indices: tuple[int, ...]
    places: tuple[tuple[int, int, int, int], ...]


def batches_per_epoch(images: int, batch: int) -> int:
    """The last batch is filled up with images from the epoch's beginning, so that every step sees ``batch`` images."""
    return math.ceil(images / batch)


def training_batches(
    pictures: Sequence[Picture],
    hyp: Hyperparameters,
    imgsz: int,
    batch: int,
    rect: bool,
    seed: int,
    epoch: int,
    start: int = 0,
    show: Show | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """The augmented batches of one epoch, without the first ``start``; of each the part that ``share`` = (k, parts) names.

    Counter-based chance: the order depends on (seed, epoch), a sample's augmentation on (seed, epoch, place in the epoch) and
    nothing else, so any batch can be repeated without those before it. ``show`` renders samples; None means OpenCV.
    """
    plan = _plan(pictures, imgsz, batch, rect, seed, epoch)
    for number, (members, shape) in enumerate(plan[start:], start):
        samples = []
        part = batch // share[1]
        first = share[0] * part
        for place, index in enumerate(members[first : first + part], number * batch + first):
            rng = np.random.default_rng((seed, epoch, 1, place))
            samples.append(draw(index, pictures, hyp, shape, rng, mosaics=not rect))
        yield show(samples) if show else _collate(*zip(*(render(sample, pictures) for sample in samples), strict=True))


def _plan(
    pictures: Sequence[Picture], imgsz: int, batch: int, rect: bool, seed: int, epoch: int
) -> list[tuple[list[int], tuple[int, int]]]:
    """Members and shape of each batch. Rectangular: neighbours in aspect ratio share a batch, in random order."""
    rng = np.random.default_rng((seed, epoch, 0))
    count = batches_per_epoch(len(pictures), batch)
    order = rng.permutation(len(pictures))
    if rect:
        order = order[np.argsort([_aspect(pictures[i]) for i in order], kind="stable")]
    rows = np.resize(order, count * batch).reshape(count, batch).tolist()
    if not rect:
        return [(row, (imgsz, imgsz)) for row in rows]
    return [(rows[i], _shape([pictures[j] for j in rows[i]])) for i in rng.permutation(count)]


def scaled(images: Tensor, seed: int, epoch: int, number: int) -> Tensor:
    """Images (B, 3, H, W) of batch ``number`` enlarged or reduced by one factor, uniform in 0.5 to 1.5, to multiples of 32.

    Targets are fractions and stay. Counter-based chance, as that of samples.
    """
    factor = np.random.default_rng((seed, epoch, 2, number)).uniform(0.5, 1.5)
    height, width = (max(round(side * factor / 32), 1) * 32 for side in images.shape[2:])
    return torch.nn.functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def validation_batches(pictures: Sequence[Picture], batch: int) -> Iterator[ValBatch]:
    """All pictures, sorted by aspect ratio; each batch has the smallest shape in multiples of 32 that holds its pictures."""
    order = sorted(range(len(pictures)), key=lambda i: (_aspect(pictures[i]), i))
    for start in range(0, len(order), batch):
        indices = tuple(order[start : start + batch])
        shape = _shape([pictures[i] for i in indices])
        images, objects, places = [], [], []
        for i in indices:
            image, found, (x, y) = letterbox(pictures[i], shape)
            images.append(image)
            objects.append(found)
            h, w = pictures[i].pixels.shape[:2]
            places.append((x, y, w, h))
        yield ValBatch(_collate(images, objects), indices, tuple(places))


def _aspect(picture: Picture) -> float:
    return picture.pixels.shape[0] / picture.pixels.shape[1]


def _shape(pictures: Sequence[Picture], multiple: int = 32) -> tuple[int, int]:
    height, width = (max(p.pixels.shape[axis] for p in pictures) for axis in (0, 1))
    return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple


def _collate(images: Sequence[np.ndarray], objects: Sequence[Objects]) -> Batch:
    height, width = images[0].shape[:2]
    # Stacking as (B, H, W, RGB) and permuting is the channels-last layout that the convolutions want: no second copy.
    pixels = torch.from_numpy(np.stack([image[..., ::-1] for image in images])).permute(0, 3, 1, 2)
    rows = []
    for i, found in enumerate(objects):
        x1, y1, x2, y2 = found.boxes.T / np.array([[width], [height], [width], [height]], np.float32)
        rows.append(np.stack((np.full_like(x1, i), found.classes, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1))
    return Batch(pixels, torch.from_numpy(np.concatenate(rows).astype(np.float32)))
