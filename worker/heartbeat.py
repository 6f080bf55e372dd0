"""Signs of life of one lease, sent from the supervisor: no busy, stopped or wedged training process can hold them up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from hypevolve import messages
from hypevolve.client import Client
from hypevolve.errors import HypevolveError, ServerFault, Unreachable
from worker.contact import Contact

log = logging.getLogger(__name__)

DEADLINE_S = 10.0


class Heartbeat(threading.Thread):
    """Beats every ``lease.beat_s``, one at a time, while used as a context. ``on_command`` hears drain and cancel.

    A beat that fails is no reason to stop a training: only the command ``cancel`` is.
    """

    def __init__(
        self, client: Client, lease: messages.Lease, contact: Contact, on_command: Callable[[messages.Command], None]
    ) -> None:
        super().__init__(name=f"heartbeat {lease.campaign} #{lease.number}", daemon=True)
        self.epoch = 0
        self.progress = 0.0
        self._client = client
        self._lease = lease
        self._contact = contact
        self._on_command = on_command
        self._over = threading.Event()
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()  # a beat in flight is not waited for; the coordinator knows what to do with a late one

    def run(self) -> None:
        every_s = max(self._lease.beat_s, 0.05)
        due = time.monotonic() + every_s
        while not self._over.wait(max(due - time.monotonic(), 0.0)):
            self._beat(min(every_s, DEADLINE_S))
            due = max(due + every_s, time.monotonic())  # beats that were due meanwhile are not made up for

    def _beat(self, deadline_s: float) -> None:
        beat = messages.Heartbeat(epoch=self.epoch, progress=min(max(self.progress, 0.0), 1.0))
        try:
            answer = self._client.heartbeat(self._lease.token, beat, deadline_s=deadline_s)
        except (Unreachable, ServerFault) as error:
            self._contact.failed(str(error))
            return
        except HypevolveError as error:
            self._note(f"heartbeat refused ({error}); the training goes on, its result will be offered")
            return
        self._contact.answered()
        if self._over.is_set():
            return
        if not answer.current and answer.command == "continue":
            self._note("another worker holds this candidate too; the training goes on, the first result counts")
        if answer.command != "continue":
            self._on_command(answer.command)

    def _note(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            log.warning("%s #%d: %s", self._lease.campaign, self._lease.number, line)
