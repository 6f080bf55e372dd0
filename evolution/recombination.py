"""Rank-weighted evolution in the unit cube: the parent is a weighted mean of the best points, a child is a step from it.

Only ranks count, so one fitness that is off by chance or scale moves little. Steps are added, not multiplied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evolution.cube import Matrix, Vector, reflected

PARENTS = 8
STEP = 0.10  # of an axis
MOVED = 0.8  # of the genes


def elite(order: NDArray[np.intp]) -> tuple[NDArray[np.intp], Vector]:
    """The parents out of indices sorted best first, and their weights: at most 8, at most a third, log-rank weights."""
    chosen = order[: min(PARENTS, max(1, len(order) // 3))]
    weights = np.log(len(chosen) + 0.5) - np.log(np.arange(1, len(chosen) + 1))
    return chosen, weights / weights.sum()


def centre(points: Matrix, order: NDArray[np.intp]) -> Vector:
    """The parent: the weighted mean of the elite."""
    chosen, weights = elite(order)
    return np.asarray(weights @ points[chosen])


def child(parent: Vector, rng: np.random.Generator, step: float | Vector = STEP) -> Vector:
    """A step from the parent in most genes, of one size or of one for each axis; children's steps differ up to threefold."""
    return np.asarray(children(parent[None], np.atleast_1d(step)[None], rng)[0])


def children(parents: Matrix, steps: Matrix, rng: np.random.Generator) -> Matrix:
    """A child of each parent, a row of ``parents``, by its row of ``steps``: a size for each axis, or one for all."""
    moved = rng.random(parents.shape) < MOVED
    directions = moved * rng.standard_normal(parents.shape)
    return reflected(parents + directions * steps * rng.uniform(0.5, 1.5, (len(parents), 1)))
