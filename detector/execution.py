"""How a training runs on this machine: its device, who renders its samples, in which precision. No part of a base scenario."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from detector import precision
from detector.team import ALONE, Team

AUGMENT = ("auto", "host", "device")


@dataclass(frozen=True)
class Execution:
    """``device`` is torch's name of it: cpu, cuda, cuda:1.

    ``augment``: "host" renders samples by OpenCV, "device" by tensors where the data set lives on the device (that works on a
    CPU too, more slowly); "auto" is "device" on a GPU that has room for it. ``precision`` of the network in training is fp32,
    bf16, fp16 or "auto" (``detector.precision``). ``compile`` runs the network through torch.compile: minutes that only long
    trainings earn back. ``team``: the processes that train together, each on its share of every batch; ``sync_norms``
    lets their batch norms see the whole batch (GPUs alone: PyTorch has no such norm on a CPU).
    """

    device: str = "cpu"
    augment: str = "auto"
    precision: str = "auto"
    compile: bool = False
    sync_norms: bool = False
    team: Team = ALONE

    def __post_init__(self) -> None:
        """Raises ValueError, one line, naming the option and what it may be."""
        for name, known in (("augment", AUGMENT), ("precision", precision.PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, which is unknown; known: {', '.join(known)}")

        if self.sync_norms and (self.kind != "cuda" or self.team.size == 1):
            raise ValueError("sync_norms needs several processes, each on a GPU; leave it out")

    @property
    def kind(self) -> str:
        """cpu, cuda or another of torch's device types."""
        return torch.device(self.device).type

    def autocast(self) -> AbstractContextManager:
        """Where the network computes in ``precision``."""
        return precision.autocast(self.kind, self.precision)

    @property
    def scaled(self) -> bool:
        """Whether small gradients would vanish: fp16's are computed as multiples."""
        return precision.resolved(self.precision, self.kind) == "fp16"
