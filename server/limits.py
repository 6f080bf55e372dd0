"""How much one request, and one caller, may ask for: every number in one place, and the arithmetic that holds them.

A request is looked at before anything of it is parsed: who sends it, how long it is, how deep it nests, how long it takes.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass

from server.errors import Invalid, TooLarge

LARGEST_BODY = 256 * 1024  # bytes
DEEPEST_JSON = 20  # nested lists and objects
LARGEST_HEAD = 32 * 1024  # bytes of request line and headers
HEAD_S = 10.0  # from the first byte of a request to the end of its headers
BODY_S = 10.0  # from there to the end of its body
REQUESTS_PER_S = 200.0  # of one token, in the long run
BURST = 1000  # ... and at once: a fleet that comes back together
CONNECTIONS = 4096  # of one coordinator

# Routes that take more than LARGEST_BODY, as (method, path under the API's prefix), with their bytes. None: the route streams
# and holds size and time itself.
LARGER: tuple[tuple[str, re.Pattern[str], int | None], ...] = (
    ("POST", re.compile(r"/campaigns"), 4_000_000),
    ("POST", re.compile(r"/campaigns/[^/]+/imported"), 4_000_000),
    ("PUT", re.compile(r"/leases/[^/]+/checkpoint"), None),
)

_TEXT = re.compile(rb'"[^"]*"?')
_NO_BRACKET = re.compile(rb"[^\[\]{}]+")


def largest_body(method: str, path: str) -> int | None:
    """How many bytes the body of a request may have; None where its route measures."""
    return next((most for verb, place, most in LARGER if verb == method and place.fullmatch(path)), LARGEST_BODY)


def check_length(size: int, most: int) -> None:
    """Raises TooLarge."""
    if size > most:
        raise TooLarge("too-large", f"the body is larger than the {most} bytes that this route takes; send less at once")


def check_depth(body: bytes) -> None:
    """Look at how deep JSON nests before a parser does. What is no JSON is left to the parser.

    Raises:
        Invalid: deeper than ``DEEPEST_JSON``.
    """
    depth = 0
    for bracket in _NO_BRACKET.sub(b"", _TEXT.sub(b"", body.replace(b"\\\\", b"").replace(b'\\"', b""))):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST_JSON:
            raise Invalid("too-deep", f"the body nests deeper than {DEEPEST_JSON} levels; flatten it")


@dataclass
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """A token bucket for each key, the least used forgotten once there are ``most``. Times are in seconds of any clock."""

    def __init__(self, *, per_s: float, burst: float, most: int = 10_000) -> None:
        self._per_s = per_s
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, now: float) -> int:
        """Take one; 0, or the whole seconds until there is one again."""
        bucket = self._filled(key, now)
        if bucket.tokens < 1:
            return self._until_one(bucket)
        bucket.tokens -= 1
        return 0

    def wait_s(self, key: str, now: float) -> int:
        """What ``take`` would say, without taking."""
        bucket = self._filled(key, now)
        return 0 if bucket.tokens >= 1 else self._until_one(bucket)

    def _until_one(self, bucket: _Bucket) -> int:
        return max(math.ceil((1 - bucket.tokens) / self._per_s), 1)

    def _filled(self, key: str, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.tokens = min(bucket.tokens + max(now - bucket.at, 0.0) * self._per_s, self._burst)
        bucket.at = now
        return bucket
