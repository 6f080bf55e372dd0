"""Boxes as tensors: overlap measures and the decoding of raw head outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
MOST_ANCHORS = 1000.0


def overlap(a: Tensor, b: Tensor, kind: str = "ciou") -> Tensor:
    """Overlap of paired boxes (..., 4) given as centre x, centre y, width, height in one unit: (...).

    ``iou``; ``giou`` = IoU - (C - U) / C with C the enclosing box (arXiv:1902.09630); ``ciou`` = IoU - d^2 / c^2 - alpha v
    with d the distance of the centres, c the diagonal of the enclosing box and v the difference of aspect (1911.08287). alpha
    carries no gradient.
    """
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.unbind(-1), b.unbind(-1)
    left, right = torch.minimum(ax - aw / 2, bx - bw / 2), torch.maximum(ax + aw / 2, bx + bw / 2)
    top, bottom = torch.minimum(ay - ah / 2, by - bh / 2), torch.maximum(ay + ah / 2, by + bh / 2)
    hull_w, hull_h = right - left, bottom - top
    # Of two intervals: the common part is the sum of lengths less the hull.
    common = (aw + bw - hull_w).clamp(min=0) * (ah + bh - hull_h).clamp(min=0)
    # A pair contained one in the other has a hull as wide as the wider box, so the formula holds there too.
    union = aw * ah + bw * bh - common + EPSILON
    iou = common / union
    if kind == "iou":
        return iou
    if kind == "giou":
        hull = hull_w * hull_h + EPSILON
        return iou - (hull - union) / hull
    diagonal = hull_w**2 + hull_h**2 + EPSILON
    distance = (ax - bx) ** 2 + (ay - by) ** 2
    v = (4 / math.pi**2) * (torch.atan(aw / (ah + EPSILON)) - torch.atan(bw / (bh + EPSILON))) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + 1 + EPSILON)
    return iou - distance / diagonal - alpha * v


def exponential_size(raw: Tensor) -> Tensor:
    """e^t, the factor on an anchor's sides before yolov5; at most a thousand, so that a wild output stays a number."""
    return raw.clamp(max=math.log(MOST_ANCHORS)).exp()


def decode(maps: list[Tensor], anchors: Tensor, strides: Tensor, lineage: str = "yolov5") -> Tensor:
    """Raw maps (B, na, H, W, 5 + nc) to rows (B, sum of na H W, 5 + nc): centre and size in pixels, objectness, class scores.

    x = (2 s(tx) - 0.5 + column) stride and w = (2 s(tw))^2 anchor, with s the logistic function: a box reaches at most 1.5
    cells beyond its cell's corner and four anchors of width, and never overflows. ``anchors`` (levels, na, 2) in grid units.
    Before yolov5: x = (s(tx) + column) stride and w = e^tw anchor (arXiv:1804.02767).
    """
    rows = []
    for level, raw in enumerate(maps):
        b, na, h, w, width = raw.shape
        stride = strides[level]
        row, column = torch.meshgrid(torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij")
        cell = torch.stack((column, row), -1).to(raw.dtype)
        p = raw.float().sigmoid()
        if lineage == "yolov5":
            offset, factor = p[..., :2] * 2 - 0.5, (p[..., 2:4] * 2) ** 2
        else:
            offset, factor = p[..., :2], exponential_size(raw[..., 2:4].float())
        xy = (offset + cell) * stride
        wh = factor * (anchors[level] * stride).view(1, na, 1, 1, 2)
        rows.append(torch.cat((xy, wh, p[..., 4:]), -1).reshape(b, na * h * w, width))
    return torch.cat(rows, 1)
