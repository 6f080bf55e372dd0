"""One device's lease loop: ask, train, tell how it ended, ask again."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from hypevolve import messages
from hypevolve.client import Client
from hypevolve.errors import HypevolveError, ServerFault, Unreachable
from hypevolve.hashes import hyp_hash
from worker.checkpoints import CheckpointRelay, Written, fetch
from worker.contact import Contact
from worker.death import ending
from worker.devices import Device
from worker.epochs import EpochRelay
from worker.errors import CannotWork
from worker.gate import Gate
from worker.heartbeat import Heartbeat
from worker.process import Died, Said, TrainingProcess
from worker.quarantine import Quarantine
from worker.sender import Sender
from worker.spool import Spool
from worker.teller import Teller

LONG_POLL_S = 20.0
CANCEL_GRACE_S = 5.0  # from asking a training to stop to killing its process
START_S = 120.0
LAST_EPOCHS_S = 2.0
LAST_CHECKPOINT_S = 8.0  # when a candidate is handed back; more would be lost if the node went meanwhile


_ASSIGNED = {"token", "hyp", "hyp_hash", "data_hash", "base", "trainer", "weights", "seed", "epochs", "checkpoint_s"}


class _Ears(NamedTuple):
    """Who is told what a training says."""

    beat: Heartbeat
    epochs: EpochRelay
    checkpoints: CheckpointRelay


class _Stop:
    """In a slot's inbox: hand the candidate back."""


@dataclass(frozen=True)
class Desk:
    """What the slots of a worker share. ``asking`` repeats for ever, until the gate closes; ``telling`` tries once."""

    worker: UUID
    name: str
    campaigns: list[str] | None
    data_root: Path
    stall_s: float | None
    asking: Client
    telling: Client
    contact: Contact
    spool: Spool
    sender: Sender
    gate: Gate
    quarantine: Quarantine


class Slot(threading.Thread):
    """``trouble`` is set where the whole worker cannot go on; ``busy`` while there is something to hand back or to tell."""

    def __init__(self, device: Device, desk: Desk, environment: dict[str, str], ended: queue.SimpleQueue[Any]) -> None:
        super().__init__(name=device.label, daemon=True)
        self.trouble: CannotWork | None = None
        self.busy = False
        self._device = device
        self._desk = desk
        self._ended = ended
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process = TrainingProcess(self._inbox, desk.spool.log_file(device.label), environment)
        self._stopping = threading.Event()
        self._log = logging.getLogger(f"worker.{device.label}")
        self._title = f"{desk.name}/{device.label}"
        self._teller = Teller(desk.spool, desk.sender, self._title, self._log)

    def stop(self) -> None:
        """Hand the candidate back and end."""
        self._stopping.set()
        self._inbox.put(_Stop())

    def kill(self) -> None:
        self._process.kill()

    def run(self) -> None:
        try:
            while not self._stopping.is_set() and self._desk.gate.enter():
                self._round()
        except CannotWork as trouble:
            self.trouble = trouble
        except HypevolveError as error:
            self.trouble = CannotWork(str(error), error.exit_code)
        except Exception as error:
            self._log.exception("%s: unexpected", self._title)
            self.trouble = CannotWork(f"{self._title}: {type(error).__name__}: {error}")
        finally:
            self.busy = False
            self._process.kill()
            self._ended.put(self)

    # ---- asking --------------------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        desk = self._desk
        self._ensure_process()  # a node that cannot train must not ask
        lease = self._ask()
        if lease is None:
            desk.gate.nothing()
            return
        self.busy = True
        desk.gate.begin()
        try:
            self._hold(lease)
        finally:
            desk.gate.end()
            self.busy = False

    def _ask(self) -> messages.Lease | None:
        desk = self._desk
        request = messages.Ask(
            request_id=uuid4(), worker=desk.worker, devices=self._device.name.split("+"), campaigns=desk.campaigns, n=1
        )
        pause = 0
        told: list[tuple[messages.AskCommand, str, float]] = []

        def heed(command: messages.AskCommand, reason: str, seconds: float) -> None:
            told.append((command, reason, seconds))

        while not desk.gate.closed.is_set():
            try:
                asked_at = time.monotonic()
                wait_s = desk.gate.wait_s(LONG_POLL_S)
                leases = desk.asking.ask(request, wait_s=wait_s, heed=heed)
                desk.contact.answered()
                if told:
                    self._heed_ask(*told[-1], asked_at)
                return leases[0] if leases else None
            except Unreachable:
                break  # the gate has closed: nothing else ends its patience
            except ServerFault as error:
                desk.contact.failed(str(error))
                pause = min(pause + 1, 30)
                desk.gate.closed.wait(pause)
        return None

    def _heed_ask(self, command: messages.AskCommand, reason: str, wait_s: float, asked_at: float) -> None:
        """The coordinator wants something else than to give work."""
        if command == "drain":
            self._log.info("%s: ends (%s)", self._title, reason)
            self._desk.gate.close()
        else:
            self._desk.quarantine.serve(self._title, asked_at, reason, wait_s, self._examine)

    def _examine(self) -> str:
        """What is wrong with this node, as a new training process finds; empty where nothing is."""
        self._process.kill()
        self._ensure_process()
        folder = self._desk.spool.scratch("self-test")
        self._process.examine(self._device.name, folder)
        end = time.monotonic() + START_S
        try:
            while (left := end - time.monotonic()) > 0 and not self._stopping.is_set():
                try:
                    item = self._inbox.get(timeout=left)
                except queue.Empty:
                    break
                if isinstance(item, Said) and item.message["say"] == "examined":
                    return str(item.message["fault"])
                if isinstance(item, Died) and item.process == self._process.pid:
                    self._process.kill()
                    return f"the training process died ({item.status}) {self._process.tail()[-500:]}".strip()
            return f"no answer from the training process within {START_S:g} s"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ensure_process(self) -> None:
        """Raises CannotWork where the training process does not start."""
        if self._process.pid:
            return
        self._process.start()
        end = time.monotonic() + START_S
        while (left := end - time.monotonic()) > 0 and not self._stopping.is_set():
            try:
                item = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, Said) and item.process == self._process.pid and item.message["say"] == "ready":
                return
            if isinstance(item, Died) and item.process == self._process.pid:
                break
        if not self._stopping.is_set():
            raise CannotWork(f"{self._title}: the training process does not start\n{self._process.tail()}".strip())

    # ---- a lease -------------------------------------------------------------------------------------------------------------

    def _hold(self, lease: messages.Lease) -> None:
        desk = self._desk
        try:
            desk.spool.hold(lease)
        except OSError as error:
            self._teller.release(lease, "disk")
            raise CannotWork(f"cannot write in {desk.spool.folder}: {error.strerror}") from error
        if self._stopping.is_set():
            self._teller.release(lease, "sigterm")
            return
        self._log.info("%s: leased %s #%d (attempt %s)", self._title, lease.campaign, lease.number, lease.token[:8])
        if hyp_hash(lease.hyp) != lease.hyp_hash:
            self._teller.fail(lease, "data", "the leased hyp set does not have the leased hyp_hash; was it changed on its way?")
            return
        scratch = desk.spool.scratch(lease.token)
        try:
            with (
                EpochRelay(desk.telling, lease, desk.contact) as epochs,
                CheckpointRelay(desk.telling, lease, desk.contact, epochs) as checkpoints,
                Heartbeat(desk.telling, lease, desk.contact, self._obey) as beat,
            ):
                fetch(desk.telling, lease, scratch / "checkpoint", self._stopping)
                self._process.train(self._assignment(lease, scratch))
                end = self._follow(lease, _Ears(beat, epochs, checkpoints))
                left = epochs.finish(LAST_EPOCHS_S) if end["say"] in ("done", "failed") else []
                if end["say"] in ("stopped", "interrupted") and not desk.contact.silent:
                    checkpoints.finish(LAST_CHECKPOINT_S)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._teller.conclude(lease, end, [epoch.model_dump() for epoch in left])
        if end.get("kind") == "oom":
            self._process.kill()  # a new process has all its memory back

    def _assignment(self, lease: messages.Lease, scratch: Path) -> dict[str, Any]:
        return {
            **lease.model_dump(include=_ASSIGNED),
            "device": self._device.name,
            "data_root": str(self._desk.data_root),
            "dir": str(scratch),
            "name": f"{lease.campaign}-{lease.number}",
        }

    def _obey(self, command: messages.Command) -> None:
        """From the heartbeat."""
        if command == "drain":
            if not self._desk.gate.closed.is_set():
                self._log.info("%s: the coordinator asks to drain; this training is the last", self._title)
            self._desk.gate.close()
        else:
            self._inbox.put(command)

    def _follow(self, lease: messages.Lease, ears: _Ears) -> dict[str, Any]:
        """Listen to the training until it ends; its last message, or one in its place."""
        wanted_end: dict[str, Any] | None = None  # what the end means once it was we who stopped it
        kill_at: float | None = None
        heard_at = time.monotonic()
        while True:
            stall_at = None if self._desk.stall_s is None or wanted_end else heard_at + self._desk.stall_s
            due = kill_at if kill_at is not None else stall_at
            try:
                item = self._inbox.get(timeout=None if due is None else max(due - time.monotonic(), 0.0))
            except queue.Empty:
                self._process.kill()
                return wanted_end or {
                    "say": "failed",
                    "kind": "timeout",
                    "detail": f"the training reported nothing for {self._desk.stall_s:g} s\n{self._process.tail()}",
                }
            if isinstance(item, _Stop) or item == "cancel":
                if wanted_end is None:
                    kill_at = time.monotonic() + CANCEL_GRACE_S
                    self._process.cancel(lease.token)
                    wanted_end = {"say": "stopped"} if isinstance(item, _Stop) else {"say": "cancelled"}
            elif isinstance(item, Died) and item.process == self._process.pid:
                tail = self._process.tail()
                self._process.kill()
                return wanted_end or ending(item.status, "the training process", tail)
            elif isinstance(item, Said) and item.process == self._process.pid and item.message.get("token") == lease.token:
                heard_at = time.monotonic()
                end = self._heed(item.message, ears)
                if end is not None:
                    return end if wanted_end is None or end["say"] == "done" else wanted_end

    def _heed(self, said: dict[str, Any], ears: _Ears) -> dict[str, Any] | None:
        """Take in one message of the training; returned where it is the last."""
        if said["say"] == "progress":
            ears.beat.progress = said["fraction"]
        elif said["say"] == "epoch":
            ears.beat.epoch = max(ears.beat.epoch, said["epoch"])
            ears.epochs.add(messages.Epoch(epoch=max(said["epoch"], 0), metrics=said["metrics"]))
        elif said["say"] == "checkpoint":
            ears.checkpoints.add(Written(Path(said["path"]), said["epoch"]))
        elif said["say"] == "group":
            self._process.command_group = said["group"]
        else:
            return said
        return None
