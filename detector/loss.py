"""The loss of the yolov5 lineage: CIoU of the boxes, overlap-aware objectness, one-against-all classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.assign import assign
from detector.boxes import overlap
from detector.models import Detector
from evolution.hyperparameters import Hyperparameters

FOCAL_ALPHA = 0.25


def balance(levels: int) -> tuple[float, ...]:
    """Weight of each level's objectness, finest first: small objects are rare among many cells."""
    return (4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02)[:levels]


def cross_entropy(logits: Tensor, target: Tensor, positive_weight: float, gamma: float) -> Tensor:
    """Mean binary cross entropy of logits against targets in [0, 1]; positives weigh ``positive_weight``.

    With ``gamma`` > 0 each element is multiplied by alpha_t (1 - p_t)^gamma, alpha = 0.25 (focal loss, arXiv:1708.02002), which
    turns the weight to elements that are still wrong.
    """
    weight = logits.new_tensor(positive_weight)
    if gamma <= 0:
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    bce = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    p = logits.sigmoid()
    p_t = target * p + (1 - target) * (1 - p)
    alpha_t = target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
    return (bce * alpha_t * (1 - p_t) ** gamma).mean()


class DetectionLoss:
    """Loss of raw maps against labels, for one model, hyp set and training size ``imgsz`` in pixels.

    Gains: box x 3 / levels; cls x classes / 80 x 3 / levels; obj x (imgsz / 640)^2 x 3 / levels, so that a hyp set keeps its
    meaning across numbers of classes and image sizes.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters, imgsz: int) -> None:
        levels = len(model.outputs)
        self.anchors, self.classes, self.hyp = model.anchors, model.classes, hyp
        self.balance = balance(levels)
        self.box_gain = hyp.box * 3 / levels
        self.cls_gain = hyp.cls * self.classes / 80 * 3 / levels
        self.obj_gain = hyp.obj * (imgsz / 640) ** 2 * 3 / levels

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, na, H, W, 5 + nc) per level and targets (n, 6) as in ``assign``.

        Returns the total times B, to be differentiated, and its detached parts (3,): box, obj, cls, each with its gain.
        """
        hyp = self.hyp
        zero = maps[0].new_zeros(())
        box_loss, obj_loss, cls_loss = zero, zero, zero
        for level, raw in enumerate(maps):
            raw = raw.float()
            b, na, h, w, _ = raw.shape
            pos = assign(targets, self.anchors[level], h, w, hyp.anchor_t)
            objectness = raw.new_zeros(b * na * h * w)
            if len(pos.image):
                predicted = raw[pos.image, pos.anchor, pos.row, pos.column]
                xy = predicted[:, :2].sigmoid() * 2 - 0.5
                wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * pos.anchor_size
                ciou = overlap(torch.cat((xy, wh), 1), pos.box)
                box_loss = box_loss + (1 - ciou).mean()
                # Where two labels claim one anchor cell the larger overlap stands: "the last write wins" has no order on a GPU.
                cell = ((pos.image * na + pos.anchor) * h + pos.row) * w + pos.column
                objectness.scatter_reduce_(0, cell, ciou.detach().clamp(min=0), "amax")
                if self.classes > 1:
                    one_hot = F.one_hot(pos.label_class, self.classes).to(predicted.dtype)
                    cls_loss = cls_loss + cross_entropy(predicted[:, 5:], one_hot, hyp.cls_pw, hyp.fl_gamma)
            logits = raw[..., 4].reshape(-1)
            obj_loss = obj_loss + self.balance[level] * cross_entropy(logits, objectness, hyp.obj_pw, hyp.fl_gamma)
        parts = torch.stack((box_loss * self.box_gain, obj_loss * self.obj_gain, cls_loss * self.cls_gain))
        return parts.sum() * maps[0].shape[0], parts.detach()
