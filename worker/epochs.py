"""The epochs of one training on their way to the coordinator: in order, in batches, again after an outage."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import Self

from hypevolve import messages
from hypevolve.client import Client, RetryPolicy
from hypevolve.errors import HypevolveError, ServerFault, Unreachable
from worker.contact import Contact

log = logging.getLogger(__name__)

BATCH = 20
EVERY_S = 1.0
LARGEST_POST = 100  # the protocol's limit
MOST_WAITING = 20_000  # an outage of a long training: then the oldest epochs go, never the result

_PAUSES = RetryPolicy(patience_s=None)


class EpochRelay(threading.Thread):
    """Posts epochs from a thread of its own while used as a context, so that neither training nor heartbeat waits for it."""

    def __init__(self, client: Client, lease: messages.Lease, contact: Contact) -> None:
        super().__init__(name=f"epochs {lease.campaign} #{lease.number}", daemon=True)
        self._client = client
        self._lease = lease
        self._contact = contact
        self._waiting: deque[messages.Epoch] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._over = False
        self._hurry = False
        self._refused = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def add(self, epoch: messages.Epoch) -> None:
        with self._changed:
            self._waiting.append(epoch)
            self._changed.notify_all()

    def settle(self, within_s: float) -> bool:
        """Post what has been added without waiting for a batch to fill; whether all of it was answered within ``within_s``."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting, within_s)

    def finish(self, within_s: float) -> list[messages.Epoch]:
        """Post what is left, for ``within_s`` seconds; the epochs of which no answer has come, to be sent before the result."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, within_s)
            return list(self._waiting)

    def run(self) -> None:
        attempt = 0
        while batch := self._next_batch():
            if self._post(batch):
                attempt = 0
                continue
            with self._changed:
                if self._over:  # finish() hands the rest over
                    return
                self._changed.wait_for(lambda: self._over, _PAUSES.pause(attempt, random.random()))  # noqa: S311 - jitter
            attempt += 1

    def _next_batch(self) -> list[messages.Epoch]:
        """Blocks until there is something to post; empty once all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            due = time.monotonic() + EVERY_S
            full = max(due - time.monotonic(), 0.0)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._hurry or self._over, full)
            self._hurry = False
            return list(self._waiting)[:LARGEST_POST]

    def _post(self, batch: list[messages.Epoch]) -> bool:
        try:
            if not self._refused:
                self._client.post_epochs(self._lease.token, messages.Epochs(epochs=batch))
                self._contact.answered()
        except (Unreachable, ServerFault) as error:
            self._contact.failed(str(error))
            return False
        except HypevolveError as error:
            self._refused = True
            log.warning(
                "%s #%d: epochs refused (%s); only the result will be sent", self._lease.campaign, self._lease.number, error
            )
        sent = {id(epoch) for epoch in batch}
        with self._changed:
            while self._waiting and id(self._waiting[0]) in sent:
                self._waiting.popleft()
            self._changed.notify_all()
        return True
