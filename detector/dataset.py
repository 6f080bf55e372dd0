"""A data set as a value: which images, which labels, which classes, and a hash that is the same on every node."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector import image_files
from detector.errors import DataError

LARGEST_LABELS = 4_000_000  # bytes of one image's labels
LARGEST_SOURCE = 2_000_000_000  # bytes of a list of images, or of a COCO document
MOST_LABELS = 10_000  # of one image
FAR = 0.1  # of the image's side: beyond rounding, and beyond what an annotator's hand does at the edge


@dataclass(frozen=True)
class Sample:
    """One image and its labels.

    ``labels`` (n, 5) float32: class, centre x, centre y, width, height as fractions of the image. ``polygons`` is empty or
    has n entries: an outline (k, 2) as fractions of the image, or None where only a box is known.
    """

    image: Path
    labels: np.ndarray
    polygons: tuple[np.ndarray | None, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Training and validation samples, class names, and the content hash (sha256, hexadecimal).

    ``sources`` are all files besides the images that the labels came from, or would have come from; ``remarks`` are for people.
    """

    names: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    sources: tuple[Path, ...]
    remarks: tuple[str, ...]
    data_hash: str

    @property
    def has_polygons(self) -> bool:
        """True where at least one training object has an outline, so that copy_paste can act."""
        return any(p is not None for s in self.train for p in s.polygons)


class Rows:
    """Collects the labels of one image, in whatever format they come, and keeps count of what it leaves out."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._rows: dict[tuple[float, ...], np.ndarray | None] = {}

    def add(
        self, label_class: int, x1: float, y1: float, x2: float, y2: float, where: str, polygon: np.ndarray | None = None
    ) -> None:
        """Corners as fractions of the image; they are clipped to it. A box without area, or a repeated one, is left out.

        ``where`` names the label in a remark.
        """
        reach = max(-x1, -y1, x2 - 1, y2 - 1)
        x1, y1, x2, y2 = (min(max(v, 0.0), 1.0) for v in (x1, y1, x2, y2))
        row = (float(label_class), (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        # Computed in double, compared in single precision: the same box from two formats is the same label.
        row = tuple(float(np.float32(v)) for v in row)
        if row[3] <= 0 or row[4] <= 0:
            self._reading.remark("boxes outside the image left out" if reach > 0 else "boxes without area left out", where)
        elif row in self._rows:
            self._reading.remark("repeated boxes left out", where)
        else:
            if reach > FAR:
                self._reading.remark(f"boxes cut off that reach more than {FAR:.0%} beyond the image", where)
            self._rows[row] = polygon

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, image: Path) -> Sample:
        labels = np.array(list(self._rows), np.float32).reshape(-1, 5)
        polygons = tuple(self._rows.values())
        return Sample(image, labels, polygons if any(p is not None for p in polygons) else ())


@dataclass
class Reading:
    """What one reading of a data set came across: the files that said something, and labels left out or cut off.

    ``faults`` None: the first thing that is wrong ends the reading. A list: it is noted there, its file or row is passed over.
    """

    sources: list[Path] = field(default_factory=list)
    faults: list[str] | None = None
    _remarks: dict[str, tuple[int, str]] = field(default_factory=dict)

    def fault(self, error: DataError) -> None:
        """One file or row cannot be used: raises ``error``, or notes it while faults are collected."""
        if self.faults is None:
            raise error
        self.faults.append(str(error))

    def text(self, path: Path, named_by: Path | None = None, most: int = LARGEST_SOURCE) -> str:
        """A source's content, as ``read_text``."""
        self.sources.append(path)
        return read_text(path, named_by, most)

    def remark(self, what: str, where: str) -> None:
        """Something was done to a label that its author may not expect."""
        count, first = self._remarks.get(what, (0, where))
        self._remarks[what] = (count + 1, first)

    def remarks(self) -> list[str]:
        """One line for each kind of remark: how often, and where it was first."""
        return [f"{what}: {count}, the first: {where}" for what, (count, where) in self._remarks.items()]


def assemble(source: Path, names: Sequence[str], train: list[Sample], val: list[Sample], reading: Reading) -> Dataset:
    """A checked data set out of what a format's reader found.

    Raises:
        DataError: a split is empty, a file is missing or no image, or there are no labels at all.
    """
    for split, samples in (("training", train), ("validation", val)):
        if not samples:
            raise DataError(f"{source}: the {split} list holds no images; name a folder or list with at least one")
        for sample in list(samples):
            try:
                image_files.check(sample.image, source)
            except DataError as error:
                reading.fault(error)
                samples.remove(sample)
        if not any(len(s.labels) for s in samples):
            raise DataError(
                f"{source}: none of the {len(samples)} {split} images has a label; check that each images/ folder has its "
                "labels/ folder beside it, with one .txt for each image"
            )
    digest = _digest(names, train, val)
    return Dataset(tuple(names), tuple(train), tuple(val), tuple(reading.sources), tuple(reading.remarks()), digest)


def check_count(where: str, count: int) -> None:
    """Raises DataError if one image has more than ``MOST_LABELS`` labels."""
    if count > MOST_LABELS:
        raise DataError(
            f"{where}: has {count} labels, and an image may have {MOST_LABELS} at most; cut it into tiles or remove it"
        )


def _digest(names: Sequence[str], train: Sequence[Sample], val: Sequence[Sample]) -> str:
    """sha256 over class names, and for each image its path, file size and labels.

    Paths are relative to the images' common folder: the same data hashes alike wherever it lies.
    """
    root = os.path.commonpath([s.image.parent for s in (*train, *val)])
    sha = hashlib.sha256(json.dumps(list(names)).encode())
    for samples in (train, val):
        sha.update(b"split")
        for sample in samples:
            path = Path(os.path.relpath(sample.image, root)).as_posix()
            sha.update(json.dumps([path, sample.image.stat().st_size]).encode())
            sha.update(np.ascontiguousarray(sample.labels, "<f4").tobytes())
            for polygon in sample.polygons:
                sha.update(b"-" if polygon is None else np.ascontiguousarray(polygon, "<f4").tobytes())
    return sha.hexdigest()


def read_text(path: Path, named_by: Path | None = None, most: int = LARGEST_SOURCE) -> str:
    """A text file's content; ``named_by`` is the file that asked for it.

    Raises:
        DataError: it cannot be read, or is larger than ``most`` bytes, which is seen before it is read.
    """
    where = f"{named_by}: " if named_by else ""
    try:
        status = path.stat()
        if status.st_size > most:
            words = f"{where}{path} is {status.st_size} bytes long, and may be {most} at most; correct it or split it"
            raise DataError(words)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise DataError(f"{where}{path} is no regular file; correct the path or the file")
        return path.read_text(encoding="utf-8")
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where}{path} does not exist; correct the path or create the file") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a name that no file can have
        raise DataError(
            f"{where}{path} cannot be read as text ({type(error).__name__}); correct the path or the file"
        ) from None
