"""Decoded images of a data set in one file that all processes of a node map into memory: decoded once, held once.

A file belongs to image files as they are (path, size, time) and a training size. It is pixels behind pixels, then an index as
JSON, then the index's length and a mark: a file that ends otherwise is no such file and is built anew. The builder writes
beside it, holding a lock that the kernel drops with the process, syncs and renames; whoever comes meanwhile waits for the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

MARK = b"hypevolve pixels 1\n"
_TAIL = struct.Struct(f"<Q{len(MARK)}s")
UNUSED_S = 30 * 86400.0
LEAST_FREE_BYTES = 1 << 30

_log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """An image file, and whether it is enlarged where it is smaller than the training size."""

    path: Path
    enlarge: bool


class Decoded(NamedTuple):
    """``pixels`` (h, w, 3) uint8 BGR, perhaps read-only; ``native`` is (height, width) of the file."""

    pixels: np.ndarray
    native: tuple[int, int]


Decode = Callable[[Wanted, int], Decoded]


def default_folder() -> Path:
    """$HYPEVOLVE_CACHE, else hypevolve/ in $XDG_CACHE_HOME, else ~/.cache/hypevolve."""
    if own := os.environ.get("HYPEVOLVE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "hypevolve"


def load(wanted: Sequence[Wanted], imgsz: int, decode: Decode, folder: Path) -> list[Decoded]:
    """The images of ``wanted`` at size ``imgsz``, mapped from the file in ``folder``, which is built where there is none.

    Where the folder cannot be written, or the disk has no room, the images are decoded into this process's own memory, and one
    line in the log says why. Raises what ``decode`` raises.
    """
    try:
        name = _name(wanted, imgsz)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.pixels"
        found = _open(path)
        if found is None:
            with (folder / f"{name}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = _open(path)
                if found is None:
                    _tidy(folder, name)
                    _build(path, wanted, imgsz, decode)
                    found = _open(path)
        if found is not None and len(found) == len(wanted):
            return found
    except OSError as error:
        _log.warning("decoded images are not shared: %s; set HYPEVOLVE_CACHE to a folder that can be written", error)
    return [decode(one, imgsz) for one in wanted]


def _name(wanted: Sequence[Wanted], imgsz: int) -> str:
    """A hash of everything that decides about the pixels, the decoder's version included."""
    sha = hashlib.sha256(json.dumps([imgsz, cv2.__version__]).encode())
    for path, enlarge in wanted:
        status = path.stat()
        sha.update(json.dumps([os.path.abspath(path), status.st_size, status.st_mtime_ns, enlarge]).encode())
    return sha.hexdigest()[:32]


def _build(path: Path, wanted: Sequence[Wanted], imgsz: int, decode: Decode) -> None:
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            index = [_append(file, decode(one, imgsz)) for one in wanted]
            text = json.dumps(index).encode()
            file.write(text + _TAIL.pack(len(text), MARK))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _append(file: BinaryIO, image: Decoded) -> list[int]:
    """Writes one image; its row of the index: where it begins, height and width, height and width of the file."""
    start = file.tell()
    if shutil.disk_usage(file.name).free - image.pixels.nbytes < LEAST_FREE_BYTES:
        raise OSError(f"less than {LEAST_FREE_BYTES >> 30} GiB would be free beside {file.name}")
    file.write(np.ascontiguousarray(image.pixels).data)
    height, width = image.pixels.shape[:2]
    return [start, height, width, *image.native]


def _open(path: Path) -> list[Decoded] | None:
    """The images of a whole file as views of the mapped memory; None where there is none, or it is not whole."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
        return None
    if len(mapped) < _TAIL.size:
        return None
    length, mark = _TAIL.unpack(mapped[-_TAIL.size :])
    if mark != MARK or length > len(mapped) - _TAIL.size:
        return None
    index = json.loads(mapped[len(mapped) - _TAIL.size - length : len(mapped) - _TAIL.size])
    os.utime(path)  # in use
    memory = np.frombuffer(mapped, np.uint8)
    return [
        Decoded(memory[start : start + h * w * 3].reshape(h, w, 3), (native_h, native_w))
        for start, h, w, native_h, native_w in index
    ]


def _tidy(folder: Path, name: str) -> None:
    """Removes what a killed builder of this file left, and files that nobody has opened for a month.

    Who has such a file mapped keeps it: on a Unix file system a removed file lives until its last user ends.
    """
    (folder / f"{name}.partial").unlink(missing_ok=True)
    for old in folder.glob("*.pixels"):
        if time.time() - old.stat().st_mtime > UNUSED_S:
            old.unlink(missing_ok=True)
