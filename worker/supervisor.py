"""The worker as a whole: its folder, its introduction, one slot per device, and an orderly end."""

from __future__ import annotations

import contextlib
import logging
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import UUID

from hypevolve import __version__, messages
from hypevolve.client import FOREVER, ONCE, Client
from hypevolve.errors import HypevolveError, Unreachable
from worker.contact import Contact
from worker.devices import Device, environment_for, memory_gb, missing_for_detector
from worker.errors import CannotWork
from worker.gate import Gate
from worker.quarantine import Quarantine
from worker.sender import Sender
from worker.slot import CANCEL_GRACE_S, Desk, Slot
from worker.spool import Spool

log = logging.getLogger(__name__)

TELLING_TIMEOUT_S = 10.0
SETTLE_S = 0.3  # for an answer to an ask that is just being read
NAMED = 10  # campaigns in a line of the log
LOOK_S = 0.2  # how often a limit on idle time is looked at while the coordinator is silent
LAST_WORDS_S = 10.0  # after the trainings have stopped; what is not told by then is told by the next start


@dataclass(frozen=True)
class Settings:
    """What a worker is told at start. ``worker`` is new at every start; ``environment`` is what training processes inherit."""

    url: str
    name: str
    folder: Path
    devices: Sequence[Device]
    worker: UUID
    host: str
    data_root: Path
    token: str | None = field(default=None, repr=False)
    campaigns: Sequence[str] = ()
    labels: Sequence[str] = ()
    most: int | None = None
    until_idle_s: float | None = None
    stall_s: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Supervisor:
    """Runs a worker. ``request_stop`` and ``kill`` may be called from a signal handler."""

    def __init__(self, settings: Settings, connect: Callable[..., Client] = Client) -> None:
        """Takes the folder.

        Raises:
            CannotWork: the folder is in use or cannot be written.
            Invalid: the URL is none.
        """
        self._settings = settings
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()  # reentrant, unlike queue.Queue
        self._stop_requested = False
        self._gate = Gate(settings.most, settings.until_idle_s)
        self._contact = Contact(settings.folder)
        self._asking = connect(
            settings.url,
            token=settings.token,
            retry=FOREVER,
            stop=self._gate.closed,
            waiting=self._contact.failed,
            timeout_s=TELLING_TIMEOUT_S,
        )
        self._telling = connect(settings.url, token=settings.token, retry=ONCE, timeout_s=TELLING_TIMEOUT_S)
        self._spool = Spool(settings.folder, self._telling.url)
        self._sender = Sender(self._spool, self._telling, self._contact)
        desk = Desk(
            worker=settings.worker,
            name=settings.name,
            campaigns=list(settings.campaigns) or None,
            data_root=settings.data_root,
            stall_s=settings.stall_s,
            asking=self._asking,
            telling=self._telling,
            contact=self._contact,
            spool=self._spool,
            sender=self._sender,
            gate=self._gate,
            quarantine=Quarantine(self._gate, lambda test: self._asking.register(self._introduction(test))),
        )
        self._slots = [
            Slot(device, desk, environment_for(device, settings.environment), self._news) for device in settings.devices
        ]

    def request_stop(self) -> None:
        """Hand everything back and end. Takes no lock that the main thread could hold."""
        self._stop_requested = True
        self._news.put("stop")

    def kill(self) -> None:
        """End every training process at once."""
        for slot in self._slots:
            slot.kill()

    def run(self) -> None:
        """Work until the gate closes or a stop is requested.

        Raises:
            CannotWork: the worker cannot go on; what it found is spooled and, where possible, sent.
        """
        self._self_test()
        self._sender.start()
        threading.Thread(target=self._register, name="register", daemon=True).start()
        trouble = self._wait()
        try:
            if self._stop_requested:
                self._hand_back()
            limit_s = self._patience_s(in_haste=trouble is not None or self._stop_requested)
            if not self._sender.flush(limit_s, until=lambda: limit_s is None and self._stop_requested):
                waiting = len(self._spool.outbox())
                log.warning("%d messages wait in %s for the next start", waiting, self._settings.folder)
        finally:
            self.kill()
            self._spool.close()
        if trouble is not None and not self._stop_requested:
            raise trouble
        log.info("%s: ended", self._settings.name)

    def _patience_s(self, in_haste: bool) -> float | None:
        """How long the end may wait for what is not told yet."""
        if in_haste:
            return LAST_WORDS_S
        return None if self._settings.until_idle_s is None else self._settings.until_idle_s + LAST_WORDS_S

    def _self_test(self) -> None:
        missing = missing_for_detector()
        if missing:
            packages = ", ".join(missing)
            log.warning("no built-in detector here; install %s for campaigns with trainer detector", packages)
        waiting, foreign = self._spool.outbox(), self._spool.foreign()
        if waiting:
            log.info("%d messages of an earlier run wait in %s and are sent first", len(waiting), self._settings.folder)
        if foreign:
            urls = ", ".join(sorted({parcel.url for parcel in foreign}))
            log.warning("%d messages in %s wait for a worker at %s", len(foreign), self._settings.folder, urls)

    def _register(self) -> None:
        """In a thread of its own, so that a stop is heard while the coordinator is silent."""
        settings = self._settings
        try:
            answer = self._asking.register(self._introduction())
        except Unreachable:
            # Stopped, or idle for too long, before the coordinator answered.
            within = f"{settings.until_idle_s or 0:g} s (--until-idle)"
            remedy = "is it running, and is the URL right?"
            self._news.put(CannotWork(f"no answer from {self._telling.url} within {within}; {remedy}", Unreachable.exit_code))
            return
        except HypevolveError as error:
            self._news.put(CannotWork(str(error), error.exit_code))
            return
        self._contact.answered()
        if not messages.OLDEST_PROTOCOL <= answer.protocol <= messages.PROTOCOL:
            ours = f"this worker {messages.OLDEST_PROTOCOL} to {messages.PROTOCOL}"
            theirs = f"the coordinator (version {answer.version}) speaks protocol {answer.protocol}, {ours}"
            self._news.put(CannotWork(f"{theirs}; upgrade the coordinator first, then its workers", exit_code=4))
            return
        self._news.put("registered")
        self._look_for_campaigns()

    def _introduction(self, self_test: messages.SelfTest | None = None) -> messages.RegisterWorker:
        settings = self._settings
        devices = [name for device in settings.devices for name in device.name.split("+")]
        return messages.RegisterWorker(
            worker=settings.worker,
            name=settings.name,
            host=settings.host,
            devices=devices,
            versions=_versions(),
            labels=list(settings.labels),
            memory_gb=memory_gb(devices),
            self_test=self_test,
        )

    def _look_for_campaigns(self) -> None:
        """A misspelt --campaign must not look like a coordinator without work."""
        if not self._settings.campaigns:
            return
        try:
            known = [campaign.name for campaign in self._telling.campaigns()]
        except HypevolveError:
            return  # only a remark is lost
        unknown = [name for name in self._settings.campaigns if name not in known]
        if unknown:
            named = ", ".join(known[:NAMED]) + (", .." if len(known) > NAMED else "") if known else "none"
            wanted = ", ".join(unknown)
            log.warning("no campaign %s at %s; it has %s; waiting for it to be created", wanted, self._telling.url, named)

    def _wait(self) -> CannotWork | None:
        """Until every slot has ended or a stop is requested; what went wrong."""
        trouble: CannotWork | None = None
        left = len(self._slots)
        while left and not self._stop_requested:
            news = self._next()
            if news == "registered":
                devices = ", ".join(slot.name for slot in self._slots)
                log.info("%s: at %s with %s", self._settings.name, self._telling.url, devices)
                for slot in self._slots:
                    slot.start()
            elif isinstance(news, CannotWork):
                return news
            elif isinstance(news, Slot):
                left -= 1
                if news.trouble is not None:
                    trouble = trouble or news.trouble
                    self._gate.close()  # the other slots finish what they hold
        return trouble

    def _next(self) -> Any:
        """The next piece of news. While the coordinator is silent nobody else ends a worker that has a limit on idle time."""
        while True:
            try:
                return self._news.get(timeout=None if self._settings.until_idle_s is None else LOOK_S)
            except queue.Empty:
                if self._contact.silent:
                    self._gate.unanswered()

    def _hand_back(self) -> None:
        log.info("%s: stopping; what is training is handed back", self._settings.name)
        self._gate.close()
        for slot in self._slots:
            slot.stop()
        now = time.monotonic()
        settled, latest = now + SETTLE_S, now + CANCEL_GRACE_S + 3.0
        # An ask in flight is not waited for: it may take as long as the long poll, and the coordinator sees us hang up.
        while time.monotonic() < latest and any(slot.is_alive() for slot in self._slots):
            if time.monotonic() > settled and not any(slot.busy for slot in self._slots):
                break
            time.sleep(0.02)


def _versions() -> dict[str, str]:
    versions = {"hypevolve": __version__, "python": platform.python_version(), "platform": sys.platform}
    for package in ("torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
