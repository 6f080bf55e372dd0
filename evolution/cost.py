"""What a campaign will cost, before it starts: trainings, device-hours, hours on a number of devices, checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evolution.campaign import Campaign


@dataclass(frozen=True)
class Cost:
    """``seconds`` of a training, ``device_hours`` of all and ``wall_s`` with ``devices`` that train one each; None: not known.

    ``trainings`` are those that the budget of GPU-hours leaves room for. Failed, repeated and lost trainings come on top.
    ``checkpoint_bytes`` is what the artifact store holds at most: one checkpoint of each training that runs.
    """

    trainings: int
    epochs: int
    devices: int
    seconds: float | None = None
    device_hours: float | None = None
    wall_s: float | None = None
    checkpoint_bytes: int | None = None


def cost(campaign: Campaign, *, seconds: float | None = None, devices: int = 1, checkpoint_bytes: int | None = None) -> Cost:
    """The cost of ``campaign``; ``seconds`` is that of one training, ``checkpoint_bytes`` of one checkpoint.

    Raises:
        ValueError: no positive number of seconds or devices.
    """
    if devices < 1 or (seconds is not None and not 0 < seconds < math.inf):
        raise ValueError(f"{seconds} s a training on {devices} devices: both must be above 0")
    trainings = campaign.candidates
    if seconds is not None and campaign.gpu_hours is not None:
        # What trains when the hours are used is finished, and counts.
        trainings = min(trainings, math.ceil(campaign.gpu_hours * 3600 / seconds) + devices - 1)
    at_once = min(devices, trainings)
    return Cost(
        trainings=trainings,
        epochs=trainings * campaign.epochs,
        devices=devices,
        seconds=seconds,
        device_hours=None if seconds is None else trainings * seconds / 3600,
        wall_s=None if seconds is None else math.ceil(trainings / devices) * seconds,
        checkpoint_bytes=None if checkpoint_bytes is None else at_once * checkpoint_bytes,
    )
