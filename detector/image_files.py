"""Image files: what a header says is looked at before a pixel is decoded, as a small file can ask for all memory.

Read are JPEG, PNG, BMP, TIFF and WebP. Sizes stand where the formats' specifications put them: ITU-T T.81 B.2.2, PNG 11.2.1,
BITMAPCOREHEADER and BITMAPINFOHEADER, TIFF 6.0 section 2, RFC 9649.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from detector.errors import DataError

MOST_PIXELS = 50_000_000  # 150 MB once decoded
_MOST_GARBAGE = 65536  # bytes between the segments of a JPEG, as its decoder passes over them
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})


def read(path: Path) -> np.ndarray:
    """The pixels of an image file, (h, w, 3) uint8, BGR, turned as its EXIF orientation says.

    Decoded from memory: from a file, OpenCV fills the rest of a JPEG that ends too early with grey, and says nothing.

    Raises:
        DataError: as ``check``, and where it cannot be decoded to its end.
    """
    check(path)
    try:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        pixels = None
    if pixels is None:
        raise _damaged(path)
    return pixels


def check(path: Path, named_by: Path | None = None) -> None:
    """Look at the header alone; ``named_by`` is the file or folder that led to this image.

    Raises:
        DataError: it is missing, no image, damaged in its header, or of more than ``MOST_PIXELS``.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        with path.open("rb") as file:
            start = file.read(32)
            sizes = next((sizes for signature, sizes in _SIZES.items() if start.startswith(signature)), None)
            if sizes is None or (sizes is _webp and start[8:12] != b"WEBP"):
                words = f"{path}: is no image (JPEG, PNG, BMP, TIFF or WebP); replace it or remove it from the data set"
                raise DataError(words)
            width, height = sizes(file, start)
    except OSError:
        where = f"{named_by}: " if named_by else ""
        words = f"{where}image {path} does not exist or cannot be read; restore it or remove it from the list"
        raise DataError(words) from None
    except (struct.error, EOFError):
        raise _damaged(path) from None
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{path}: is {width} x {height}, and an image may have {MOST_PIXELS} pixels at most; reduce it or cut it into tiles"
        )


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: cannot be decoded (truncated?); replace it or remove it from the data set")


def _jpeg(file: BinaryIO, _: bytes) -> tuple[int, int]:
    """From the first frame header, found as the decoder finds it: what stands between segments is passed over."""
    file.seek(2)
    garbage = 0
    while garbage < _MOST_GARBAGE:
        if file.read(1) != b"\xff":
            garbage += 1
            continue
        code = 0xFF
        while code == 0xFF:
            (code,) = struct.unpack("B", file.read(1))
        if code in _FRAMES:
            height, width = struct.unpack(">3x2H", file.read(7))
            return width, height
        if code in _WITHOUT_LENGTH:
            garbage += 2
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            raise EOFError
        file.seek(length - 2, 1)
    raise EOFError


def _png(_: BinaryIO, start: bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack_from(">4s2I", start, 12)
    if kind != b"IHDR":
        raise EOFError
    return width, height


def _bmp(_: BinaryIO, start: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", start, 14)
    width, height = struct.unpack_from("<2H" if header == 12 else "<2i", start, 18)
    return abs(width), abs(height)  # rows from the top have a negative height


def _tiff(file: BinaryIO, start: bytes) -> tuple[int, int]:
    """From the first directory; of a tag that is given twice the larger value, as readers differ."""
    order = "<" if start.startswith(b"II") else ">"
    file.seek(struct.unpack_from(order + "I", start, 4)[0])
    (count,) = struct.unpack(order + "H", file.read(2))
    found = {256: 0, 257: 0}
    for _ in range(count):
        entry = file.read(12)
        tag, kind = struct.unpack_from(order + "2H", entry)
        if tag in found:
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), entry, 8)
            found[tag] = max(found[tag], value)
    return found[256], found[257]


def _webp(_: BinaryIO, start: bytes) -> tuple[int, int]:
    kind = start[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", start, 24)
        return low_w + (high_w << 16) + 1, low_h + (high_h << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<2H", start, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise EOFError


_SIZES = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG": _png,
    b"BM": _bmp,
    b"II*\x00": _tiff,
    b"MM\x00*": _tiff,
    b"RIFF": _webp,
}
