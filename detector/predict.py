"""Detections in images that nobody labelled: one image or a folder, drawn, and as JSON and text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from detector import image_files
from detector.augment import letterbox
from detector.boxes import decode
from detector.cache import Picture
from detector.checkpoint import Opened
from detector.draw import draw_boxes
from detector.errors import DataError
from detector.evaluate import detections
from detector.formats.labels import IMAGE_SUFFIXES
from detector.metrics import Found

_NO_LABELS = np.empty((0, 5), np.float32)
_NO_OUTLINES = np.empty((0, 0, 2), np.float32)


def images_at(source: str | Path) -> list[Path]:
    """One image file, or all below a folder, sorted. Raises DataError if there are none."""
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} does not exist; name an image or a folder of images")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{source}: holds no images; name an image or a folder of images")
    return found


@torch.inference_mode()
def predict(
    opened: Opened,
    images: list[Path],
    imgsz: int,
    confidence: float,
    device: str = "cpu",
    skipped: Callable[[str], None] | None = None,
) -> Iterator[tuple[Path, np.ndarray, Found]]:
    """Of each image its pixels (h, w, 3) BGR and the detections above ``confidence``, in its pixels.

    An image is reduced to a long side of ``imgsz``, never enlarged, and padded to multiples of the largest stride. One that
    cannot be decoded is passed over, and ``skipped`` told in one line why.

    Raises:
        DataError: an image cannot be decoded, and nobody is told.
    """
    model = opened.model.folded().to(device, memory_format=torch.channels_last)
    step = int(model.strides.max())
    for path in images:
        try:
            pixels = image_files.read(path)
        except DataError as error:
            if skipped is None:
                raise
            skipped(str(error))
            continue
        height, width = pixels.shape[:2]
        ratio = min(imgsz / max(height, width), 1.0)
        shape = tuple(math.ceil(max(round(n * ratio), 1) / step) * step for n in (height, width))
        small = pixels
        if ratio < 1:
            size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        picture = Picture(small, (height, width), _NO_LABELS, _NO_OUTLINES)
        padded, _, (x, y) = letterbox(picture, (shape[0], shape[1]))
        batch = torch.from_numpy(np.ascontiguousarray(padded[..., ::-1])).permute(2, 0, 1)[None].to(device).float() / 255
        found = detections(decode(model(batch), model.anchors, model.strides, model.lineage)[0].cpu())
        keep = found.scores > confidence
        scale = np.array((width / small.shape[1], height / small.shape[0]) * 2)
        boxes = np.clip((found.boxes[keep] - (x, y, x, y)) * scale, 0, (width, height, width, height))
        yield path, pixels, Found(boxes, found.scores[keep], found.classes[keep])


def write(
    opened: Opened,
    source: str | Path,
    out: str | Path,
    imgsz: int,
    confidence: float,
    device: str = "cpu",
    skipped: Callable[[str], None] | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[dict]:
    """Predicts on an image or a folder into ``out``, which keeps the folder's structure, and returns what ``predictions.json``
    holds: of each image its path and its boxes, best first, in pixels. ``skipped`` as in ``predict``;
    ``progress`` is told the share that is done after each image.

    Beside each drawn image lies a ``.txt``: class, centre x, centre y, width, height (fractions), confidence a line.
    """
    out, rows = Path(out), []
    images = images_at(source)
    place_of = {path: number for number, path in enumerate(images, 1)}
    base = Path(source) if Path(source).is_dir() else Path(source).parent
    for path, pixels, found in predict(opened, images, imgsz, confidence, device, skipped):
        place = out / path.relative_to(base)
        if place.exists() and place.samefile(path):
            raise DataError(f"{path} would be overwritten; give another --out")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(place), draw_boxes(pixels, found, opened.names)):
            raise DataError(f"{place} cannot be written; give another folder")
        height, width = pixels.shape[:2]
        lines, boxes = [], []
        for (x1, y1, x2, y2), score, c in zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True):
            part = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{c} " + " ".join(f"{v:.6g}" for v in (*part, score)) + "\n")
            box = [round(v, 2) for v in (x1, y1, x2, y2)]
            boxes.append({"class": c, "name": opened.names[c], "confidence": round(score, 5), "box": box})
        place.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
        rows.append({"image": path.relative_to(base).as_posix(), "width": width, "height": height, "boxes": boxes})
        progress(place_of[path] / len(images))
    out.mkdir(parents=True, exist_ok=True)
    (out / "predictions.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows
