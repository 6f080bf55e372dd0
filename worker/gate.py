"""Who may ask for work: the limits on a worker's life (``--max``, ``--until-idle``, a drain), shared by its slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Gate:
    """``closed`` is set once no slot may ask any more. An ask is ``enter``, then ``nothing``, or ``begin`` and ``end``."""

    def __init__(
        self, most: int | None = None, until_idle_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.closed = threading.Event()
        self._left = most
        self._until_idle_s = until_idle_s
        self._clock = clock
        self._lock = threading.Lock()
        self._training = 0
        self._idle_since = clock()

    def close(self) -> None:
        self.closed.set()

    def enter(self) -> bool:
        """Whether to ask. With ``most`` an ask takes one of the remaining places."""
        with self._lock:
            if self.closed.is_set() or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def wait_s(self, longest: float) -> float:
        """How long an ask may wait for work."""
        return longest if self._until_idle_s is None else min(longest, max(self._until_idle_s, 0.0))

    def nothing(self) -> None:
        """The ask got nothing: give its place back, and close where the whole worker has been idle for long enough."""
        with self._lock:
            if self._left is not None:
                self._left += 1
            self._close_where_idle()

    def unanswered(self) -> None:
        """Asks are being repeated because the coordinator is silent, which is time without work too."""
        with self._lock:
            self._close_where_idle()

    def begin(self) -> None:
        with self._lock:
            self._training += 1

    def end(self) -> None:
        with self._lock:
            self._training -= 1
            self._idle_since = self._clock()

    def _close_where_idle(self) -> None:
        idle_s = self._clock() - self._idle_since
        if self._until_idle_s is not None and not self._training and idle_s >= self._until_idle_s:
            self.closed.set()
