"""What a trainer is given, and what it hands back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from worker.errors import Cancelled, TrainingFailed

MOST_METRICS = 64  # the protocol's limit
_PROGRESS_EVERY_S = 0.2

Say = Callable[[dict[str, Any]], None]


class Trained(NamedTuple):
    """``seconds``, ``data_hash`` and ``weights_hash`` are None where the trainer does not know them."""

    metrics: Any
    seconds: float | None = None
    data_hash: str | None = None
    weights_hash: str | None = None


@dataclass
class Context:
    """One training, as a ``module:function(ctx)`` sees it.

    ``hyp`` is the hyp set, ``base`` the base scenario, ``dir`` an empty folder that is removed afterwards, ``data_root`` the
    folder that relative paths of the campaign start at. ``devices`` are those that train the candidate together, ``device`` the
    first of them. The function returns a mapping of metrics.

    ``checkpoint`` is a file to go on from, where it exists when the training starts, and to write where the training stands to:
    safetensors or JSON, beside it first and then renamed (``os.replace``). It is sent to the coordinator, and whichever node
    trains the candidate next finds it there. ``checkpoint_s`` is the longest that a training should go without writing one.
    """

    hyp: dict[str, float | bool | str]
    epochs: int
    device: str
    devices: list[str]
    seed: int
    dir: Path
    base: dict[str, Any]
    data_root: Path
    name: str
    say: Say = field(repr=False)
    cancelled: Callable[[], bool] = field(repr=False)
    checkpoint_s: float = 300.0
    data_hash: str | None = None
    epochs_done: int = 0
    _progress_due: float = 0.0
    _checkpoint_seen: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        self._checkpoint_seen = _stamp(self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        return self.dir / "checkpoint"

    def report(self, epoch: int, /, **metrics: float) -> None:
        """Post the metrics of one epoch. Values that are no finite numbers are left out: only the final metrics decide.

        Raises:
            Cancelled: the training is to stop. Let it pass.
        """
        self.epochs_done += 1
        kept = {name: number for name, value in metrics.items() if (number := _number(value)) is not None}
        self.say({"say": "epoch", "epoch": int(epoch), "metrics": dict(list(kept.items())[:MOST_METRICS])})
        self.progress(min(self.epochs_done / max(self.epochs, 1), 1.0))

    def progress(self, fraction: float) -> None:
        """Say how much of the training is done, 0 to 1. Cheap enough for every batch.

        Raises:
            Cancelled: the training is to stop. Let it pass.
        """
        self.check()
        if time.monotonic() >= self._progress_due:
            self._progress_due = time.monotonic() + _PROGRESS_EVERY_S
            self.say({"say": "progress", "fraction": min(max(float(fraction), 0.0), 1.0)})

    def check(self) -> None:
        """Raises Cancelled where the training is to stop."""
        self.look_for_checkpoint()
        if self.cancelled():
            raise Cancelled

    def look_for_checkpoint(self) -> None:
        """Tell the supervisor where ``checkpoint`` has been written anew."""
        stamp = _stamp(self.checkpoint)
        if stamp not in (None, self._checkpoint_seen):
            self._checkpoint_seen = stamp
            self.keep(self.checkpoint, self.epochs_done)

    def keep(self, path: Path, epochs: int) -> None:
        """Tell the supervisor of a checkpoint."""
        self.say({"say": "checkpoint", "path": str(path), "epoch": epochs})


def final_metrics(metrics: object) -> dict[str, float]:
    """The metrics that a trainer returned, as finite numbers.

    Raises:
        TrainingFailed: data where they are no mapping of numbers, nan where one is not finite.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise TrainingFailed("data", f"the trainer returned {metrics!r:.200}; it must return a mapping of metrics")
    if len(metrics) > MOST_METRICS:
        raise TrainingFailed("data", f"the trainer returned {len(metrics)} metrics; at most {MOST_METRICS} are kept")
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise TrainingFailed("data", f"metric '{name}' is {value!r:.100}, which is no number") from error
    broken = [name for name, value in numbers.items() if not math.isfinite(value)]
    if broken:
        raise TrainingFailed("nan", f"not finite: {', '.join(f'{name} = {numbers[name]}' for name in broken)}")
    return numbers


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is written or replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
