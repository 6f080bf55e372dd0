"""Checkpoints of one lease on their way: fetched before its training starts, sent to the artifact store while it runs.

What a training has reported on this disk is only a copy: the candidate goes on from the store, on whatever node is next. A
checkpoint that cannot be sent or fetched costs time, never a result.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

from hypevolve import messages
from hypevolve.client import Client, RetryPolicy
from hypevolve.errors import HypevolveError, ServerFault, Unreachable
from worker.contact import Contact
from worker.epochs import EpochRelay

log = logging.getLogger(__name__)

LEAST_S = 30.0  # between two uploads; an epoch of a second is no reason to send megabytes each second
EPOCHS_S = 10.0  # for the epochs before a checkpoint to be answered; it is tried again later where they are not
FETCH_S = 600.0  # for a checkpoint to arrive; the candidate starts anew where the store is slower
_PAUSES = RetryPolicy(patience_s=None, first_s=2.0)


class Written(NamedTuple):
    """A checkpoint that the training says it has written, after ``epoch`` epochs."""

    path: Path
    epoch: int


def fetch(client: Client, lease: messages.Lease, path: Path, stopping: threading.Event) -> bool:
    """Bring the lease's checkpoint to ``path``, whole or not at all; False where the training must start from the beginning."""
    if lease.checkpoint is None:
        return False
    name = f"{lease.campaign} #{lease.number}"
    end, attempt = time.monotonic() + FETCH_S, 0
    while not stopping.is_set():
        try:
            client.get_checkpoint(lease.candidate, lease.checkpoint.sha256, path)
            log.info("%s: goes on from its checkpoint, epoch %d", name, lease.checkpoint.epoch)
            return True
        except (Unreachable, ServerFault) as error:
            if time.monotonic() > end:
                log.warning("%s: no checkpoint (%s); starts from the beginning", name, error)
                return False
        except (HypevolveError, OSError) as error:
            log.warning("%s: no checkpoint (%s); starts from the beginning", name, error)
            return False
        stopping.wait(_PAUSES.pause(attempt, 1.0))
        attempt += 1
    return False


class CheckpointRelay(threading.Thread):
    """Sends what ``add`` announces, the newest only, from a thread of its own while used as a context.

    The epochs before a checkpoint go first: whoever goes on from it will not train, and so not report, them again.
    """

    def __init__(self, client: Client, lease: messages.Lease, contact: Contact, epochs: EpochRelay) -> None:
        super().__init__(name=f"checkpoints {lease.campaign} #{lease.number}", daemon=True)
        self._client = client
        self._lease = lease
        self._contact = contact
        self._epochs = epochs
        self._every_s = min(LEAST_S, lease.checkpoint_s)
        self._newest: Written | None = None  # not sent yet
        self._refused = False
        self._over = False
        self._sending = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._over = True
            self._newest = None
            self._changed.notify_all()

    def add(self, written: Written) -> None:
        with self._changed:
            self._newest = written
            self._changed.notify_all()

    def finish(self, within_s: float) -> None:
        """Send the newest at once, for ``within_s`` seconds at most: the lease is about to be handed back."""
        with self._changed:
            self._every_s = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._refused or (self._newest is None and not self._sending), within_s)

    def run(self) -> None:
        due, failures = time.monotonic(), 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._over)
                while (left := due - time.monotonic()) > 0 and self._every_s and not self._over:
                    self._changed.wait(left)
                if self._over or self._refused:
                    return
                written, self._newest, self._sending = self._newest, None, True
            sent = written is None or self._send(written)
            with self._changed:
                self._sending = False
                if not sent and self._newest is None:
                    self._newest = written
                self._changed.notify_all()
            failures = 0 if sent else failures + 1
            due = time.monotonic() + (self._every_s if sent else max(_PAUSES.pause(failures, 1.0), self._every_s))
            if not sent and not self._every_s:
                time.sleep(0.2)  # handing back: tried again until the time for it is over

    def _send(self, written: Written) -> bool:
        """Whether there is nothing left to do about it."""
        name = f"{self._lease.campaign} #{self._lease.number}"
        if not self._epochs.settle(EPOCHS_S):
            return False
        try:
            self._client.put_checkpoint(self._lease.token, written.path, written.epoch)
            self._contact.answered()
        except FileNotFoundError:  # a newer one has taken its place
            return True
        except (Unreachable, ServerFault) as error:
            self._contact.failed(str(error))
            return False
        except (HypevolveError, OSError) as error:
            log.warning("%s: checkpoint not stored (%s); the training goes on without", name, error)
            self._refused = True
        return True
