"""The identity of a hyp set, the same number for number on both ends of the wire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def hyp_hash(hyp: Mapping[str, float]) -> str:
    """SHA-256, in hex, of the genes sorted by name. Values enter as ``repr`` of a float: 1 and 1.0 are the same hyp set."""
    text = json.dumps({name: repr(float(hyp[name])) for name in sorted(hyp)}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
