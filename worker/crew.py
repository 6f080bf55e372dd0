"""Several devices for one candidate: one further training process for each device after the first.

The training process leads (rank 0); a member is the same program, told to join, and warm between candidates. Members are the
leader's children and in its process group, so they die with it; the loss of one ends the training as that of the leader would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.context import Context
from worker.death import ending
from worker.errors import Interrupted, NotInstalled, TrainingFailed

if TYPE_CHECKING:
    from detector.team import Team

_ROOT = Path(__file__).resolve().parents[1]
_ENDS = ("done", "failed", "not_installed", "interrupted", "cancelled")
_LOSS_S = 5.0  # from a broken collective until it is known whose death broke it
_STUCK_S = 20.0  # a collective may wait for a lost process for hours: after so long the leader ends, too
_LAST_S = 10.0  # for members to come out of a training that has ended well


class _Member:
    """A further training process."""

    def __init__(self) -> None:
        self.where = ""
        self._said: dict[str, Any] | None = {"say": "done"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.training", str(os.getpid())],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._listen, name=f"member {self._process.pid}", daemon=True).start()

    @property
    def end(self) -> dict[str, Any] | None:
        """How its part of the current training ended; None while it trains."""
        if self._said is not None:
            return self._said
        status = self._process.poll()
        return None if status is None else ending(status, self.where)

    @property
    def ready(self) -> bool:
        """It lives, and has come out of its last training well."""
        return self._process.poll() is None and self._said is not None and self._said["say"] == "done"

    def join(self, assignment: Mapping[str, Any]) -> None:
        self._said = None
        self.where = f"rank {assignment['rank']} ({assignment['device']})"
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its death is an end as well
            self._process.stdin.write(json.dumps({"do": "join", **assignment}).encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # a line cut off by death
                said = json.loads(line)
                if said["say"] in _ENDS:
                    self._said = said


_MEMBERS: list[_Member] = []


@contextmanager
def gathered(context: Context, size: int) -> Iterator[Team]:
    """The team of this process and of one for each of ``context.devices[1:size]``, which train the same candidate meanwhile.

    Raises:
        TrainingFailed, NotInstalled, Interrupted: a member has said no, or died.
    """
    from detector.team import ALONE, met

    if size == 1:
        yield ALONE
        return
    members = _staffed(size - 1)
    place = context.dir / "team"
    for rank, member in enumerate(members, 1):
        member.join(_part(context) | {"device": context.devices[rank], "rank": rank, "size": size, "place": str(place)})
    over = threading.Event()
    threading.Thread(target=_guard, args=(members, over), name="guard", daemon=True).start()
    try:
        with ExitStack() as stack:
            with _blamed(members):
                team = stack.enter_context(met(context.device, 0, size, place))
            with _blamed(members):
                yield team
        _wait(lambda: all(member.end is not None for member in members), _LAST_S)
    finally:
        over.set()
        dismiss(all_but_ready=True)


def dismiss(all_but_ready: bool = False) -> None:
    """End the members of this process, or those alone that are not ready for the next training."""
    for member in [member for member in _MEMBERS if not (all_but_ready and member.ready)]:
        member.kill()
        _MEMBERS.remove(member)


def _staffed(count: int) -> list[_Member]:
    dismiss(all_but_ready=True)
    _MEMBERS.extend(_Member() for _ in range(count - len(_MEMBERS)))
    return _MEMBERS[:count]


def _part(context: Context) -> dict[str, Any]:
    """What a member is told of the candidate: that of the leader's assignment which decides the training."""
    told = ("hyp", "epochs", "seed", "base", "name", "checkpoint_s", "data_hash")
    paths = {"dir": str(context.dir), "data_root": str(context.data_root)}
    return {"token": context.name, **paths, **{key: getattr(context, key) for key in told}}


@contextmanager
def _blamed(members: Sequence[_Member]) -> Iterator[None]:
    """A collective that breaks is the fault of the member that left it; no member goes on without its leader."""
    try:
        yield
    except BaseException as error:
        lost = None
        if isinstance(error, RuntimeError):
            lost = _wait(lambda: _lost(members), _LOSS_S)
        for member in members:
            member.kill()
        if lost is not None:
            raise lost from error
        raise


def _lost(members: Sequence[_Member]) -> Exception | None:
    """What a member's end means, where that is none of a training that went well."""
    for member in members:
        end = member.end
        if end is None or end["say"] == "done":
            continue
        detail = end.get("detail", "")
        detail = detail if member.where in detail else f"{member.where}: {detail}"
        if end["say"] == "failed":
            return TrainingFailed(end["kind"], detail)
        return NotInstalled(detail, end["reason"]) if end["say"] == "not_installed" else Interrupted(detail)
    return None


def _guard(members: Sequence[_Member], over: threading.Event) -> None:
    """Ends this process where a member is lost and the training does not come out of its collective by itself."""
    while not over.wait(0.2):
        lost = _lost(members)
        if lost is not None and not over.wait(_STUCK_S):
            print(f"the training waits for a lost process: {lost}", file=sys.stderr, flush=True)
            if isinstance(lost, TrainingFailed) and lost.kind == "oom":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(1)


def _wait(condition: Any, seconds: float) -> Any:
    """What ``condition`` answers once that is true, or after so long."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
