"""Processes that train one candidate together, one per device: met through torchrun or at a file, by torch.distributed."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

# While the first process evaluates, the others wait in their next step.
PATIENCE = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``size``; the one of rank 0 evaluates, reports and writes for all."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of the processes' tensors, the same in each of them."""
        if self.size == 1:
            return values
        distributed.all_reduce(values)
        return values / self.size


ALONE = Team()


@contextmanager
def joined(device: str) -> Iterator[tuple[Team, str]]:
    """The team that torchrun's environment describes, and this process's device; alone where there is none.

    Of a GPU each process takes the one of its place on the node.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    with met(device) as team:
        yield team, device


@contextmanager
def met(device: str, rank: int = -1, size: int = -1, place: Path | None = None) -> Iterator[Team]:
    """The team of ``size`` processes of this machine that meet at the file ``place``, new for each team; this is ``rank``.

    Each has its own ``device``, all of one kind. Without a place: the team that the environment describes.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    store = None if place is None else distributed.FileStore(str(place), size)
    hook = sys.excepthook  # a group puts its own around it, and leaves it there
    distributed.init_process_group(backend, timeout=PATIENCE, rank=rank, world_size=size, store=store)
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
        sys.excepthook = hook
