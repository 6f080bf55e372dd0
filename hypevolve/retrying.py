"""How long and how often a request is repeated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How long to go on. ``patience_s`` None means for ever; 0 means one attempt.

    The n-th pause is drawn from 0 to ``first_s * 2**n``, at most ``cap_s``: full jitter, so that a fleet does not come back as
    one.
    """

    patience_s: float | None = 6.0
    first_s: float = 0.5
    cap_s: float = 30.0

    def pause(self, attempt: int, chance: float, floor_s: float = 0.0) -> float:
        """Seconds to wait after attempt number ``attempt`` (from 0); ``chance`` is in [0, 1), ``floor_s`` is Retry-After."""
        longest = min(self.first_s * 2.0 ** min(attempt, 30), self.cap_s)
        return max(longest * chance, floor_s)


PEOPLE = RetryPolicy()
FOREVER = RetryPolicy(patience_s=None)
ONCE = RetryPolicy(patience_s=0.0)
