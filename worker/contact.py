"""One line when the coordinator falls silent and one when it is back, however many threads notice."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger(__name__)


class Contact:
    def __init__(self, folder: object) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._silent = False

    @property
    def silent(self) -> bool:
        return self._silent

    def failed(self, reason: str) -> None:
        with self._lock:
            if not self._silent:
                log.warning(
                    "the coordinator cannot serve now (%s); trainings go on, results wait in %s, requests are repeated",
                    reason,
                    self._folder,
                )
            self._silent = True

    def answered(self) -> None:
        with self._lock:
            if self._silent:
                log.info("the coordinator answers again")
            self._silent = False
