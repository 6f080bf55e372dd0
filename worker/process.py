"""The training process of one device, seen from the supervisor: warm between candidates, replaced when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).resolve().parents[1]
_TAIL_BYTES = 6000
_TAIL_LINES = 25


class Said(NamedTuple):
    """A message of the training process."""

    process: int
    message: dict[str, Any]


class Died(NamedTuple):
    """The training process is gone. ``status`` is negative for a signal, as with subprocess."""

    process: int
    status: int


class TrainingProcess:
    """Speaks JSON lines over stdin and stdout; what trainers print goes into ``log_file``. Said and Died come by ``inbox``."""

    def __init__(self, inbox: queue.SimpleQueue[Any], log_file: Path, environment: Mapping[str, str]) -> None:
        self._inbox = inbox
        self._log_file = log_file
        self._environment = environment
        self._running: subprocess.Popen[bytes] | None = None
        self.command_group: int | None = None  # process group of a program that the training process has started

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._running.pid if self._running else 0

    def start(self) -> None:
        """Start a new process. It says "ready" when it can train."""
        self._log_file.write_bytes(b"")
        with self._log_file.open(
            "ab"
        ) as log:  # to append: `train` empties the file, and what is written then must be its start
            self._running = subprocess.Popen(
                [sys.executable, "-m", "worker.training", str(os.getpid())],
                cwd=_ROOT,  # where `worker` is found; the process then moves to the data root
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        for task in (self._listen, self._reap):
            threading.Thread(target=task, args=(self._running,), name=f"{task.__name__} {self.pid}", daemon=True).start()

    def train(self, assignment: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.truncate(self._log_file, 0)  # the log is that of the current training
        self._tell({"do": "train", **assignment})

    def examine(self, device: str, folder: Path) -> None:
        """Have it test device and disk; it says "examined" with what is wrong."""
        self._tell({"do": "examine", "token": "self-test", "device": device, "dir": str(folder)})

    def cancel(self, token: str) -> None:
        """Ask the training to stop at its next report."""
        self._tell({"do": "cancel", "token": token})

    def kill(self) -> None:
        """End the process and any program it started, at once."""
        running = self._running
        self._running = None
        if self.command_group is not None:
            _kill_group(self.command_group)
            self.command_group = None
        if running is not None:
            _kill_group(running.pid)
            running.wait()

    def tail(self) -> str:
        """The last lines that the current training printed."""
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(self._log_file.stat().st_size - _TAIL_BYTES, 0))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def _tell(self, command: Mapping[str, Any]) -> None:
        running = self._running
        if running is None or running.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # its death is in the inbox
            running.stdin.write(json.dumps(command).encode() + b"\n")
            running.stdin.flush()

    def _listen(self, running: subprocess.Popen[bytes]) -> None:
        assert running.stdout is not None
        for line in running.stdout:
            with contextlib.suppress(ValueError):  # a line cut off by death
                self._inbox.put(Said(running.pid, json.loads(line)))
        self._inbox.put(Died(running.pid, running.wait()))

    def _reap(self, running: subprocess.Popen[bytes]) -> None:
        running.wait()
        _kill_group(running.pid)  # what it forked would keep the pipe open, and its death from being noticed


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
