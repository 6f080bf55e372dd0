"""The optimizer and the schedule of its rates, for trainings of a few hundred steps as well as long ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from evolution.hyperparameters import Hyperparameters, lineage_space

# lr0 is a rate for SGD, and each lineage has its own scale of losses; AdamW trains stably from scratch at these, which stand
# for the lineage's default lr0.
AUTO_LR = {"yolov5": 0.004, "yolov3-2019": 0.002, "yolov3-2020": 0.002}
# Adam averages squared gradients over 1 / (1 - beta2) steps: a thousand is longer than a short training.
BETA2 = 0.999
AUTO_BETA2 = 0.99
MOST_WARMUP = 1 / 3
# Batch norms average their statistics over 1 / momentum steps. The models' 0.03 is 33 steps: in a training of a hundred, the
# evaluated statistics would be those of weights that are long gone.
NORM_SHARE = 1 / 20
NORM_MOMENTUM = (0.03, 0.1)


class Rates(NamedTuple):
    """Learning rate of weights, learning rate of biases, momentum (beta1 of Adam), batches per optimizer step."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int


class Schedule:
    """Rates at each of ``total`` iterations.

    lr falls linearly, iteration by iteration, from lr0 to lr0 x lrf at the last one (before yolov5: lr0 x 10^lrf). During
    warm-up, the first warmup_epochs but at most a third of all iterations, lr rises from 0 to that line, the biases' rate runs
    from warmup_bias_lr to it, momentum from warmup_momentum to momentum, and the batches per step from 1 to ``accumulate``.
    ``factor`` scales every learning rate.
    """

    def __init__(self, hyp: Hyperparameters, total: int, per_epoch: int, accumulate: int = 1, factor: float = 1.0) -> None:
        self.hyp, self.total, self.accumulate, self.factor = hyp, total, accumulate, factor
        self.final = hyp.lrf if hyp.lineage == "yolov5" else 10.0**hyp.lrf
        self.warmup = min(round(hyp.warmup_epochs * per_epoch), int(total * MOST_WARMUP))

    def at(self, step: int) -> Rates:
        """The rates of iteration ``step``, 0 <= step < total."""
        hyp = self.hyp
        done = step / max(self.total - 1, 1)
        lr = hyp.lr0 * ((1 - done) * (1 - self.final) + self.final)
        if step >= self.warmup:
            return Rates(lr * self.factor, lr * self.factor, hyp.momentum, self.accumulate)
        x = step / self.warmup
        return Rates(
            lr=lr * x * self.factor,
            bias_lr=(hyp.warmup_bias_lr + (lr - hyp.warmup_bias_lr) * x) * self.factor,
            momentum=hyp.warmup_momentum + (hyp.momentum - hyp.warmup_momentum) * x,
            accumulate=max(round(1 + (self.accumulate - 1) * x), 1),
        )


def build(model: nn.Module, name: str, hyp: Hyperparameters, decay_factor: float) -> tuple[torch.optim.Optimizer, float]:
    """An optimizer with groups biases, norm weights (neither decays) and convolution weights, and its learning-rate factor.

    ``name`` is "SGD" (Nesterov), "Adam", "AdamW" or "auto": AdamW with ``AUTO_BETA2`` and learning rates scaled so that the
    lineage's default lr0 becomes its ``AUTO_LR``. The decay is weight_decay x ``decay_factor``.
    """
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    bias, norm, weight = [], [], []
    for key, value in model.named_parameters():
        (bias if key.endswith("bias") else norm if id(value) in norms else weight).append(value)
    groups = [
        {"params": bias, "weight_decay": 0.0},
        {"params": norm, "weight_decay": 0.0},
        {"params": weight, "weight_decay": hyp.weight_decay * decay_factor},
    ]
    optimizer: torch.optim.Optimizer
    if name == "SGD":
        # Nesterov's method is not defined without momentum.
        optimizer = torch.optim.SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=hyp.momentum > 0, fused=True)
    else:
        kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
        betas = (hyp.momentum, AUTO_BETA2 if name == "auto" else BETA2)
        optimizer = kind(groups, lr=hyp.lr0, betas=betas, fused=True)
    return optimizer, AUTO_LR[hyp.lineage] / lineage_space(hyp.lineage)["lr0"].start if name == "auto" else 1.0


def norm_momentum(total: int) -> float:
    """Momentum of the batch norms for a training of ``total`` steps: they average over a twentieth of it, 10 to 33 steps."""
    least, most = NORM_MOMENTUM
    return min(max(1 / (NORM_SHARE * total), least), most)


def apply(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Sets the rates on an optimizer made by ``build``."""
    for i, group in enumerate(optimizer.param_groups):
        group["lr"] = rates.bias_lr if i == 0 else rates.lr
        if "betas" in group:
            group["betas"] = (rates.momentum, group["betas"][1])
        else:
            group["momentum"] = rates.momentum
