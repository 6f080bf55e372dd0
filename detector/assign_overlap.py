"""Which anchors answer for which labels before yolov5: matching by overlap of sizes, one cell per label (arXiv:1804.02767)."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.assign import Positives, in_cells, pairs, positives


def assign_by_overlap(
    targets: Tensor, anchors: Tensor, height: int, width: int, iou_t: float, fixed: bool = False
) -> Positives:
    """Positives of one level with ``height`` x ``width`` cells.

    ``targets`` (n, 6): image, class, centre x, centre y, width, height, the last four as fractions of the image; a row without
    area matches nothing. ``anchors`` (na, 2) in grid units. A label matches every anchor whose IoU with it exceeds ``iou_t``
    when both are centred on one point; it may match several anchors or none. Only the cell of its centre answers, so the box's
    centre lies in [0, 1). ``fixed``: p = na n, whatever matches.
    """
    boxes = in_cells(targets, height, width)
    common = torch.minimum(boxes[None, :, 2:], anchors[:, None]).prod(2)
    union = boxes[:, 2:].prod(1)[None] + anchors.prod(1)[:, None] - common
    anchor, label, counts = pairs(common / union > iou_t, fixed)
    cell = boxes[label, :2].floor().long()
    column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    return positives(targets, boxes, anchors, label, anchor, column, row, counts)
