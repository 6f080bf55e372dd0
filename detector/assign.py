"""Which anchors answer for which labels: matching by shape, with up to three cells per label (docs/DETECTOR.md, "yolov5")."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Positives(NamedTuple):
    """The p anchor cells of one level that answer for a label.

    ``image``, ``anchor``, ``row``, ``column``, ``label_class``: (p,) integers. ``box`` (p, 4): centre relative to the cell's
    corner, in (-0.5, 1.5), and size, both in grid units. ``anchor_size`` (p, 2): grid units.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    label_class: Tensor
    box: Tensor
    anchor_size: Tensor


# The cell of the centre, and its left, upper, right and lower neighbours, as (column, row).
_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


def assign(targets: Tensor, anchors: Tensor, height: int, width: int, anchor_t: float) -> Positives:
    """Positives of one level with ``height`` x ``width`` cells.

    ``targets`` (n, 6): image, class, centre x, centre y, width, height, the last four as fractions of the image. ``anchors``
    (na, 2) in grid units. A label matches an anchor if no side differs by a factor of ``anchor_t`` or more; one label may
    match several anchors or none. Beside the cell of its centre the nearer horizontal and the nearer vertical neighbour
    answer too, where they lie on the map.
    """
    size = targets.new_tensor((width, height, width, height))
    boxes = targets[:, 2:] * size
    ratio = boxes[None, :, 2:] / anchors[:, None]
    anchor, label = (torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t).nonzero(as_tuple=True)

    boxes = boxes[label]
    centre = boxes[:, :2]
    mirrored = size[:2] - centre
    near_start = (centre % 1 < 0.5) & (centre > 1)
    near_end = (mirrored % 1 < 0.5) & (mirrored > 1)
    takes = torch.cat((torch.ones_like(near_start[:, :1]), near_start, near_end), 1)
    step, match = takes.t().nonzero(as_tuple=True)

    cell = centre[match].floor().long() + torch.tensor(_STEPS, device=targets.device)[step]
    column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    offset = centre[match] - torch.stack((column, row), 1)
    label, anchor = label[match], anchor[match]
    return Positives(
        image=targets[label, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        label_class=targets[label, 1].long(),
        box=torch.cat((offset, boxes[match, 2:]), 1),
        anchor_size=anchors[anchor],
    )
