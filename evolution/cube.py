"""The unit cube: hyp sets as points in [0, 1]^d in which equal steps matter equally.

A gene of scale ``log`` is laid out by its logarithm, ``log1m`` (momenta) by the logarithm of 1 - x, any other linearly. A log
gene whose range begins at 0 is shifted by a fiftieth of its upper bound, so that 0 is a point like any other. Steps are added
and reflected at the bounds: a gene that is 0 can move. Only genes that are not fixed have axes.

=============  ===========================================================================================================
integer        one axis from half below the lower to half above the upper bound: every whole number has the same share
two choices    one axis: the first below 1/2, the second above; rows stand at 0.4 and 0.6, a step away from each other
more choices   an axis for each: the highest wins; rows stand at 0.6 on their own and at 0.4 on the others
=============  ===========================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from evolution.space import Space

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

DIGITS = 6  # significant digits of a bred value
ZERO_SHIFT = 1 / 50  # of the upper bound
OFF, ON = 0.4, 0.6  # where rows stand on the axis of a choice


class Cube:
    """The map between hyp sets of a space (as numbers) and points; ``start`` is the point of the start hyp set.

    ``choosing`` says of each axis whether it is one of a choice.

    Raises:
        ValueError: every gene is fixed.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        moving = [gene for gene in space if not gene.fixed]
        if not moving:
            raise ValueError("no gene can move: each is fixed")
        self._genes = [gene for gene in moving if not gene.choices]
        self._choices = [gene for gene in moving if gene.choices]
        half = np.array([0.5 if gene.integer else 0.0 for gene in self._genes])
        lower = np.array([gene.lower for gene in self._genes]) - half
        upper = np.array([gene.upper for gene in self._genes]) + half
        self._mirrored = np.array([gene.scale == "log1m" for gene in self._genes], dtype=bool)
        low, high = np.where(self._mirrored, 1 - upper, lower), np.where(self._mirrored, 1 - lower, upper)
        # A logarithm needs a range above 0; where the bounds do not give one, the axis is linear.
        self._log = np.array([gene.scale != "linear" for gene in self._genes], dtype=bool) & (low >= 0) & (high > 0)
        self._shift = np.where(self._log & (low == 0), high * ZERO_SHIFT, 0.0)
        self._origin = self._axis(low)
        self._length = self._axis(high) - self._origin
        self.start: Vector = self.points([space.start])[0]
        self.choosing = np.arange(len(self)) >= len(self._genes)

    def __len__(self) -> int:
        return len(self._genes) + sum(_axes(len(gene.choices)) for gene in self._choices)

    def _axis(self, y: Matrix) -> Matrix:
        positive = np.maximum(np.where(self._log, y + self._shift, 1.0), 1e-300)
        return np.where(self._log, np.log(positive), y)

    def points(self, hyps: Iterable[Mapping[str, float]]) -> Matrix:
        """One point per hyp set; values outside their bounds (bounds may have changed) are moved to the nearest bound."""
        names = [gene.name for gene in (*self._genes, *self._choices)]
        values = np.array([[hyp[name] for name in names] for hyp in hyps], dtype=np.float64).reshape(-1, len(names))
        numbers, chosen = values[:, : len(self._genes)], values[:, len(self._genes) :]
        y = np.where(self._mirrored, 1 - numbers, numbers)
        parts = [np.clip((self._axis(y) - self._origin) / self._length, 0.0, 1.0)]
        for gene, column in zip(self._choices, chosen.T, strict=True):
            axes = np.arange(len(gene.choices)) if len(gene.choices) > 2 else np.array([1])
            parts.append(np.where(column[:, None] == axes, ON, OFF))
        return np.hstack(parts)

    def hyp(self, point: Vector) -> dict[str, float]:
        """The hyp set at a point, inside the space; whole numbers for integer genes."""
        z = self._origin + np.clip(point[: len(self._genes)], 0.0, 1.0) * self._length
        y = np.where(self._log, np.exp(np.where(self._log, z, 0.0)) - self._shift, z)
        values = np.where(self._mirrored, 1 - y, y)
        hyp = self.space.start
        for gene, value in zip(self._genes, values.tolist(), strict=True):
            rounded = float(round(value)) if gene.integer else float(f"{value:.{DIGITS}g}")
            hyp[gene.name] = gene.clip(rounded) + 0.0  # never -0.0
        at = len(self._genes)
        for gene in self._choices:
            axes = point[at : at + _axes(len(gene.choices))]
            hyp[gene.name] = float(axes.argmax()) if len(axes) > 1 else float(axes[0] > 0.5)
            at += len(axes)
        return hyp


def _axes(choices: int) -> int:
    return choices if choices > 2 else 1


def reflected(points: Matrix) -> Matrix:
    """Points outside the cube mirrored at the face they crossed."""
    return np.asarray(1 - np.abs(1 - np.abs(points) % 2))
