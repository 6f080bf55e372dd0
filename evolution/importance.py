"""Which genes go with fitness, how surely, and what a step in each would change near the best.

An evolution does not sample evenly: what stands here is association within the region it explored, not effect.

=============  ===========================================================================================================
importance     how differently a gene is spread among the fittest tenth and among all rows: the Pearson divergence of two
               smoothed histograms, as a share of the sum over genes (PED-ANOVA: Watanabe, Bansal, Hutter, IJCAI 2023)
interval       90 % of it over rows drawn anew (bootstrap)
rank           Spearman's correlation with fitness; of a choice none
slope          change of fitness for a step of a tenth of the gene's range, by a ridge regression on rows weighted by their
               nearness to the best; with its standard error
=============  ===========================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evolution.cube import Cube, Matrix, Vector
from evolution.space import Space
from evolution.strategy import Row

LEAST_ROWS = 30  # fewer say nothing about 20 to 30 genes
ELITE = 0.1
BINS = 10
SMOOTHING = 0.7  # bins
RESAMPLES = 200
SEED = 0  # of the bootstrap: the same rows give the same intervals
STEP = 0.1
RIDGE = 0.02


class GeneImportance(NamedTuple):
    """One gene. ``share``, ``low`` and ``high`` are 0 to 1; ``slope`` and ``error`` are in fitness; see the module."""

    name: str
    share: float
    low: float
    high: float
    rank: float | None
    slope: float | None
    error: float | None


def positions(space: Space, rows: Sequence[Row]) -> tuple[tuple[str, ...], Matrix]:
    """The genes that may move, and each row's place in 0 to 1 along their scales (a choice: the middle of its share)."""
    moving = [gene for gene in space if not gene.fixed]
    columns = []
    for gene in moving:
        if gene.choices:
            columns.append((np.array([row.hyp[gene.name] for row in rows]) + 0.5) / len(gene.choices))
        else:
            columns.append(Cube(Space((gene,))).points(row.hyp for row in rows)[:, 0])
    return tuple(gene.name for gene in moving), np.array(columns, dtype=np.float64).reshape(len(moving), len(rows)).T


def importance(space: Space, rows: Sequence[Row]) -> list[GeneImportance]:
    """The genes that may move, the most important first; none while there are fewer than 30 rows."""
    names, points = positions(space, rows)
    if len(rows) < LEAST_ROWS or not names:
        return []
    fitness = np.array([row.fitness for row in rows])
    cells = np.minimum((points * BINS).astype(int), BINS - 1)
    shares = _shares(cells, fitness)
    rng = np.random.default_rng(SEED)
    drawn = [rng.integers(len(rows), size=len(rows)) for _ in range(RESAMPLES)]
    low, high = np.quantile([_shares(cells[index], fitness[index]) for index in drawn], [0.05, 0.95], axis=0)
    slopes, errors = slopes_near_best(points, fitness)
    ranked = _ranks(fitness)
    genes = []
    for i, name in enumerate(names):
        choice, still = bool(space[name].choices), np.ptp(points[:, i]) == 0
        rank = 0.0 if still or np.ptp(ranked) == 0 else float(np.corrcoef(_ranks(points[:, i]), ranked)[0, 1])
        numbers = (None, None, None) if choice else (rank, float(slopes[i]), float(errors[i]))
        genes.append(GeneImportance(name, float(shares[i]), float(low[i]), float(high[i]), *numbers))
    return sorted(genes, key=lambda gene: -gene.share)


def _shares(cells: NDArray[np.int_], fitness: Vector) -> Vector:
    """The divergence of each gene's histogram among the fittest from that of all, as shares of their sum."""
    n, d = cells.shape
    best = np.argsort(-fitness, kind="stable")[: max(5, round(n * ELITE))]
    offsets = np.arange(d) * BINS
    counts = [
        np.bincount((part + offsets).ravel(), minlength=d * BINS).reshape(d, BINS).astype(np.float64)
        for part in (cells[best], cells)
    ]
    distance = np.abs(np.subtract.outer(np.arange(BINS), np.arange(BINS)))
    kernel = np.exp(-0.5 * (distance / SMOOTHING) ** 2)
    elite, everybody = (((count + 0.1) @ kernel) for count in counts)
    elite, everybody = elite / elite.sum(1, keepdims=True), everybody / everybody.sum(1, keepdims=True)
    divergence = ((elite - everybody) ** 2 / everybody).sum(1)
    total = divergence.sum()
    return np.asarray(divergence / total) if total > 0 else np.full(d, 1 / d)


def _ranks(values: Vector) -> Vector:
    """Ranks; equal values share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)


def slopes_near_best(points: Matrix, fitness: Vector) -> tuple[Vector, Vector]:
    """What a step of a tenth of each axis changes around the fittest point, and the standard error of that."""
    away = points - points[int(fitness.argmax())]
    distance = np.sqrt((away**2).mean(1))
    reach = max(float(np.median(distance)), 1e-6)
    weights = np.exp(-0.5 * (distance / reach) ** 2)
    features = np.hstack([np.ones((len(points), 1)), away / STEP])
    penalty = RIDGE * weights.sum() * np.eye(features.shape[1])
    penalty[0, 0] = 0.0
    gram = features.T @ (features * weights[:, None]) + penalty
    inverse = np.linalg.pinv(gram)
    found = inverse @ (features.T @ (weights * fitness))
    left = fitness - features @ found
    free = max(weights.sum() - 1, 1.0)
    variance = float((weights * left**2).sum() / free)
    spread = inverse @ (features.T @ (features * (weights**2)[:, None])) @ inverse * variance
    return np.asarray(found[1:]), np.sqrt(np.maximum(np.diag(spread)[1:], 0.0))
