"""The losses of the lineages yolov3-2019 and yolov3-2020: boxes as offsets and exponentials, anchors matched by ``iou_t``.

Formulas, with their sources and where ours depart from them, in docs/DETECTOR.md, "The lineages before yolov5".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.assign import Positives
from detector.assign_overlap import assign_by_overlap
from detector.boxes import exponential_size, overlap
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
    weight = logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    return loss * (1.000001 - torch.exp(-loss)) ** gamma if gamma > 0 else loss


class _Matched:
    """What a level's raw map (B, na, H, W, 5 + nc) says where anchors answer for labels."""

    def __init__(self, raw: Tensor, targets: Tensor, anchors: Tensor, iou_t: float) -> None:
        _, na, h, w, width = raw.shape
        self.pos: Positives = assign_by_overlap(targets, anchors, h, w, iou_t)
        pos = self.pos
        self.count = len(pos.image)
        self.cell = ((pos.image * na + pos.anchor) * h + pos.row) * w + pos.column
        self.raw = raw[pos.image, pos.anchor, pos.row, pos.column]
        self.xy = self.raw[:, :2].sigmoid()
        self.giou = overlap(torch.cat((self.xy, exponential_size(self.raw[:, 2:4]) * pos.anchor_size), 1), pos.box, "giou")
        self.one_hot = F.one_hot(pos.label_class, width - 5).to(raw.dtype)


class Loss2019:
    """Per level: giou x mean(1 - GIoU) + xy x mean squared error of centres + wh x that of log sizes; obj and cls x mean
    cross entropy, an anchor cell that answers for a label being 1. Levels are added, the sum multiplied by B / 64.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters) -> None:
        self.anchors, self.classes, self.hyp = model.anchors, model.classes, hyp

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """As ``detector.loss.DetectionLoss``; its part box holds giou, xy and wh."""
        hyp = self.hyp
        zero = maps[0].new_zeros(())
        box, obj, cls = zero, zero, zero
        for level, raw in enumerate(maps):
            raw = raw.float()
            found = _Matched(raw, targets, self.anchors[level], hyp.iou_t)
            logits = raw[..., 4].reshape(-1)
            wanted = torch.zeros_like(logits)
            wanted[found.cell] = 1.0
            obj = obj + hyp.obj * cross_entropies(logits, wanted, hyp.obj_pw).mean()
            if not found.count:
                continue
            pos = found.pos
            box = box + hyp.giou * (1 - found.giou).mean()
            box = box + hyp.xy * F.mse_loss(found.xy, pos.box[:, :2])
            box = box + hyp.wh * F.mse_loss(found.raw[:, 2:4], torch.log(pos.box[:, 2:] / pos.anchor_size))
            if self.classes > 1:
                cls = cls + hyp.cls * cross_entropies(found.raw[:, 5:], found.one_hot, hyp.cls_pw).mean()
        parts = torch.stack((box, obj, cls))
        return parts.sum() * maps[0].shape[0] / NOMINAL_BATCH, parts.detach()


class Loss2020:
    """Over all levels together, with n anchor cells that answer for labels: 3 giou sum(1 - GIoU) / n; 3 cls sum(BCE) / (n nc);
    6 obj sum(BCE over every anchor cell) / (6300 B), the target being the GIoU reached, not below 0. The sum is multiplied by
    B / 64. ``fl_gamma`` turns both cross entropies.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters) -> None:
        self.anchors, self.classes, self.hyp = model.anchors, model.classes, hyp

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """As ``detector.loss.DetectionLoss``."""
        hyp, images = self.hyp, maps[0].shape[0]
        zero = maps[0].new_zeros(())
        box, obj, cls, count = zero, zero, zero, 0
        for level, raw in enumerate(maps):
            raw = raw.float()
            found = _Matched(raw, targets, self.anchors[level], hyp.iou_t)
            logits = raw[..., 4].reshape(-1)
            # A negative target, as the program of 2020 had it, makes the cross entropy unbounded below.
            wanted = torch.zeros_like(logits).scatter_reduce(0, found.cell, found.giou.detach().clamp(min=0), "amax")
            obj = obj + cross_entropies(logits, wanted, hyp.obj_pw, hyp.fl_gamma).sum()
            count += found.count
            box = box + (1 - found.giou).sum()
            if self.classes > 1:
                cls = cls + cross_entropies(found.raw[:, 5:], found.one_hot, hyp.cls_pw, hyp.fl_gamma).sum()
        n = max(count, 1)
        parts = torch.stack(
            (
                3 * hyp.giou * box / n,
                6 * hyp.obj * obj / (CELLS_AT_320 * images),
                3 * hyp.cls * cls / (n * self.classes),
            )
        )
        return parts.sum() * images / NOMINAL_BATCH, parts.detach()
