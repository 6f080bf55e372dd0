"""What a checkpoint may be: safetensors or JSON. Both hold data alone; a pickle, which can hold a program, never gets in.

Looked at while it streams by: the head of a safetensors file is checked against its length, JSON is parsed at the end.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise

from server.errors import Invalid

HEAD = 8
MOST_HEADER = 64 << 20
MOST_JSON = 16 << 20
_REMEDY = "a checkpoint is one safetensors file or one JSON document; nothing that is loaded by pickle crosses the network"


class Inspection:
    """Feed it the content chunk by chunk, then ``finish``.

    Raises:
        Invalid: from either, where the content is neither safetensors nor JSON.
    """

    def __init__(self) -> None:
        self._length = 0
        self._kept = bytearray()  # the head of safetensors, or all of a JSON document
        self._want: int | None = None  # how many bytes to keep

    def feed(self, chunk: bytes) -> None:
        self._length += len(chunk)
        if self._want is None or len(self._kept) < self._want:
            room = len(chunk) if self._want is None else self._want - len(self._kept)
            self._kept += chunk[:room]
        if self._want is None and len(self._kept) >= HEAD:
            self._want = self._wanted()
            if self._want < len(self._kept):
                del self._kept[self._want :]

    def _wanted(self) -> int:
        (size,) = struct.unpack("<Q", self._kept[:HEAD])
        # A safetensors header is itself a JSON object: the ninth byte of such a file is a brace (or the file is no checkpoint).
        if size <= MOST_HEADER:
            return HEAD + int(size)
        if self._kept.lstrip().startswith((b"{", b"[")):
            return MOST_JSON + 1
        raise Invalid("checkpoint-format", f"the content is neither safetensors nor JSON; {_REMEDY}")

    def finish(self) -> None:
        if self._want is None or self._want == MOST_JSON + 1:
            self._finish_json()
        else:
            self._finish_safetensors()

    def _finish_json(self) -> None:
        if self._length > MOST_JSON:
            raise Invalid("checkpoint-format", f"a JSON checkpoint has at most {MOST_JSON} bytes; write tensors as safetensors")
        try:
            json.loads(self._kept)
        except (ValueError, RecursionError) as error:
            raise Invalid("checkpoint-format", f"the content is neither safetensors nor JSON ({error}); {_REMEDY}") from error

    def _finish_safetensors(self) -> None:
        """The rules of the format: a JSON object, and tensors that fill the rest without gap or overlap."""
        try:
            if len(self._kept) != self._want:
                raise ValueError("the header is cut off")
            header = json.loads(self._kept[HEAD:])
            spans = sorted(tuple(map(int, entry["data_offsets"])) for name, entry in header.items() if name != "__metadata__")
            ends = [(0, 0), *spans, (self._length - len(self._kept),) * 2]
            if any(left[1] != right[0] for left, right in pairwise(ends)) or any(begin > end for begin, end in ends):
                raise ValueError("its tensors do not fill the file; was it read while it was being written?")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Invalid("checkpoint-format", f"the content is no whole safetensors file ({error}); {_REMEDY}") from error
