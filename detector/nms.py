"""Exact greedy non-maximum suppression per class. The result depends on the boxes alone, never on a clock."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 256


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every pair of corner boxes (n, 4) and (m, 4): (n, m)."""
    # Column by column: numpy is ten times slower over a last axis of two.
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.T[:, :, None], b.T[:, None]
    width = np.minimum(ax2, bx2) - np.maximum(ax1, bx1)
    height = np.minimum(ay2, by2) - np.maximum(ay1, by1)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common
    return common / np.maximum(union, 1e-12)


def nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, most: int) -> np.ndarray:
    """Indices of the boxes that stay, best first, at most ``most``.

    A box stays unless a better one of its class that stays overlaps it by more than ``iou``. ``boxes`` (n, 4) corners. Equal
    scores go by index. Works through the sorted boxes block by block and stops when enough were found, which gives the same
    boxes as the whole search would.
    """
    order = np.argsort(-scores, kind="stable")
    # Moved apart by class, boxes of different classes do not overlap.
    reach = float(boxes.max(initial=0) - boxes.min(initial=0)) + 1
    apart = boxes[order].astype(np.float64) + (classes[order].astype(np.float64) * reach)[:, None]
    kept: list[np.ndarray] = []
    kept_boxes = np.empty((0, 4))
    for start in range(0, len(order), BLOCK):
        block = apart[start : start + BLOCK]
        free = ~(box_iou(block, kept_boxes) > iou).any(1) if len(kept_boxes) else np.ones(len(block), bool)
        index = np.flatnonzero(free)
        index = index[_suppress(block[index], iou)]
        kept.append(order[start + index])
        kept_boxes = np.concatenate((kept_boxes, block[index]))
        if len(kept_boxes) >= most:
            break
    return np.concatenate(kept)[:most] if kept else np.empty(0, np.intp)


def _suppress(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Greedy suppression of sorted boxes, as the fixed point of: a box stays unless a better one that stays overlaps it.

    Each round settles at least the next box in order, most rounds many; the fixed point is unique.
    """
    over = np.triu(box_iou(boxes, boxes) > iou, 1)
    stays = np.ones(len(boxes), bool)
    while True:
        now = ~over[stays].any(0)
        if np.array_equal(now, stays):
            return stays
        stays = now


def nms_on_device(boxes: Tensor, scores: Tensor, classes: Tensor, iou: float, most: int) -> tuple[Tensor, Tensor]:
    """``nms`` of a batch, by tensors alone: indices (B, most), best first, and which of them are any (B, most).

    ``boxes`` (B, n, 4), ``scores`` (B, n) from the best down, ``classes`` (B, n). Scores of 0 and less stand for no box.
    """
    batch, n = scores.shape
    if not n:
        return torch.zeros_like(classes), torch.zeros_like(classes, dtype=torch.bool)
    reach = (boxes.amax() - boxes.amin()).double() + 1
    apart = boxes.double() + (classes.double() * reach)[..., None]
    # One place more than needed takes whatever is not kept.
    kept = torch.zeros(batch, most + 1, 4, dtype=torch.float64, device=boxes.device)
    indices = torch.zeros(batch, most + 1, dtype=torch.long, device=boxes.device)
    count = torch.zeros(batch, 1, dtype=torch.long, device=boxes.device)
    slot = torch.arange(most + 1, device=boxes.device)
    for start in range(0, n, BLOCK):
        block, valid = apart[:, start : start + BLOCK], scores[:, start : start + BLOCK] > 0
        hidden = (_iou(block, kept) > iou) & (slot < count)[:, None]
        free = valid & ~hidden.any(2)
        over = (_iou(block, block) > iou).triu(1)
        stays = free
        while True:  # the fixed point of _suppress
            now = free & ~(over & stays[..., None]).any(1)
            if torch.equal(now, stays):
                break
            stays = now
        place = torch.where(stays, count + stays.cumsum(1) - 1, most).clamp(max=most)
        kept.scatter_(1, place[..., None].expand(-1, -1, 4), block)
        indices.scatter_(1, place, torch.arange(start, start + block.shape[1], device=boxes.device).expand(batch, -1))
        count = (count + stays.sum(1, keepdim=True)).clamp(max=most)
        if bool(((count[:, 0] >= most) | ~valid[:, -1]).all()):
            break
    return indices[:, :most], slot[:most] < count


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair of corner boxes (B, n, 4) and (B, m, 4): (B, n, m)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a[:, :, None].unbind(-1), b[:, None].unbind(-1)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    common = width.clamp(min=0) * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common
    return common / union.clamp(min=1e-12)
