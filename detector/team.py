"""Processes that train one candidate together, one per device: started by torchrun, joined by torch.distributed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Team(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()
