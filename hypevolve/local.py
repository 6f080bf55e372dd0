"""The coordinator and the workers of one folder on this machine: their ports, devices, environments and lifetimes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hypevolve.children import LOOK_S, Child, how, stop
from hypevolve.console import CommandFailed
from hypevolve.credentials import VARIABLE

HOST = "127.0.0.1"
FIRST_PORT = 8080
PORTS_TRIED = 100
USAGE = 2  # the coordinator's exit code where its port is taken
CANNOT_WORK = 1  # a worker's, where its node lacks what a training needs (docs/WORKER.md)
ANNOUNCED_S = 180.0  # a database may have much to recover
DRAIN_S = 25.0
STOP_S = 30.0


class Household:
    """The coordinator and the workers in one folder. Leaving the context stops all of them, the coordinator last."""

    def __init__(self, folder: Path, environment: Mapping[str, str], asked_to_stop: Callable[[], bool]) -> None:
        self.folder = folder
        self.coordinator: Child | None = None
        self.workers: list[Child] = []
        self._environment = _direct(environment)
        self._asked_to_stop = asked_to_stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop_workers()
        if self.coordinator is not None:
            stop([self.coordinator], STOP_S)

    def start_coordinator(self, port: int | None, database_url: str | None, pg_bin: str | None) -> str | None:
        """The address of a coordinator that answers; None where one was asked to stop before it did.

        Without ``port`` it is the one of the last time where that is free, so that workers find the coordinator to which they
        owe results, else the first free one.

        Raises:
            CommandFailed: it cannot be started; quotes its own reason.
        """
        announce = self.folder / "coordinator.json"
        first = port or _remembered(announce) or FIRST_PORT
        options = ["--host", HOST, "--folder", str(self.folder / "database"), "--announce", str(announce)]
        options += ["--pg-bin", os.path.abspath(pg_bin)] if pg_bin else []
        # In the environment rather than among the options, which everybody on the machine can read: it may hold a password.
        environment = {**self._environment, **({"HYPEVOLVE_DATABASE_URL": database_url} if database_url else {})}
        environment.pop(VARIABLE, None)  # the coordinator presents none
        for candidate in [port] if port else free_ports(first):
            log = self.folder / "logs" / "coordinator.log"
            child = Child("the coordinator", "server", [*options, "--port", str(candidate)], log, environment)
            self.coordinator = child
            child.start()
            url = self._announced(child, announce)
            if url is not None or child.status() is None:
                return url
            if child.status() != USAGE or port:
                raise CommandFailed(
                    f"the coordinator cannot start: {child.last_line()} ({child.log})", 2 if child.status() == USAGE else 1
                )
        raise CommandFailed(f"no free port from {first} on; name one with --port", 2)

    def _announced(self, child: Child, announce: Path) -> str | None:
        give_up = time.monotonic() + ANNOUNCED_S
        while child.alive and not self._asked_to_stop():
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(announce.read_text())
                if told["pid"] == child.pid:
                    return str(told["url"])
            if time.monotonic() > give_up:
                raise CommandFailed(
                    f"the coordinator has not answered for {ANNOUNCED_S:g} s: {child.last_line()} ({child.log})"
                )
            time.sleep(LOOK_S / 2)
        return None

    def start_workers(
        self, url: str, devices: Sequence[str], campaigns: Sequence[str], data_root: Path, token: str | None = None
    ) -> None:
        """One worker for each of ``devices``, which may each be a list such as ``cuda:0,cuda:1``; no campaign means any."""
        environment = {name: value for name, value in self._environment.items() if name != "HYPEVOLVE_DATABASE_URL"}
        environment |= {VARIABLE: token} if token else {}
        for index, device in enumerate(devices, 1):
            name = f"worker-{index}"
            options = [url, "--name", name, "--folder", str(self.folder / "workers" / name), "--devices", device]
            options += ["--data-root", str(data_root), *(part for campaign in campaigns for part in ("--campaign", campaign))]
            worker = Child(name, "worker", options, self.folder / "logs" / f"{name}.log", environment)
            self.workers.append(worker)
            worker.start()

    def tend(self) -> list[str]:
        """Start again what has died; what happened, in words.

        Raises:
            CommandFailed: a child keeps dying; quotes its last words.
        """
        news = []
        for child in [*([self.coordinator] if self.coordinator else []), *self.workers]:
            status = child.status()
            if status is None:
                continue
            if child.restart_at is None:
                owned_up = status == CANNOT_WORK and child in self.workers
                pause = child.deaths.pause(time.monotonic() - child.started_at, owned_up=owned_up)
                if pause is None:
                    last = f"the last line of {child.log}: {child.last_line()}"
                    raise CommandFailed(f"{child.name} ended {child.deaths.in_a_row} times in a row ({how(status)}); {last}")
                child.restart_at = time.monotonic() + pause
                news.append(f"{child.name} ended ({how(status)}) and is started again")
            elif time.monotonic() >= child.restart_at:
                child.start()
        return news

    def stop_workers(self) -> None:
        """Let them hand back what they train, and end."""
        stop(self.workers, DRAIN_S)

    def kill(self) -> None:
        """At once. PostgreSQL ends by itself when the coordinator is gone."""
        for child in [*self.workers, *([self.coordinator] if self.coordinator else [])]:
            child.kill()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Marks the folder as ours. The kernel lets go of the lock however its holder dies.

    Raises:
        CommandFailed: another run holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "run.lock").open("a+")
    except OSError as error:
        raise CommandFailed(f"cannot write in {folder}: {error.strerror}; give another --folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise CommandFailed(
                f"{folder} is in use by another hypevolve run (pid {holder}); stop it or give another --folder", 4
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def free_ports(first: int) -> Iterator[int]:
    """Ports from ``first`` on that nobody listens on now."""
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                probe.listen()
            except OSError:
                continue
        yield port


def _remembered(announce: Path) -> int | None:
    try:
        return int(str(json.loads(announce.read_text())["url"]).rsplit(":", 1)[1])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _direct(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of children, in which no proxy stands between us."""
    own = f"{HOST},localhost"
    past = {name: ",".join(filter(None, (environment.get(name), own))) for name in ("NO_PROXY", "no_proxy")}
    return {**environment, **past}


def share_devices(devices: Sequence[str], workers: int | None) -> list[str]:
    """What each worker gets: one device each, or, with fewer workers than devices, several; with more, some twice.

    Raises:
        ValueError: no worker.
    """
    count = len(devices) if workers is None else workers
    if count < 1:
        raise ValueError("at least one worker is needed")
    if count >= len(devices):
        return [devices[index % len(devices)] for index in range(count)]
    return [",".join(devices[index::count]) for index in range(count)]
