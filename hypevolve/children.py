"""Programs of ours as child processes: started, listened to, started again, stopped to the last one.

A child dies with us, however we die: on Linux the kernel kills it (``LAUNCHER``), and it passes that on to what it has
started itself. Everything a child was doing survives that by design: the database recovers, a worker's next start releases
what it held.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOOK_S = 0.1

# Becomes the program after it has asked the kernel for SIGKILL at the parent's death; the parent is compared afterwards because
# it may have died before. A process of its own, since a preexec_fn is unsafe beside threads.
LAUNCHER = """
import ctypes, os, sys
parent, *argv = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("the process that started this one is gone")
os.execv(argv[0], argv)
"""


class Deaths:
    """When to start a child again: at once at first, later and later while it dies young, and at some point no more.

    A worker that says itself that its node cannot work is believed the second time, however long it lived: in between it
    has passed a self-test and been refused again, and each further round would wait twice as long in quarantine.
    """

    YOUNG_S = 20.0
    MOST = 5
    MOST_OWNED_UP = 2

    def __init__(self) -> None:
        self.in_a_row = 0

    def pause(self, lived_s: float, *, owned_up: bool = False) -> float | None:
        """Seconds until the next start after a death; None where another start makes no sense.

        ``owned_up``: it ended with the exit code for "this node cannot work" (docs/WORKER.md).
        """
        self.in_a_row = self.in_a_row + 1 if lived_s < self.YOUNG_S or owned_up else 1
        most = self.MOST_OWNED_UP if owned_up else self.MOST
        return None if self.in_a_row >= most else 0.2 * 2.0 ** (self.in_a_row - 1)


class Child:
    """One program of ours as a process in a session of its own, which writes what it says to a log file."""

    def __init__(self, name: str, module: str, options: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.deaths = Deaths()
        self.started_at = 0.0
        self.restart_at: float | None = None
        self._command = [sys.executable, "-m", module, *options]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    def start(self) -> None:
        """Call it from the main thread: the kernel takes the end of the starting thread for the parent's death."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *self._command],
                cwd=ROOT,  # where our packages are found; every path among the options is absolute
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )
        self.started_at = time.monotonic()
        self.restart_at = None

    @property
    def pid(self) -> int:
        """0 before the first start."""
        return self._process.pid if self._process else 0

    def status(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def alive(self) -> bool:
        return self._process is not None and self.status() is None

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_line(self) -> str:
        """The last thing it said in this life."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - 4000))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " ".join(lines[-1].split())[:500] if lines else "(nothing)"


def stop(children: Sequence[Child], within_s: float) -> None:
    """SIGTERM, and SIGKILL for what is still there after ``within_s`` seconds."""
    for child in children:
        child.send(signal.SIGTERM)
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up and any(child.alive for child in children):
        time.sleep(LOOK_S / 4)
    for child in children:
        child.kill()
    while any(child.alive for child in children):
        time.sleep(LOOK_S / 4)


def how(status: int) -> str:
    """``SIGKILL`` or ``exit status 1``."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
