"""Which anchors answer for which labels: matching by shape, with up to three cells per label (docs/DETECTOR.md, "yolov5")."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Positives(NamedTuple):
    """The p anchor cells of one level that answer for a label.

    ``image``, ``anchor``, ``row``, ``column``, ``label_class``: (p,) integers. ``box`` (p, 4): centre relative to the cell's
    corner, in (-0.5, 1.5), and size, both in grid units. ``anchor_size`` (p, 2): grid units. ``counts`` (p,): true; of fixed
    shape (``fixed``), the entries are all that could answer, and ``counts`` says which do.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    label_class: Tensor
    box: Tensor
    anchor_size: Tensor
    counts: Tensor


def assign(targets: Tensor, anchors: Tensor, height: int, width: int, anchor_t: float, fixed: bool = False) -> Positives:
    """Positives of one level with ``height`` x ``width`` cells.

    ``targets`` (n, 6): image, class, centre x, centre y, width, height, the last four as fractions of the image; a row without
    area matches nothing. ``anchors`` (na, 2) in grid units. A label matches an anchor if no side differs by a factor of
    ``anchor_t`` or more; one label may match several anchors or none. Beside the cell of its centre the nearer horizontal and
    the nearer vertical neighbour answer too, where they lie on the map. ``fixed``: p = 5 na n, whatever matches.
    """
    boxes = in_cells(targets, height, width)
    ratio = boxes[None, :, 2:] / anchors[:, None]
    anchor, label, matches = pairs(torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t, fixed)

    x, y = boxes[label, 0], boxes[label, 1]
    column, row = x.floor().long(), y.floor().long()
    # The cell of the centre, and its left, upper, right and lower neighbours.
    columns = torch.stack((column, column - 1, column, column + 1, column))
    rows = torch.stack((row, row, row - 1, row, row + 1))
    near = ((x % 1 < 0.5) & (x > 1), (y % 1 < 0.5) & (y > 1))
    near += (((width - x) % 1 < 0.5) & (width - x > 1), ((height - y) % 1 < 0.5) & (height - y > 1))
    step, match, counts = pairs(torch.stack((matches, *(matches & n for n in near))), fixed)
    column, row = columns[step, match].clamp(0, width - 1), rows[step, match].clamp(0, height - 1)
    return positives(targets, boxes, anchors, label[match], anchor[match], column, row, counts)


def in_cells(targets: Tensor, height: int, width: int) -> Tensor:
    """Centre and size (n, 4) of targets (n, 6) in grid units of a map."""
    # Scalars, since a constant tensor would be copied to the device anew, and waited for, at each step.
    return torch.stack((targets[:, 2] * width, targets[:, 3] * height, targets[:, 4] * width, targets[:, 5] * height), 1)


def pairs(mask: Tensor, fixed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns (p,) where ``mask`` (a, b) is true, and ones; ``fixed``: all a b of them, and the mask.

    How many are true is known to the device alone: asking for it makes the host wait. Of fixed shape nobody asks.
    """
    if not fixed:
        first, second = mask.nonzero(as_tuple=True)
        return first, second, torch.ones_like(first, dtype=torch.bool)
    first, second = (torch.arange(n, device=mask.device) for n in mask.shape)
    return first.repeat_interleave(mask.shape[1]), second.repeat(mask.shape[0]), mask.flatten()


def positives(
    targets: Tensor, boxes: Tensor, anchors: Tensor, label: Tensor, anchor: Tensor, column: Tensor, row: Tensor, counts: Tensor
) -> Positives:
    """What the loss needs of pairs (label, anchor) and their cells."""
    boxes = boxes[label]
    offset = boxes[:, :2] - torch.stack((column, row), 1)
    return Positives(
        image=targets[label, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        label_class=targets[label, 1].long(),
        box=torch.cat((offset, boxes[:, 2:]), 1),
        anchor_size=anchors[anchor],
        counts=counts,
    )
