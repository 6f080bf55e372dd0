"""A worker that the coordinator gives nothing to until it passes its self-test: one test for all its slots, then asks go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hypevolve import messages
from worker.gate import Gate

log = logging.getLogger(__name__)


class Quarantine:
    """``introduce`` tells the coordinator how the self-test ended."""

    def __init__(self, gate: Gate, introduce: Callable[[messages.SelfTest], object]) -> None:
        self._gate = gate
        self._introduce = introduce
        self._lock = threading.Lock()
        self._tested_at = float("-inf")

    def serve(self, title: str, asked_at: float, reason: str, wait_s: float, examine: Callable[[], str]) -> None:
        """Wait as long as the coordinator says, test this node with ``examine`` (its fault, or nothing), say how that ended.

        ``asked_at`` is when the ask was sent that the coordinator answered so: another slot may have passed the test since.
        """
        with self._lock:
            if self._tested_at > asked_at or self._gate.closed.is_set():
                return
            log.warning("%s: in quarantine (%s); a self-test comes in %.0f s", title, reason, wait_s)
            if self._gate.closed.wait(self._gate.wait_s(wait_s)):
                return
            fault = examine()
            log.warning("%s: self-test %s", title, f"failed: {fault}" if fault else "passed")
            self._introduce(messages.SelfTest(passed=not fault, detail=fault))
            self._tested_at = time.monotonic()
