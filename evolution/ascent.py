"""Gradient ascent of many points at once, each in a box of its own: RMSProp (Tieleman and Hinton, 2012) in units of the box.

A step is a share of the box's half width along every axis, whatever the function's scale. Dozens of ascents are a few matrix
products together; one at a time, a general optimiser reaches the same heights for twenty times as much (docs/log-search.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evolution.cube import Matrix, Vector

STEP = 0.4  # of the half width, at first; it falls to 0
MEMORY = 0.9  # of the mean squared slope

Objective = Callable[[Matrix], tuple[Vector, Matrix]]


def ascend(objective: Objective, starts: Matrix, lower: Matrix, upper: Matrix, steps: int) -> Matrix:
    """The highest points passed, one for each start; an axis without width does not move.

    Args:
        objective: values (n,) and gradients (n, d) at points (n, d).
        starts, lower, upper: (n, d), with lower <= starts <= upper.
    """
    half = (upper - lower) / 2
    points, best, highest = starts, starts.copy(), np.full(len(starts), -np.inf)
    square = np.zeros_like(starts)
    for step in range(steps + 1):
        values, slopes = objective(points)
        better = values > highest
        best[better], highest[better] = points[better], values[better]
        slopes = slopes * half
        square = MEMORY * square + (1 - MEMORY) * slopes**2
        direction = slopes / np.sqrt(square / (1 - MEMORY ** (step + 1)) + 1e-24)
        points = np.clip(points + STEP * (1 - step / steps) * half * direction, lower, upper)
    return best
