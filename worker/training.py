"""The training process: ``python -m worker.training SUPERVISOR_PID``, started by the supervisor, one per device.

Reads one JSON command per line from stdin, answers with JSON lines on stdout, and stays warm: interpreter, imports and whatever
a trainer keeps in memory serve the next candidate. What trainers print goes to stderr, which is the device's log file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from worker import self_test
from worker.blame import one_line
from worker.context import Context, Say, final_metrics
from worker.errors import Cancelled, Interrupted, NotInstalled, TrainingFailed
from worker.parent import die_with_parent

_DETAIL = 7900  # characters; the protocol takes 8000
_TRACEBACK_LINES = 20


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    faulthandler.enable()
    for ending in (signal.SIGINT, signal.SIGTERM):
        # Ended by the supervisor alone. A handler, not SIG_IGN: programs started from here must not inherit deafness.
        signal.signal(ending, lambda *_: None)
    desk = _Desk()
    desk.say({"say": "ready"})
    while True:
        assignment = desk.next()
        if assignment["do"] == "examine":
            found = self_test.fault(assignment["device"], Path(assignment["dir"]))
            desk.say({"say": "examined", "fault": found, "token": assignment["token"]})
            continue
        desk.say({**run(assignment, desk.say, desk.cancelled), "token": assignment["token"]})


def run(assignment: Mapping[str, Any], say: Say, cancelled: threading.Event) -> dict[str, Any]:
    """Train once and say how it ended: done, failed, cancelled, interrupted or not_installed. Raises nothing.

    An assignment with a ``rank`` is a part of what another process leads (``worker.crew``); it ends without metrics.
    """
    began = time.monotonic()
    scratch = Path(assignment["dir"])
    devices = assignment["device"].split("+")
    context = Context(
        hyp=dict(assignment["hyp"]),
        epochs=assignment["epochs"],
        device=devices[0],
        devices=devices,
        seed=assignment["seed"],
        dir=scratch,
        base=dict(assignment["base"]),
        data_root=Path(assignment["data_root"]),
        name=assignment["name"],
        say=say,
        cancelled=cancelled.is_set,
        checkpoint_s=assignment["checkpoint_s"],
        data_hash=assignment["data_hash"],
    )
    try:
        if "rank" in assignment:
            from worker import builtin

            builtin.join(context, assignment["rank"], assignment["size"], Path(assignment["place"]))
            return {"say": "done"}
        return _train(assignment, context, began)
    except Cancelled:
        return {"say": "cancelled"}
    except Interrupted as end:
        return {"say": "interrupted", "detail": str(end)}
    except NotInstalled as end:
        return {"say": "not_installed", "detail": str(end), "reason": end.reason}
    except TrainingFailed as failure:
        return _failed(failure.kind, str(failure))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        lines = [*traceback.format_exc().strip().splitlines()[-_TRACEBACK_LINES:-1], one_line(error, context.data_root)]
        return _failed("oom" if _out_of_memory(error) else "crash", "\n".join(lines))
    finally:
        with contextlib.suppress(OSError):
            os.chdir(context.data_root)  # a trainer may have moved
        context.look_for_checkpoint()  # written on the way out


def _train(assignment: Mapping[str, Any], context: Context, began: float) -> dict[str, Any]:
    from evolution.fitness import fitness
    from hypevolve.hashes import hyp_hash
    from worker.trainers import train

    try:
        os.chdir(context.data_root)
    except OSError as error:
        raise NotInstalled(f"cannot enter {context.data_root}: {error.strerror}; give another --data-root") from error
    trained = train(assignment["trainer"], context)
    metrics = final_metrics(trained.metrics)
    trained_hash = hyp_hash(context.hyp)
    if trained_hash != assignment["hyp_hash"]:
        raise TrainingFailed("data", "the hyp set that was trained is not the one that was leased: the trainer changed ctx.hyp")
    try:
        judged = fitness(metrics, assignment["weights"])
    except ValueError as error:
        raise TrainingFailed("data", str(error)) from error
    seconds = time.monotonic() - began if trained.seconds is None else float(trained.seconds)
    if not math.isfinite(judged):
        raise TrainingFailed("nan", f"fitness is {judged}")
    return {
        "say": "done",
        "metrics": metrics,
        "fitness": judged,
        "hyp_hash": trained_hash,
        "data_hash": trained.data_hash,
        "weights_hash": trained.weights_hash,
        "seconds": seconds,
        "epochs": context.epochs_done or context.epochs,
    }


def _failed(kind: str, detail: str) -> dict[str, Any]:
    return {"say": "failed", "kind": kind, "detail": detail[-_DETAIL:]}


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in ("out of memory", "can't allocate memory"))


class _Desk:
    """The two pipes to the supervisor, taken away from stdin and stdout so that no trainer can write into them."""

    def __init__(self) -> None:
        self._commands = os.fdopen(os.dup(0), "rb")
        self._answers: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._assignments: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._token: str | None = None
        self._group: int | None = None
        self.cancelled = threading.Event()
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def next(self) -> dict[str, Any]:
        return self._assignments.get()

    def say(self, message: dict[str, Any]) -> None:
        if message["say"] == "group":
            self._group = message["group"]
        try:
            self._answers.write(json.dumps({"token": self._token, **message}).encode() + b"\n")
        except BrokenPipeError:
            self._orphaned()

    def _listen(self) -> None:
        for line in self._commands:
            command = json.loads(line)
            if command["do"] in ("train", "join", "examine"):
                self._token = command["token"]
                self.cancelled.clear()
                self._assignments.put(command)
            elif command["do"] == "cancel" and command["token"] == self._token:
                self.cancelled.set()
        self._orphaned()

    def _orphaned(self) -> None:
        """The supervisor is gone: so are we, and any program that we started, with all its children."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        os._exit(1)


if __name__ == "__main__":
    main()
