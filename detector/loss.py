"""The loss of the yolov5 lineage: CIoU of the boxes, overlap-aware objectness, one-against-all classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.assign import Positives, assign
from detector.boxes import overlap
from detector.models import Detector
from evolution.hyperparameters import Hyperparameters

FOCAL_ALPHA = 0.25
FOCAL_LEAST = 1e-12


def balance(levels: int) -> tuple[float, ...]:
    """Weight of each level's objectness, finest first: small objects are rare among many cells."""
    return (4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02)[:levels]


def cross_entropies(logits: Tensor, target: Tensor, positive_weight: float, gamma: float) -> Tensor:
    """Binary cross entropy of each logit against a target in [0, 1], of the shape of ``logits``; positives weigh
    ``positive_weight``.

    With ``gamma`` > 0 each element is multiplied by alpha_t (1 - p_t)^gamma, alpha = 0.25 (focal loss, arXiv:1708.02002), which
    turns the weight to elements that are still wrong. A factor below ``FOCAL_LEAST`` has no gradient: at 0 that of a root
    (``gamma`` < 1) is infinite.
    """
    bce = weighted_bce(logits, target, positive_weight)
    if gamma <= 0:
        return bce
    wrong = target * (-logits).sigmoid() + (1 - target) * logits.sigmoid()  # 1 - p_t, exact where p_t rounds to 1
    alpha_t = target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
    return bce * alpha_t * wrong.clamp(min=FOCAL_LEAST) ** gamma


def weighted_bce(logits: Tensor, target: Tensor, positive_weight: float) -> Tensor:
    """Binary cross entropy of each logit, positives weighing ``positive_weight``."""
    # Filled on the device: a constant made on the host would be copied, and waited for, at each step.
    weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")


def in_full(raw: Tensor) -> Tensor:
    """Outputs of a half-precision network in single precision; wider ones as they are."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def at(raw: Tensor, pos: Positives) -> tuple[Tensor, Tensor, Tensor]:
    """What a level's raw map (B, na, H, W, 5 + nc) says at the positives: rows (p, 5 + nc), their place among the map's anchor
    cells (p,), and one-hot classes (p, nc) of the labels.
    """
    _, na, h, w, width = raw.shape
    cell = ((pos.image * na + pos.anchor) * h + pos.row) * w + pos.column
    classes = torch.arange(width - 5, device=raw.device)
    return raw[pos.image, pos.anchor, pos.row, pos.column], cell, (pos.label_class[:, None] == classes).to(raw.dtype)


class DetectionLoss:
    """Loss of raw maps against labels, for one model, hyp set and training size ``imgsz`` in pixels.

    Gains: box x 3 / levels; cls x classes / 80 x 3 / levels; obj x (imgsz / 640)^2 x 3 / levels, so that a hyp set keeps its
    meaning across numbers of classes and image sizes.
    """

    def __init__(self, model: Detector, hyp: Hyperparameters, imgsz: int, fixed: bool = False) -> None:
        """``fixed``: tensors of fixed shape, whatever matches (``detector.assign``); the same loss, and nobody waits."""
        levels = len(model.outputs)
        self.anchors, self.classes, self.hyp, self.fixed = model.anchors, model.classes, hyp, fixed
        self.balance = balance(levels)
        self.box_gain = hyp.box * 3 / levels
        self.cls_gain = hyp.cls * self.classes / 80 * 3 / levels
        self.obj_gain = hyp.obj * (imgsz / 640) ** 2 * 3 / levels

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, na, H, W, 5 + nc) per level and targets (n, 6) as in ``assign``.

        Returns the total times B, to be differentiated, and its detached parts (3,): box, obj, cls, each with its gain.
        """
        hyp = self.hyp
        zero = maps[0].new_zeros((), dtype=torch.float32)
        box_loss, obj_loss, cls_loss = zero, zero, zero
        for level, raw in enumerate(maps):
            raw = in_full(raw)
            pos = assign(targets, self.anchors[level], *raw.shape[2:4], hyp.anchor_t, self.fixed)
            predicted, cell, one_hot = at(raw, pos)
            count = pos.counts.sum().clamp(min=1)
            xy = predicted[:, :2].sigmoid() * 2 - 0.5
            wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * pos.anchor_size
            ciou = overlap(torch.cat((xy, wh), 1), pos.box)
            box_loss = box_loss + ((1 - ciou) * pos.counts).sum() / count
            if self.classes > 1:
                classified = cross_entropies(predicted[:, 5:], one_hot, hyp.cls_pw, hyp.fl_gamma)
                cls_loss = cls_loss + (classified * pos.counts[:, None]).sum() / (count * self.classes)
            # Where two labels claim one anchor cell the larger overlap stands: "the last write wins" has no order on a GPU.
            reached = ciou.detach().clamp(min=0) * pos.counts
            logits = raw[..., 4].reshape(-1)
            objectness = torch.zeros_like(logits).scatter_reduce(0, cell, reached, "amax")
            objects = cross_entropies(logits, objectness, hyp.obj_pw, hyp.fl_gamma).mean()
            obj_loss = obj_loss + self.balance[level] * objects
        parts = torch.stack((box_loss * self.box_gain, obj_loss * self.obj_gain, cls_loss * self.cls_gain))
        return parts.sum() * maps[0].shape[0], parts.detach()
