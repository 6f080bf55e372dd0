"""Requests that meet are served together: one thread, one transaction, one COMMIT for all that came while the last were served.

Nobody waits in order to meet others: who comes to an idle desk is served at once. What cannot be served together with others is
handed back, and served alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from server.errors import Unavailable

R = TypeVar("R")
A = TypeVar("A")

MOST = 64  # requests in one transaction

log = logging.getLogger("server")


class Desk(Generic[R, A]):
    """A queue of requests, and the thread that serves them.

    Args:
        serve: the answers to requests, in their order; None for one that has to be served alone.
    """

    def __init__(self, name: str, serve: Callable[[Sequence[R]], Sequence[A | None]]) -> None:
        self._serve = serve
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = threading.Lock()
        self._waiting: list[tuple[R, Future[A | None]]] = []
        self._serving = False

    async def bring(self, request: R) -> A | None:
        """The answer, or None: to be served alone.

        Raises:
            Unavailable: the database cannot answer now.
            Exception: whatever else ``serve`` raised, where nobody else was served.
        """
        answer: Future[A | None] = Future()
        with self._lock:
            self._waiting.append((request, answer))
            idle, self._serving = not self._serving, True
        if idle:
            self._thread.submit(self._work)
        return await asyncio.wrap_future(answer)

    def _work(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                self._serving = bool(batch)
            if not batch:
                return
            # Whoever has gone meanwhile is not served.
            self._serve_batch([(request, answer) for request, answer in batch if answer.set_running_or_notify_cancel()])

    def _serve_batch(self, batch: Sequence[tuple[R, Future[A | None]]]) -> None:
        answers: Sequence[A | None] = [None] * len(batch)
        try:
            if batch:
                answers = self._serve([request for request, _ in batch])
        except BaseException as error:
            if isinstance(error, Unavailable) or len(batch) == 1:
                for _, answer in batch:
                    answer.set_exception(error)
                return
            log.exception("requests cannot be served together; each goes alone")
        for (_, answer), given in zip(batch, answers, strict=True):
            answer.set_result(given)
