"""The identity of a hyp set, the same number for number on both ends of the wire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def hyp_hash(hyp: Mapping[str, float | bool | str]) -> str:
    """SHA-256, in hex, of the genes sorted by name.

    Numbers enter as ``repr`` of a float (1 and 1.0 are the same hyp set), choices as the JSON of a list, which no number looks
    like.
    """
    values = {name: [value] if isinstance(value, str | bool) else repr(float(value)) for name, value in hyp.items()}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
