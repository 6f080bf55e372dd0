"""Label files of YOLO and Darknet data sets, and the lists and folders that name their images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from detector.dataset import LARGEST_LABELS, Reading, Rows, Sample, check_count, read_text
from detector.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def label_file(image: Path) -> Path:
    """Where an image's label file lies: the last folder ``images`` (or ``JPEGImages``) becomes ``labels``, else beside it."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] in ("images", "JPEGImages"):
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def images_in(folder: Path, named_by: Path) -> list[Path]:
    """All image files below a folder, sorted. Raises DataError if there are none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{named_by}: folder {folder} holds no images; correct the path or fill the folder")
    return found


def images_listed(listing: Path, root: Path, named_by: Path, reading: Reading) -> list[Path]:
    """The images of a list file, one path a line; relative paths start at the list file's folder, else at ``root``."""
    images = []
    for number, line in enumerate(reading.text(listing, named_by).splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        candidates = [listing.parent / text, root / text]
        image = next((c for c in candidates if os.path.isfile(c)), None)
        if image is not None:
            images.append(image)
            continue
        words = f"{listing} line {number}: image {text} does not exist; correct the path (relative to the list file)"
        reading.fault(DataError(words))
    return images


def read_labels(image: Path, classes: int, reading: Reading) -> Sample:
    """The labels of one image from its label file: ``class xc yc w h`` or ``class x1 y1 x2 y2 x3 y3 ...`` (an outline) a line.

    A missing file means a background image.

    Raises:
        DataError: names file, line and remedy for a file beyond the limits of ``detector.dataset``, a wrong count of numbers, a
        value that is no number or lies outside [0, 1], or a class id outside [0, classes).
    """
    path = label_file(image)
    rows = Rows(reading)
    reading.sources.append(path)  # also where it is missing: it may appear
    if not os.path.isfile(path):
        return rows.sample(image)
    try:
        lines = read_text(path, most=LARGEST_LABELS).splitlines()
        check_count(str(path), len(lines))
    except DataError as error:
        reading.fault(error)
        return rows.sample(image)
    for number, line in enumerate(lines, 1):
        try:
            _add_row(line.split(), f"{path} line {number}", classes, rows)
        except DataError as error:
            reading.fault(error)
    return rows.sample(image)


def _add_row(fields: list[str], where: str, classes: int, rows: Rows) -> None:
    """Adds the label of one line's ``fields``; an empty line has none. ``where`` names the line in an error."""
    if not fields:
        return
    try:
        values = [float(f) for f in fields]
    except ValueError:
        bad = next(f for f in fields if not _is_number(f))
        raise DataError(f"{where}: '{bad}' is no number; write class xc yc w h") from None
    outline = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not outline:
        raise DataError(f"{where}: has {len(values)} numbers; write class xc yc w h, or class and three or more x y pairs")
    if not all(math.isfinite(v) for v in values):
        raise DataError(f"{where}: holds NaN or infinity; correct or remove the line")
    label_class = values[0]
    if label_class != int(label_class) or not 0 <= label_class < classes:
        raise DataError(
            f"{where}: class {fields[0]} is outside 0 to {classes - 1}; correct the label or the data set's class names"
        )
    # A little rounding beyond the edge is common in exported labels.
    outside = next((f for f, v in zip(fields[1:], values[1:], strict=True) if not -1e-4 <= v <= 1 + 1e-4), None)
    if outside is not None:
        raise DataError(f"{where}: {outside} is outside 0 to 1; coordinates are fractions of the image's width and height")
    if outline:
        polygon = np.array(values[1:], np.float32).reshape(-1, 2).clip(0, 1)
        xs, ys = values[1::2], values[2::2]
        rows.add(int(label_class), min(xs), min(ys), max(xs), max(ys), where, polygon)
    else:
        xc, yc, w, h = values[1:]
        rows.add(int(label_class), xc - w / 2, yc - h / 2, xc + w / 2, yc + h / 2, where)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def without_repeats(paths: Iterable[Path]) -> list[Path]:
    """Absolute paths in order, each once: an image listed twice would count twice in every epoch."""
    return list(dict.fromkeys(Path(os.path.abspath(p)) for p in paths))
