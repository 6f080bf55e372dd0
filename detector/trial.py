"""How long a training of a scenario takes on this machine, measured on its beginning."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from detector.cache import load_cached
from detector.execution import Execution
from detector.scenario import Scenario
from detector.trainer import CPU, train
from evolution.hyperparameters import Hyperparameters


class Trial(NamedTuple):
    """``seconds`` of a whole training, from the ``share`` of it that was run (1: all of it, its evaluation too).

    ``checkpoint_bytes`` is the size of a checkpoint; None where the training is over before one is due.
    """

    seconds: float
    share: float
    checkpoint_bytes: int | None


class _Enough(Exception):
    pass


def trial(hyp: Hyperparameters, scenario: Scenario, *, limit_s: float, execution: Execution = CPU) -> Trial:
    """Trains for ``limit_s`` seconds, at least two batches, or to the end where that comes first.

    What is left is taken to cost as much for each pixel; an evaluation that was not reached is not in it. Images are decoded
    before the clock starts, since workers keep them.

    Raises:
        DataError, TrainingDiverged: as ``train``.
    """
    load_cached(scenario.data, scenario.imgsz)
    began = time.perf_counter()
    seen: list[tuple[float, float]] = []  # share of the pixels, seconds

    def progress(fraction: float) -> None:
        seen.append((_work(scenario, fraction), time.perf_counter() - began))
        if len(seen) > 1 and seen[-1][1] >= limit_s and fraction < 1:
            raise _Enough

    with TemporaryDirectory() as folder:
        try:
            train(
                hyp,
                scenario,
                seed=0,
                execution=execution,
                progress=progress,
                checkpoints=folder,
                checkpoint_least_s=float("inf"),
            )
        except _Enough:
            (first, started), (done, now) = seen[0], seen[-1]
            size = max((path.stat().st_size for path in Path(folder).iterdir()), default=None)
            return Trial(started + (now - started) * (1 - first) / (done - first), done, size)
        return Trial(time.perf_counter() - began, 1.0, None)


def _work(scenario: Scenario, fraction: float) -> float:
    """The share of the training's pixels that lie in its first ``fraction``: with ``progressive`` early images are smaller."""
    pixels = [float(scenario.size_at(epoch)) ** 2 for epoch in range(scenario.epochs)]
    place = fraction * scenario.epochs
    whole = min(int(place), scenario.epochs - 1)
    return (sum(pixels[:whole]) + (place - whole) * pixels[whole]) / sum(pixels)
