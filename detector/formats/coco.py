"""COCO JSON: ``images``, ``annotations`` and ``categories``; a folder with annotations/instances_*.json, or one file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from detector.dataset import Dataset, Reading, Rows, Sample, assemble, check_count
from detector.errors import DataError


def read(path: Path, reading: Reading | None = None) -> Dataset:
    """Reads a folder with annotations/instances_train*.json and instances_val*.json, or one JSON file used for both splits.

    Classes are the categories in the order of their ids. Crowd regions are left out. Of an object's outlines the largest is
    kept.

    Raises:
        DataError: one line that names the file, the annotation and the remedy.
    """
    reading = reading or Reading()
    if path.is_file():
        names, samples = _split(path, reading)
        return assemble(path, names, samples, list(samples), reading)
    folder = path / "annotations"
    found = {}
    for split in ("train", "val"):
        files = sorted(folder.glob(f"instances_{split}*.json"))
        if len(files) != 1:
            raise DataError(f"{folder}: holds {len(files)} files instances_{split}*.json; exactly one is needed")
        found[split] = files[0]
    names, train = _split(found["train"], reading)
    other, val = _split(found["val"], reading)
    if other != names:
        raise DataError(f"{found['val']} key categories: differ from those of {found['train']}; make them equal")
    return assemble(path, names, train, val, reading)


def _split(path: Path, reading: Reading) -> tuple[list[str], list[Sample]]:
    text = reading.text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: is no valid JSON ({error.msg}); correct the file") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists within lists without end
        raise DataError(f"{path}: is no annotation file ({error}); correct the file") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list) or (not document[key]):
            raise DataError(f"{path} key {key}: is missing, empty or no list; write images, annotations and categories")
    try:
        categories = sorted(document["categories"], key=lambda c: c["id"])
        index = {category["id"]: i for i, category in enumerate(categories)}
        names = [str(category["name"]) for category in categories]
        images = {image["id"]: image for image in document["images"]}
        files = {key: str(image["file_name"]) for key, image in images.items()}
        rows = {key: Rows(reading) for key in images}
        for image in images.values():
            if not (0 < image["width"] < math.inf and 0 < image["height"] < math.inf):
                raise DataError(f"{path} image {image['id']}: width and height must be positive pixels; correct them")
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: an image or category lacks a key, or has a wrong one ({error}); images need id, file_name, width and "
            "height, categories id and name"
        ) from None
    for position, annotation in enumerate(document["annotations"]):
        where = f"{path} annotation {annotation.get('id', position) if isinstance(annotation, dict) else position}"
        try:
            _add(where, annotation, images, index, rows, reading)
        except DataError as error:
            reading.fault(error)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            words = f"{where}: has a value of the wrong kind ({error}); write image_id, category_id, bbox and segmentation"
            reading.fault(DataError(words))
    samples = []
    for key, name in files.items():
        try:
            check_count(f"{path} image {key}", len(rows[key]))
            samples.append(rows[key].sample(_find(path, name)))
        except DataError as error:
            reading.fault(error)
    return names, samples


def _add(
    where: str,
    annotation: dict[str, Any],
    images: dict[Any, Any],
    index: dict[Any, int],
    rows: dict[Any, Rows],
    reading: Reading,
) -> None:
    if annotation.get("iscrowd"):
        reading.remark("crowd regions left out", where)
        return
    if annotation.get("image_id") not in images:
        raise DataError(f"{where}: image_id {annotation.get('image_id')} is not among the images; correct or remove it")
    if annotation.get("category_id") not in index:
        raise DataError(f"{where}: category_id {annotation.get('category_id')} is not among the categories; correct it")
    box = annotation.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in box)
    ):
        raise DataError(f"{where} key bbox: is {box}; write [x, y, width, height] in pixels")
    image = images[annotation["image_id"]]
    width, height = image["width"], image["height"]
    x, y, w, h = box
    polygon = _largest(annotation.get("segmentation"), width, height)
    label_class = index[annotation["category_id"]]
    rows[annotation["image_id"]].add(label_class, x / width, y / height, (x + w) / width, (y + h) / height, where, polygon)


def _largest(segmentation: Any, width: float, height: float) -> np.ndarray | None:
    """The outline with the largest area (shoelace formula), as fractions; None where there is no polygon."""
    if not isinstance(segmentation, list):
        return None
    outlines = [np.array(p, np.float64).reshape(-1, 2) for p in segmentation if len(p) >= 6 and len(p) % 2 == 0]
    outlines = [p for p in outlines if np.isfinite(p).all()]
    if not outlines:
        return None
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2 for p in outlines]
    return (outlines[int(np.argmax(areas))] / (width, height)).clip(0, 1).astype(np.float32)


def _find(source: Path, name: str) -> Path:
    """An image beside the JSON file or where COCO keeps it: images/<split>/, <split>/ or images/ beside annotations/."""
    split = source.stem.removeprefix("instances_")
    root = source.parent.parent if source.parent.name == "annotations" else source.parent
    for folder in (root / "images" / split, root / split, root / "images", root):
        if os.path.isfile(folder / name):
            return folder / name
    raise DataError(f"{source}: image {name} is in none of images/{split}, {split}, images under {root}; put it in images/")
