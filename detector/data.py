"""The door to a data set: looks at a path, sees which format it is, and reads it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from detector import image_files
from detector.dataset import Dataset, Reading, read_text
from detector.errors import DataError
from detector.formats import coco, darknet, voc, yolo

_DARKNET_LINE = re.compile(r"^\s*(classes|train|valid|names|backup|eval)\s*=", re.MULTILINE)


def load(path: str | Path, reading: Reading | None = None) -> Dataset:
    """Reads the data set at ``path``, whatever its format; no image is decoded.

    A folder is VOC (Annotations/ and JPEGImages/), COCO (annotations/instances_*.json), or YOLO (one YAML file in it). A file
    is COCO (begins with a brace), Darknet (has lines ``train = ...``), or a YOLO YAML. ``reading`` may collect faults.

    Raises:
        DataError: one line that names the file, the line or key, what is wrong, and the remedy.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        if (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir():
            return voc.read(path, reading)
        if any((path / "annotations").glob("instances_*.json")):
            return coco.read(path, reading)
        yamls = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
        if len(yamls) == 1:
            return yolo.read(yamls[0], reading)
        if yamls:
            raise DataError(f"{path}: holds {len(yamls)} YAML files; name the one that describes the data set")
        raise DataError(
            f"{path}: is no data set; a folder needs Annotations/ and JPEGImages/ (VOC), annotations/instances_*.json (COCO) "
            "or one YAML file (YOLO)"
        )
    if not path.exists():
        raise DataError(f"{path} does not exist; name a YOLO YAML, a Darknet .data file, a VOC folder or a COCO JSON")
    text = read_text(path)
    if text.lstrip().startswith("{"):
        return coco.read(path, reading)
    if _DARKNET_LINE.search(text):
        return darknet.read(path, reading)
    if path.suffix in (".yaml", ".yml") or re.search(r"^(train|val|names|nc)\s*:", text, re.MULTILINE):
        return yolo.read(path, reading)
    raise DataError(f"{path}: is of no known format; name a YOLO YAML, a Darknet .data file, a VOC folder or a COCO JSON")


def data_hash(path: str | Path) -> str:
    """The content hash of the data set at ``path``: sha256 over names, labels, relative paths and file sizes."""
    return load(path).data_hash


def check(path: str | Path) -> list[str]:
    """Everything that is wrong with the data set at ``path``, one line for each file or row. Decodes every image.

    What is wrong with the structure, such as a missing key, hides what would come after it.
    """
    faults: list[str] = []
    try:
        dataset = load(path, Reading(faults=faults))
    except DataError as error:
        return [*faults, str(error)]
    for image in dict.fromkeys(sample.image for sample in (*dataset.train, *dataset.val)):
        try:
            image_files.read(image)
        except DataError as error:
            faults.append(str(error))
    return faults
