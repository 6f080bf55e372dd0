"""The worker's folder: what must survive the worker.

    lock        held while a worker lives; the kernel lets go of it however the worker dies
    leases/     one file per lease, written before its training starts
    outbox/     one file per result, failure or release that the coordinator has not answered yet
    refused/    results and failures that the coordinator refused, with its reason, for people to read
    logs/       what the current training of each device prints
    scratch/    one folder per running attempt

A lease found at start belongs to a predecessor that is dead, since we hold the lock: it goes into the outbox as a release, and
its candidate is offered again without anybody waiting for the lease to expire.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hypevolve.messages import Lease
from worker.errors import CannotWork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parcel:
    """One thing to tell the coordinator at ``url``. ``body`` is the message, ``epochs`` are those not yet sent before it."""

    kind: Literal["result", "failure", "release"]
    url: str
    campaign: str
    number: int
    candidate: int
    token: str
    body: dict[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def about(
        cls,
        kind: Literal["result", "failure", "release"],
        url: str,
        lease: Lease,
        body: dict[str, Any],
        epochs: Sequence[dict[str, Any]] = (),
    ) -> Parcel:
        return cls(kind, url, lease.campaign, lease.number, lease.candidate, lease.token, body, list(epochs))

    def __str__(self) -> str:
        return f"{self.campaign} #{self.number}"


class Spool:
    """The folder of one worker on one coordinator."""

    def __init__(self, folder: Path, url: str) -> None:
        """Takes the lock and turns a dead predecessor's leases into releases.

        Raises:
            CannotWork: another worker uses the folder, or it cannot be written.
        """
        self.folder = folder
        self.url = url
        self._unsaved: dict[str, Parcel] = {}  # while the disk is full: nothing is lost as long as this worker lives
        try:
            for name in ("leases", "outbox", "refused", "logs"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
        except OSError as error:
            raise CannotWork(f"cannot write in {folder}: {error.strerror}; give another --folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            remedy = "give this one its own --name or --folder"
            raise CannotWork(f"another worker is using the folder {folder}; {remedy}", exit_code=4) from error
        except OSError as error:  # file systems without locks
            self._lock.close()
            raise CannotWork(f"cannot lock {folder}: {error.strerror}; give a --folder on a local disk") from error
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        self._release_abandoned()

    def close(self) -> None:
        self._lock.close()

    def hold(self, lease: Lease) -> None:
        """Write down a lease. Raises OSError."""
        release = Parcel.about("release", self.url, lease, {"reason": "worker_restarted"})
        _write(self._file("leases", lease.token), asdict(release))

    def drop(self, token: str) -> None:
        """Forget a lease about which nothing is to be said."""
        self._file("leases", token).unlink(missing_ok=True)

    def put(self, parcel: Parcel) -> None:
        """Write down how a lease ended; from then on it will be told, whatever happens to this process."""
        try:
            _write(self._file("outbox", parcel.token), asdict(parcel))
        except OSError as error:
            log.error("%s: cannot write to %s (%s); kept in memory and sent from there", parcel, self.folder, error.strerror)
            self._unsaved[parcel.token] = parcel
        self.drop(parcel.token)

    def outbox(self) -> list[Parcel]:
        """What is still to be told to this coordinator, the oldest first."""
        return [parcel for parcel in self._read("outbox") if parcel.url == self.url] + list(self._unsaved.values())

    def foreign(self) -> list[Parcel]:
        """What waits for other coordinators: kept, never sent to this one."""
        return [parcel for parcel in self._read("outbox") if parcel.url != self.url]

    def sent(self, parcel: Parcel) -> None:
        self._unsaved.pop(parcel.token, None)
        self._file("outbox", parcel.token).unlink(missing_ok=True)

    def refuse(self, parcel: Parcel, reason: str) -> Path:
        """Keep what the coordinator refused, for people to read."""
        file = self._file("refused", parcel.token)
        with contextlib.suppress(OSError):
            _write(file, {**asdict(parcel), "refused": reason})
        self.sent(parcel)
        return file

    def scratch(self, token: str) -> Path:
        """A new empty folder for one attempt."""
        folder = self.folder / "scratch" / _name(token)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def log_file(self, device: str) -> Path:
        return self.folder / "logs" / f"{device}.log"

    def _file(self, kind: str, token: str) -> Path:
        return self.folder / kind / f"{_name(token)}.json"

    def _release_abandoned(self) -> None:
        for parcel in self._read("leases"):
            if self._file("outbox", parcel.token).exists():  # killed between the two writes of put()
                self.drop(parcel.token)
            else:
                self.put(parcel)

    def _read(self, kind: str) -> list[Parcel]:
        found = []
        for file in (self.folder / kind).glob("*.json"):
            try:
                found.append((file.stat().st_mtime_ns, Parcel(**json.loads(file.read_text()))))
            except FileNotFoundError:
                continue  # sent just now
            except (OSError, ValueError, TypeError) as error:
                log.error("%s cannot be read (%s); moved to refused/", file, error)
                with contextlib.suppress(OSError):
                    file.replace(self.folder / "refused" / file.name)
        return [parcel for _, parcel in sorted(found, key=lambda pair: pair[0])]


def _name(token: str) -> str:
    """Tokens come over the network; none may name a file outside the folder."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda letter: f"%{ord(letter[0]):x}", token)


def _write(file: Path, content: dict[str, Any]) -> None:
    """All or nothing, and on the disk before this returns."""
    draft = file.with_suffix(".draft")
    with draft.open("w") as stream:
        json.dump(content, stream, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
