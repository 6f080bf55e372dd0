"""YOLO data YAML: ``path``, ``train``, ``val``, ``names`` (list or mapping) or ``nc``; images/ beside labels/."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.dataset import Dataset, Reading, assemble
from detector.errors import DataError
from detector.formats.labels import images_in, images_listed, read_labels, without_repeats
from evolution import yaml

MOST_CLASSES = 100_000


def read(path: Path, reading: Reading | None = None) -> Dataset:
    """Reads the data set that a YAML file describes; ``path:`` inside it is relative to the file's own folder.

    ``train`` and ``val`` are a folder, a list file, or a list of those.

    Raises:
        DataError: one line that names the file, the key or line, and the remedy.
    """
    reading = reading or Reading()
    try:
        document = yaml.load(reading.text(path), str(path))
    except yaml.YamlError as error:
        raise DataError(str(error)) from None
    if not isinstance(document, Mapping):
        raise DataError(f"{path}: is no mapping; write the keys path, train, val and names")
    names = _names(path, document)
    root = path.parent
    if document.get("path"):
        root = root / str(document["path"])
        if not os.path.isdir(root):
            raise DataError(f"{path} key path: folder {root} does not exist; correct it (relative to the YAML file's folder)")
    splits = []
    for key in ("train", "val"):
        images = without_repeats(_images(path, root, key, document.get(key), reading))
        splits.append([read_labels(image, len(names), reading) for image in images])
    return assemble(path, names, splits[0], splits[1], reading)


def _names(path: Path, document: Mapping[str, Any]) -> list[str]:
    names, count = document.get("names"), document.get("nc")
    if isinstance(names, Mapping):
        if set(names) != set(range(len(names))):
            raise DataError(f"{path} key names: numbers must run from 0 to {len(names) - 1}; renumber the classes")
        names = [names[i] for i in range(len(names))]
    if isinstance(count, int) and count > MOST_CLASSES:
        raise DataError(f"{path} key nc: is {count}, and a data set may have {MOST_CLASSES} classes at most; correct it")
    if names is None and isinstance(count, int) and count > 0:
        names = [f"class{i}" for i in range(count)]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path} key names: is missing or empty; write names: [cat, dog] or nc: 2")
    if count is not None and count != len(names):
        raise DataError(f"{path} key nc: is {count}, but names lists {len(names)} classes; correct one of them")
    return [str(name) for name in names]


def _images(path: Path, root: Path, key: str, value: Any, reading: Reading) -> list[Path]:
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise DataError(f"{path} key {key}: is missing or no path; write {key}: images/{key}, a list file, or a list of those")
    images: list[Path] = []
    for entry in entries:
        place = root / entry
        if os.path.isdir(place):
            images += images_in(place, path)
        elif os.path.isfile(place):
            images += images_listed(place, root, path, reading)
        else:
            reading.fault(DataError(f"{path} key {key}: {place} does not exist; correct it (relative to path:)"))
    return images
