"""The losses of the lineages yolov3-2019 and yolov3-2020: boxes as offsets and exponentials, anchors matched by ``iou_t``.

Formulas, with their sources and where ours depart from them, in docs/DETECTOR.md, "The lineages before yolov5".
"""

from __future__ import annotations

import torch
from torch import Tensor

from detector.assign_overlap import assign_by_overlap
from detector.boxes import exponential_size, overlap
from detector.loss import at, in_full, weighted_bce
from detector.models import Detector
from evolution.hyperparameters import Hyperparameters

NOMINAL_BATCH = 64
# Anchor cells of an image of 320 pixels, to which the gain of objectness refers in 2020.
CELLS_AT_320 = 6300


def cross_entropies(logits: Tensor, target: Tensor, positive_weight: float, gamma: float = 0.0) -> Tensor:
    """Binary cross entropy of each logit, of the shape of ``logits``; positives weigh ``positive_weight``.

    With ``gamma`` > 0 each is multiplied by (1.000001 - e^-loss)^gamma: without positive weights this is the focal factor
    (1 - p_t)^gamma (arXiv:1708.02002), and the millionth keeps its gradient finite at a loss of zero.
    """
    loss = weighted_bce(logits, target, positive_weight)
    return loss * (1.000001 - torch.exp(-loss)) ** gamma if gamma > 0 else loss


class _Matched:
    """What a level's raw map (B, na, H, W, 5 + nc) says where anchors answer for labels."""

    def __init__(self, raw: Tensor, targets: Tensor, anchors: Tensor, iou_t: float, fixed: bool) -> None:
        pos = assign_by_overlap(targets, anchors, *raw.shape[2:4], iou_t, fixed)
        self.raw, self.cell, self.one_hot = at(raw, pos)
        self.counts, self.box, self.anchor_size = pos.counts, pos.box, pos.anchor_size
        self.xy = self.raw[:, :2].sigmoid()
        self.giou = overlap(torch.cat((self.xy, exponential_size(self.raw[:, 2:4]) * pos.anchor_size), 1), pos.box, "giou")
        self.logits = raw[..., 4].reshape(-1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values (p, ...) over the positives that count."""
        return (values * self.counts.view(-1, *[1] * (values.ndim - 1))).sum()

    def objectness(self, values: Tensor) -> Tensor:
        """A target for every anchor cell: the largest of ``values`` (p,) that claim it, none below 0; else 0."""
        return torch.zeros_like(self.logits).scatter_reduce(0, self.cell, values * self.counts, "amax")


class Loss2019:
    """Per level: giou x mean(1 - GIoU) + xy x mean squared error of centres + wh x that of log sizes; obj and cls x mean
    cross entropy, an anchor cell that answers for a label being 1. Levels are added, the sum multiplied by B / 64.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters, fixed: bool = False) -> None:
        """``fixed`` as in ``detector.loss.DetectionLoss``."""
        self.anchors, self.classes, self.hyp, self.fixed = model.anchors, model.classes, hyp, fixed

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """As ``detector.loss.DetectionLoss``; its part box holds giou, xy and wh."""
        hyp = self.hyp
        zero = maps[0].new_zeros((), dtype=torch.float32)
        box, obj, cls = zero, zero, zero
        for level, raw in enumerate(maps):
            found = _Matched(in_full(raw), targets, self.anchors[level], hyp.iou_t, self.fixed)
            count = found.counts.sum().clamp(min=1)
            wanted = found.objectness(torch.ones_like(found.giou))
            obj = obj + hyp.obj * cross_entropies(found.logits, wanted, hyp.obj_pw).mean()
            # An entry that does not count may have no size, and no logarithm.
            factor = torch.where(found.counts[:, None], found.box[:, 2:] / found.anchor_size, 1.0)
            box = box + hyp.giou * found.sum(1 - found.giou) / count
            box = box + hyp.xy * found.sum((found.xy - found.box[:, :2]) ** 2) / (2 * count)
            box = box + hyp.wh * found.sum((found.raw[:, 2:4] - factor.log()) ** 2) / (2 * count)
            if self.classes > 1:
                classified = cross_entropies(found.raw[:, 5:], found.one_hot, hyp.cls_pw)
                cls = cls + hyp.cls * found.sum(classified) / (count * self.classes)
        parts = torch.stack((box, obj, cls))
        return parts.sum() * maps[0].shape[0] / NOMINAL_BATCH, parts.detach()


class Loss2020:
    """Over all levels together, with n anchor cells that answer for labels: 3 giou sum(1 - GIoU) / n; 3 cls sum(BCE) / (n nc);
    6 obj sum(BCE over every anchor cell) / (6300 B), the target being the GIoU reached, not below 0. The sum is multiplied by
    B / 64. ``fl_gamma`` turns both cross entropies.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters, fixed: bool = False) -> None:
        """``fixed`` as in ``detector.loss.DetectionLoss``."""
        self.anchors, self.classes, self.hyp, self.fixed = model.anchors, model.classes, hyp, fixed

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """As ``detector.loss.DetectionLoss``."""
        hyp, images = self.hyp, maps[0].shape[0]
        zero = maps[0].new_zeros((), dtype=torch.float32)
        box, obj, cls, count = zero, zero, zero, zero
        for level, raw in enumerate(maps):
            found = _Matched(in_full(raw), targets, self.anchors[level], hyp.iou_t, self.fixed)
            # A negative target, as the program of 2020 had it, makes the cross entropy unbounded below.
            wanted = found.objectness(found.giou.detach().clamp(min=0))
            obj = obj + cross_entropies(found.logits, wanted, hyp.obj_pw, hyp.fl_gamma).sum()
            count = count + found.counts.sum()
            box = box + found.sum(1 - found.giou)
            if self.classes > 1:
                cls = cls + found.sum(cross_entropies(found.raw[:, 5:], found.one_hot, hyp.cls_pw, hyp.fl_gamma))
        n = count.clamp(min=1)
        parts = torch.stack(
            (
                3 * hyp.giou * box / n,
                6 * hyp.obj * obj / (CELLS_AT_320 * images),
                3 * hyp.cls * cls / (n * self.classes),
            )
        )
        return parts.sum() * images / NOMINAL_BATCH, parts.detach()
