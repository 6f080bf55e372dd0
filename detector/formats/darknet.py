"""Darknet ``.data``: lines ``key = value`` with ``classes``, ``train``, ``valid`` (list files) and ``names`` (one a line)."""

from __future__ import annotations

from pathlib import Path

from detector.dataset import Dataset, Reading, assemble
from detector.errors import DataError
from detector.formats.labels import images_listed, read_labels, without_repeats


def read(path: Path, reading: Reading | None = None) -> Dataset:
    """Reads a Darknet data set; relative paths start at the ``.data`` file's folder.

    Raises:
        DataError: one line that names the file, the key or line, and the remedy.
    """
    reading = reading or Reading()
    values: dict[str, str] = {}
    for number, line in enumerate(reading.text(path).splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        key, equals, value = text.partition("=")
        if not equals:
            raise DataError(f"{path} line {number}: '{text}' has no '='; write key = value")
        values[key.strip()] = value.strip()
    for key in ("train", "valid", "names"):
        if not values.get(key):
            raise DataError(f"{path} key {key}: is missing; write {key} = FILE")
    root = path.parent
    names = [line.strip() for line in reading.text(root / values["names"], path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{root / values['names']}: names no class; write one class name a line")
    if "classes" in values and values["classes"] != str(len(names)):
        raise DataError(
            f"{path} key classes: is {values['classes']}, but {values['names']} lists {len(names)} names; correct one of them"
        )
    splits = []
    for key in ("train", "valid"):
        images = without_repeats(images_listed(root / values[key], root, path, reading))
        splits.append([read_labels(image, len(names), reading) for image in images])
    return assemble(path, names, splits[0], splits[1], reading)
