"""Which anchors answer for which labels before yolov5: matching by overlap of sizes, one cell per label (arXiv:1804.02767)."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.assign import Positives


def assign_by_overlap(targets: Tensor, anchors: Tensor, height: int, width: int, iou_t: float) -> Positives:
    """Positives of one level with ``height`` x ``width`` cells.

    ``targets`` (n, 6): image, class, centre x, centre y, width, height, the last four as fractions of the image. ``anchors``
    (na, 2) in grid units. A label matches every anchor whose IoU with it exceeds ``iou_t`` when both are centred on one point;
    it may match several anchors or none. Only the cell of its centre answers, so the box's centre lies in [0, 1).
    """
    size = targets.new_tensor((width, height, width, height))
    boxes = targets[:, 2:] * size
    common = torch.minimum(boxes[None, :, 2:], anchors[:, None]).prod(2)
    union = boxes[:, 2:].prod(1)[None] + anchors.prod(1)[:, None] - common
    anchor, label = (common / union > iou_t).nonzero(as_tuple=True)

    boxes = boxes[label]
    cell = boxes[:, :2].floor().long()
    column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    return Positives(
        image=targets[label, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        label_class=targets[label, 1].long(),
        box=torch.cat((boxes[:, :2] - torch.stack((column, row), 1), boxes[:, 2:]), 1),
        anchor_size=anchors[anchor],
    )
