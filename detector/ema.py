"""A running average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

import copy

import torch
from torch import nn

LARGEST_DECAY = 0.9999
HORIZON = 0.1


class Average:
    """Polynomial-decay average (Shamir & Zhang, arXiv:1212.1824): after n steps the last 10 % of them carry most weight.

    An exponential average with a fixed horizon of thousands of steps, the usual choice, would still hold the initial weights
    at the end of a training of a few hundred. Covers parameters and batch-norm statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.steps = 0
        self._to = _floats(self.model)
        self._from = _floats(model)

    @staticmethod
    def decay(steps: int) -> float:
        """Share of the old average that stays at step ``steps`` = 1, 2, ..."""
        return min(1 - 1 / (1 + HORIZON * steps), LARGEST_DECAY)

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's present weights; to be called after each optimizer step."""
        self.steps += 1
        torch._foreach_lerp_(self._to, self._from, 1 - self.decay(self.steps))


def _floats(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach() for t in model.state_dict(keep_vars=True).values() if t.is_floating_point()]
