"""The unit cube: hyp sets as points in [0, 1]^d in which equal steps matter equally.

A gene of scale ``log`` is laid out by its logarithm, ``log1m`` (momenta) by the logarithm of 1 - x, any other linearly. A log
gene whose range begins at 0 is shifted by a fiftieth of its upper bound, so that 0 is a point like any other. Steps are added
and reflected at the bounds: a gene that is 0 can move. Only genes that are not fixed have an axis.
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


class Cube:
    """The map between hyp sets of a space and points; ``start`` is the point of the start hyp set.

    Raises:
        ValueError: every gene is fixed.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._genes = [gene for gene in space if not gene.fixed]
        if not self._genes:
            raise ValueError("no gene can move: each is fixed")
        lower = np.array([gene.lower for gene in self._genes])
        upper = np.array([gene.upper for gene in self._genes])
        self._mirrored = np.array([gene.scale == "log1m" for gene in self._genes])
        low, high = np.where(self._mirrored, 1 - upper, lower), np.where(self._mirrored, 1 - lower, upper)
        # A logarithm needs a range above 0; where the bounds do not give one, the axis is linear.
        self._log = np.array([gene.scale != "linear" for gene in self._genes]) & (low >= 0) & (high > 0)
        self._shift = np.where(self._log & (low == 0), high * ZERO_SHIFT, 0.0)
        self._origin = self._axis(low)
        self._length = self._axis(high) - self._origin
        self.start: Vector = self.points([space.start])[0]

    def __len__(self) -> int:
        return len(self._genes)

    def _axis(self, y: Matrix) -> Matrix:
        positive = np.maximum(np.where(self._log, y + self._shift, 1.0), 1e-300)
        return np.where(self._log, np.log(positive), y)

    def points(self, hyps: Iterable[Mapping[str, float]]) -> Matrix:
        """One point per hyp set; values outside their bounds (bounds may have changed) are moved to the nearest bound."""
        names = [gene.name for gene in self._genes]
        values = np.array([[hyp[name] for name in names] for hyp in hyps], dtype=np.float64).reshape(-1, len(names))
        y = np.where(self._mirrored, 1 - values, values)
        return np.clip((self._axis(y) - self._origin) / self._length, 0.0, 1.0)

    def hyp(self, point: Vector) -> dict[str, float]:
        """The hyp set at a point, inside the space; whole numbers for integer genes."""
        z = self._origin + np.clip(point, 0.0, 1.0) * self._length
        y = np.where(self._log, np.exp(np.where(self._log, z, 0.0)) - self._shift, z)
        values = np.where(self._mirrored, 1 - y, y)
        hyp = self._space.start
        for gene, value in zip(self._genes, values.tolist(), strict=True):
            rounded = float(round(value)) if gene.integer else float(f"{value:.{DIGITS}g}")
            hyp[gene.name] = gene.clip(rounded) + 0.0  # never -0.0
        return hyp


def reflected(points: Matrix) -> Matrix:
    """Points outside the cube mirrored at the face they crossed."""
    return np.asarray(1 - np.abs(1 - np.abs(points) % 2))
