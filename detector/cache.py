"""Decoded images and labels, kept warm in this process: a worker trains hundreds of candidates on the same data.

The cache is the one piece of state in this package: a dictionary from (data path, imgsz) to pixels, with room for two data
sets at two sizes. An entry is used only while the files it came from keep their sizes and times. The pixels, about
imgsz^2 x 2.3 bytes an image (4:3 images; 205 images at 320 pixels are 47 MB), are shared with the node's other processes
(``detector.decoded``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detector import decoded, image_files
from detector.data import load
from detector.dataset import Dataset, Sample
from detector.decoded import Decoded, Wanted

CAPACITY = 4
OUTLINE_POINTS = 200


@dataclass(frozen=True)
class Picture:
    """One decoded image, resized so that its long side is the training size.

    ``pixels`` (h, w, 3) uint8, BGR, read-only. ``native`` is (height, width) of the file. ``labels`` (n, 5) as in ``Sample``.
    ``outlines`` is empty or (n, OUTLINE_POINTS, 2) fractions of the image, NaN for objects without an outline.
    """

    pixels: np.ndarray
    native: tuple[int, int]
    labels: np.ndarray
    outlines: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """A data set with its pixels in memory."""

    dataset: Dataset
    train: tuple[Picture, ...]
    val: tuple[Picture, ...]


_CACHE: dict[tuple[str, int], tuple[object, Pictures]] = {}


def load_cached(data: str, imgsz: int) -> Pictures:
    """The data set at ``data`` with images decoded at ``imgsz``, from the cache where its files are unchanged.

    Training images are enlarged or reduced so that the long side is ``imgsz``; validation images are only reduced.

    Raises:
        DataError: as ``detector.data.load``, and for an image that cannot be decoded.
    """
    key = (os.path.abspath(data), imgsz)
    held = _CACHE.pop(key, None)
    if held is None or held[0] != _stamps(data, held[1].dataset):
        dataset = load(data)
        stamps = _stamps(data, dataset)
        samples = [*dataset.train, *dataset.val]
        wanted = [Wanted(s.image, enlarge=i < len(dataset.train)) for i, s in enumerate(samples)]
        images = decoded.load(wanted, imgsz, _decode, decoded.default_folder())
        pictures = tuple(_picture(s, image) for s, image in zip(samples, images, strict=True))
        held = (stamps, Pictures(dataset, pictures[: len(dataset.train)], pictures[len(dataset.train) :]))
    while len(_CACHE) >= CAPACITY:
        del _CACHE[next(iter(_CACHE))]
    _CACHE[key] = held
    return held[1]


def _stamps(data: str, dataset: Dataset) -> list[tuple[int, int] | None]:
    """Size and modification time of every image, label source and folder: a new file changes its folder's time."""
    files = [Path(data), *dataset.sources, *(s.image for s in (*dataset.train, *dataset.val))]
    folders = dict.fromkeys(p.parent for p in files)
    return [_stamp(p) for p in (*files, *folders)]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _decode(wanted: Wanted, imgsz: int) -> Decoded:
    pixels = image_files.read(wanted.path)
    native = pixels.shape[:2]
    ratio = imgsz / max(native)
    if ratio < 1 or (wanted.enlarge and ratio > 1):
        size = (max(round(native[1] * ratio), 1), max(round(native[0] * ratio), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR if ratio > 1 else cv2.INTER_AREA)
    pixels.flags.writeable = False  # as where it is mapped
    return Decoded(pixels, (native[0], native[1]))


def _picture(sample: Sample, image: Decoded) -> Picture:
    outlines = np.empty((0, OUTLINE_POINTS, 2), np.float32)
    if sample.polygons:
        outlines = np.stack([_resampled(p) for p in sample.polygons])
    return Picture(image.pixels, image.native, sample.labels, outlines)


def _resampled(polygon: np.ndarray | None) -> np.ndarray:
    """An outline as OUTLINE_POINTS points at equal steps: when it is warped and cut, the points left still bound it."""
    if polygon is None:
        return np.full((OUTLINE_POINTS, 2), np.nan, np.float32)
    closed = np.concatenate((polygon, polygon[:1]))
    along = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))))
    at = np.linspace(0, along[-1], OUTLINE_POINTS)
    return np.stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)], 1).astype(np.float32)
