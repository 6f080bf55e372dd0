"""The built-in data set: scenes of real handwritten digits on textured grounds, written once as a YOLO folder.

The digits are the 1,797 of the UCI "Optical Recognition of Handwritten Digits" test set (E. Alpaydin and C. Kaynak, 1998; CC BY
4.0; see digits.LICENSE.txt). Scenes for validation use other digits than scenes for training.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

CLASSES = MappingProxyType({0: "zero", 1: "one", 4: "four"})  # digit: name
SIDE = 128  # pixels
COUNTS = MappingProxyType({"train": 240, "val": 80})
MOST_DIGITS = 6
DIGIT_HEIGHT = (22, 52)  # pixels
LEAST_CONTRAST = 70

# The base scenario of the demo (``data`` is the folder that was written): about 20 CPU seconds a training, long enough for
# hyps to matter and short enough to watch an evolution.
DEMO_BASE: Mapping[str, Any] = MappingProxyType(
    {"model": "yolov5n", "epochs": 10, "imgsz": SIDE, "batch": 8, "optimizer": "auto", "anchors": "fitted"}
)


def write(folder: str | Path, seed: int = 0, counts: Mapping[str, int] = COUNTS) -> Path:
    """Writes the data set to ``folder`` unless it is there already, and returns the path of its data.yaml.

    ``counts`` holds the number of images in the splits train and val.

    The same seed gives the same bytes: images are bitmaps, which no compressor's version can change, and labels come from the
    layout alone. The folder appears whole or not at all: it is written beside its place and renamed.

    Raises:
        FileExistsError: ``folder`` exists and is something else.
    """
    folder = Path(folder)
    description = _description(seed, counts)
    if _is_there(folder, description):
        return folder / "data.yaml"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not this digits data set; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(work, seed, counts)
        (work / "data.yaml").write_text(description, encoding="ascii")
        work.chmod(0o755)
        os.replace(work, folder)
    except OSError:
        # Another process was faster: its folder holds the same bytes.
        if not _is_there(folder, description):
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "data.yaml"


def _description(seed: int, counts: Mapping[str, int]) -> str:
    """The data.yaml, which also says what the folder holds."""
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES.values()))
    holds = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"# handwritten digits, seed {seed}: {holds}\ntrain: images/train\nval: images/val\nnames:\n{names}"


def _is_there(folder: Path, description: str) -> bool:
    file = folder / "data.yaml"
    return file.is_file() and file.read_text(encoding="utf-8") == description


def _write(folder: Path, seed: int, counts: Mapping[str, int]) -> None:
    with np.load(Path(__file__).with_name("digits.npz")) as archive:
        glyphs, labels = archive["images"], archive["labels"]
    for number, (split, count) in enumerate(counts.items()):
        # Even digits of the archive train, odd ones validate.
        pools = [glyphs[number::2][labels[number::2] == digit] for digit in CLASSES]
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image, rows = scene(pools, np.random.default_rng((seed, number, i)))
            cv2.imwrite(str(folder / "images" / split / f"{i:04d}.bmp"), image)
            text = "".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in rows)
            (folder / "labels" / split / f"{i:04d}.txt").write_text(text, encoding="ascii")


def scene(pools: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, float, float, float, float]]]:
    """One image (SIDE, SIDE, 3) uint8 BGR and its labels: class, centre x, centre y, width, height as fractions.

    ``pools`` holds the glyphs (n, 8, 8) of each class, ink from 0 to 16.
    """
    image = _ground(rng)
    boxes: list[tuple[int, int, int, int]] = []
    rows = []
    for _ in range(int(rng.integers(1, MOST_DIGITS + 1))):
        c = int(rng.integers(len(pools)))
        glyph = pools[c][rng.integers(len(pools[c]))]
        glyph = glyph[np.ix_(glyph.any(1), glyph.any(0))]
        h = int(rng.integers(*DIGIT_HEIGHT))
        w = max(int(h * glyph.shape[1] / glyph.shape[0] * rng.uniform(0.8, 1.25)), 6)
        if w >= SIDE:
            continue
        x, y = int(rng.integers(SIDE - w)), int(rng.integers(SIDE - h))
        if any(x < bx + bw and bx < x + w and y < by + bh and by < y + h for bx, by, bw, bh in boxes):
            continue
        boxes.append((x, y, w, h))
        rows.append((c, (x + w / 2) / SIDE, (y + h / 2) / SIDE, w / SIDE, h / SIDE))
        ink = cv2.resize(glyph.astype(np.float32) / 16, (w, h), interpolation=cv2.INTER_LINEAR)[..., None]
        patch = image[y : y + h, x : x + w]
        patch += ink * (_ink(patch.mean((0, 1)), rng) - patch)
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), rows


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A ground of one colour under noise of three grain sizes, with a few strokes that are no digits."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(50, 205, 3), np.float32)
    for cells, strength in ((4, 22), (12, 12), (40, 8)):
        grain = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(grain, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(3))):
        start, end = rng.integers(SIDE, size=(2, 2)).tolist()
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, 4)))
    return image


def _ink(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour whose brightness differs enough from the ground's to be read."""
    colour = rng.uniform(0, 255, 3)
    while abs(colour.mean() - ground.mean()) < LEAST_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    return colour
