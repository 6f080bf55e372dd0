"""Empties the outbox: every result, failure and release is repeated until the coordinator has answered it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hypevolve import messages
from hypevolve.client import Client, RetryPolicy
from hypevolve.errors import Denied, HypevolveError, ServerFault, Unreachable
from worker.contact import Contact
from worker.epochs import LARGEST_POST
from worker.spool import Parcel, Spool

log = logging.getLogger(__name__)

_PAUSES = RetryPolicy(patience_s=None)


@dataclass
class _Attempts:
    count: int = 0
    due: float = 0.0


class Sender(threading.Thread):
    """One thread for all slots. Each parcel has its own back-off, so that none waits behind another. ``client`` tries once."""

    def __init__(self, spool: Spool, client: Client, contact: Contact) -> None:
        super().__init__(name="sender", daemon=True)
        self._spool = spool
        self._client = client
        self._contact = contact
        self._attempts: dict[str, _Attempts] = {}
        self._changed = threading.Condition()
        self._woken = True

    def wake(self) -> None:
        """There is a new parcel."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def flush(self, within_s: float | None, until: Callable[[], bool] = lambda: False) -> bool:
        """Whether the outbox is empty after at most ``within_s`` seconds (None: for ever), or once ``until`` is true."""
        with self._changed:
            for attempts in list(self._attempts.values()):  # the thread itself adds to it
                attempts.due = 0.0
        self.wake()
        end = None if within_s is None else time.monotonic() + within_s
        while self._spool.outbox():
            if (end is not None and time.monotonic() >= end) or until():
                return False
            with self._changed:
                self._changed.wait(0.1)
        return True

    def run(self) -> None:
        while True:
            with self._changed:
                self._woken = False
            try:
                pause_s = self._round()
            except Exception:  # this thread is what keeps results from being lost; it outlives any surprise
                log.exception("sending failed unexpectedly; it is repeated")
                pause_s = 5.0
            with self._changed:
                self._changed.wait_for(lambda: self._woken, pause_s)

    def _round(self) -> float | None:
        """Send what is due; seconds until the next parcel is."""
        waiting = []
        for parcel in self._spool.outbox():
            attempts = self._attempts.setdefault(parcel.token, _Attempts())
            if attempts.due <= time.monotonic():
                if self._deliver(parcel):
                    del self._attempts[parcel.token]
                    with self._changed:
                        self._changed.notify_all()
                    continue
                attempts.due = time.monotonic() + _PAUSES.pause(attempts.count, random.random())  # noqa: S311 - jitter
                attempts.count += 1
            waiting.append(attempts.due)
        return max(min(waiting) - time.monotonic(), 0.0) if waiting else None

    def _deliver(self, parcel: Parcel) -> bool:
        """False where it must be repeated."""
        try:
            self._send_epochs(parcel)
            self._send(parcel)
        except (Unreachable, ServerFault, Denied) as error:  # a token that is not valid says nothing about the numbers
            self._contact.failed(str(error))
            return False
        except HypevolveError as error:
            if parcel.kind == "release":  # the lease ended some other way meanwhile, which is all that was wanted
                log.info("%s: nothing left to release (%s)", parcel, error)
                self._spool.sent(parcel)
            else:
                file = self._spool.refuse(parcel, str(error))
                log.error("%s: the coordinator refused the %s (%s); kept in %s", parcel, parcel.kind, error, file)
            return True
        self._contact.answered()
        self._spool.sent(parcel)
        return True

    def _send_epochs(self, parcel: Parcel) -> None:
        try:
            for start in range(0, len(parcel.epochs), LARGEST_POST):
                batch = messages.Epochs.model_validate({"epochs": parcel.epochs[start : start + LARGEST_POST]})
                self._client.post_epochs(parcel.token, batch)
        except (Unreachable, ServerFault, Denied):
            raise
        except HypevolveError as error:
            log.warning("%s: epochs refused (%s); the result goes on its own", parcel, error)

    def _send(self, parcel: Parcel) -> None:
        if parcel.kind == "result":
            answer = self._client.put_result(parcel.candidate, parcel.token, messages.Result.model_validate(parcel.body))
            if not answer.counts:
                log.warning("%s: the result does not count (%s)", parcel, answer.reason or "no reason given")
        elif parcel.kind == "failure":
            state = self._client.post_failure(parcel.token, messages.Failure.model_validate(parcel.body)).state
            log.info("%s: %s", parcel, "will be tried again" if state == "queued" else f"the candidate is {state}")
        else:
            self._client.release(parcel.token, str(parcel.body.get("reason", "released")))
            log.info("%s: released (%s)", parcel, parcel.body.get("reason", "released"))
