"""The two rules of the ultralytics package's tuner: September 2025 (crossover) and August 2026 (elite covariance).

``ultralytics-2025``
==========================  ===================================================================================
parents                     nine rows drawn with replacement among the nine fittest, with weight f - min f + 1e-6
crossover                   BLX: every gene is uniform in [low - 0.2 span, high + 0.2 span] of the drawn rows
factor per gene             with probability 0.5: exp(N(0, sigma g)), clipped to 0.25 ... 4; drawn again while all are 1
sigma                       0.2, falling to 0.1 over 300 candidates
==========================  ===================================================================================

``ultralytics-2026``
==========================  ===================================================================================
parent                      one of the nine fittest, with the same weights; genes are laid out from 0 to 1, linearly
decay                       1 - 0.2 min(stale / 25, 1), stale = rows since the best
sigma per gene              the larger of 0.2 g decay and the gene's resolution (1e-5, or 1 for integers)
child                       with probability 0.5 per gene: + sigma z, clipped
from 30 rows                with probability 0.4 c, c = min(elite / d, 1), those genes come instead from a normal around
                            the parent with covariance cov(elite) decay^2 c + diag(sigma^2 / d), reflected; the elite are
                            the fittest fifth, at most 30
duplicates                  drawn again while the child is a finished, failed or pending one, up to 200 times, the last 100 at
                            random; with ``faithful: true`` pending ones are not looked at, as in the program
==========================  ===================================================================================

Published numbers and behaviour, written anew. Gains g are the campaign's. Order of rows is that of their numbers, where the
program's is that of completion. While there is no row, children come from the start hyp set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolution import options
from evolution.choices import anew, chosen, switched
from evolution.cube import reflected
from evolution.space import Gene, Space
from evolution.strategy import Candidate, History, Needs, Proposal, Row, Rule, by_fitness
from evolution.yolov5_2021 import DECIMALS, MOST_DRAWS, Vector, bounded, draw_index, movable_by_factor, parent_weights

PARENTS = 9
WIDENED = 0.2
MUTATED = 0.5
SIGMA = 0.2
ADAPTED_OVER = 300
STALE_AFTER = 25
ELITE_FROM, ELITE_SHARE, ELITE_MOST = 30, 0.2, 30
DRAWS, LOCAL_DRAWS = 200, 100


def blend(rows: NDArray[np.float64], rng: np.random.Generator) -> Vector:
    """BLX-alpha: each gene uniform over the rows' range, widened by a fifth on either side."""
    low, high = rows.min(0), rows.max(0)
    margin = WIDENED * (high - low)
    return np.asarray(low - margin + rng.random(rows.shape[1]) * (high - low + 2 * margin))


def factors_2025(gains: Vector, sigma: float, movable: NDArray[np.bool_], rng: np.random.Generator) -> Vector:
    """One factor per gene, in [0.25, 4]; at least one movable gene has another factor than 1.

    Raises:
        ValueError: gains so small that nothing moves in 10,000 draws.
    """
    for _ in range(MOST_DRAWS):
        mutated = rng.random(len(gains)) < MUTATED
        factors = np.where(mutated, np.clip(np.exp(rng.standard_normal(len(gains)) * sigma * gains), 0.25, 4.0), 1.0)
        if (factors[movable] != 1).any():
            return np.asarray(factors)
    raise ValueError(f"no gene moved in {MOST_DRAWS:,} draws; gains are too small")


def sigma_2025(number: int) -> float:
    return SIGMA * (1 - 0.5 * min(number / ADAPTED_OVER, 1.0))


def decay_2026(stale: int) -> float:
    return 1 - 0.2 * min(stale / STALE_AFTER, 1.0)


def steps_2026(
    parent: Vector, elite: NDArray[np.float64], sigma: Vector, decay: float, mutable: int, rng: np.random.Generator
) -> Vector:
    """A child in [0, 1] of a parent: steps of its own per gene, or along the elite's covariance (``elite`` may be empty)."""
    masked = rng.random(len(parent)) < MUTATED
    confidence = min(len(elite) / mutable, 1.0)
    if rng.random() < 0.4 * confidence:
        covariance = np.cov(elite, rowvar=False).reshape(len(parent), -1) * decay**2 * confidence
        drawn = rng.multivariate_normal(parent, covariance + np.diag(sigma**2 / mutable), method="eigh")
        return reflected(np.where(masked, drawn, parent))
    return np.clip(parent + masked * sigma * rng.standard_normal(len(parent)), 0.0, 1.0)


def _values(space: Space, rows: Sequence[Row]) -> NDArray[np.float64]:
    return np.array([[row.hyp[name] for name in space.names] for row in rows]).reshape(-1, len(space))


@dataclass(frozen=True)
class UltralyticsOf2025(Rule):
    """The rule of September 2025."""

    @property
    def needs(self) -> Needs:
        return Needs(fittest=PARENTS)

    def moves(self, gene: Gene, value: float) -> bool:
        """A factor moves whatever is not fixed and not 0; crossover moves a 0 only where some row has another value."""
        return movable_by_factor(gene, value)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A blend of the fittest rows, multiplied; see ``Strategy.propose``."""
        rows = by_fitness(history.fittest)[:PARENTS]
        parents: tuple[int, ...] = ()
        child = np.array([gene.start for gene in space])
        if rows:
            weights = parent_weights([row.fitness for row in rows])
            drawn = [draw_index(weights, rng) for _ in range(PARENTS)]
            values = _values(space, rows)[drawn]
            child = np.where(chosen(space), values[0], blend(values, rng))  # a choice is that of the first one drawn
            parents = tuple(sorted({rows[i].number for i in drawn}))
        movable = np.array([self.moves(gene, value) for gene, value in zip(space, child, strict=True)], dtype=bool)
        if not movable.any():
            raise ValueError("no gene can move: each is fixed, or 0, which no factor changes")
        multiplied = movable & ~chosen(space)
        if not multiplied.any():
            return Proposal(switched(space, bounded(space, child), rng, surely=True), parents)
        gains = np.array([0.0 if gene.choices else gene.gain for gene in space])
        factors = factors_2025(gains, sigma_2025(history.number), multiplied, rng)
        return Proposal(switched(space, bounded(space, child * factors), rng), parents)


@dataclass(frozen=True)
class UltralyticsOf2026(Rule):
    """The rule of August 2026 and its option."""

    faithful: bool = False

    def __post_init__(self) -> None:
        options.flag("faithful", self.faithful)

    @property
    def needs(self) -> Needs:
        return Needs(fittest=round(ELITE_MOST / ELITE_SHARE), newest=STALE_AFTER + 1, failed=100, pending=not self.faithful)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A step from one of the fittest rows; see ``Strategy.propose``."""
        if all(gene.fixed for gene in space):
            raise ValueError("no gene can move: each is fixed")
        genes = [i for i, gene in enumerate(space) if not gene.fixed and not gene.choices]
        lower = np.array([gene.lower for gene in space])
        span = np.array([max(gene.upper - gene.lower, 1e-300) for gene in space])
        rows = by_fitness(history.fittest)
        points = np.clip((_values(space, rows) - lower) / span, 0.0, 1.0)
        seen: list[Row | Candidate] = [*history.rows, *history.failed, *(() if self.faithful else history.pending)]
        known = {tuple(one.hyp[name] for name in space.names) for one in seen} | {tuple(space.start.values())}
        parents: tuple[int, ...] = ()
        parent, decay, elite = (np.array([gene.start for gene in space]) - lower) / span, 1.0, points[:0]
        if rows:
            weights = parent_weights([row.fitness for row in rows[:PARENTS]])
            drawn = draw_index(weights, rng)
            parent, parents = points[drawn], (rows[drawn].number,)
            decay = decay_2026(stale(history))
            if len(rows) >= ELITE_FROM:
                elite = points[: min(math.ceil(len(rows) * ELITE_SHARE), ELITE_MOST)]
        resolution = np.array([1.0 if gene.integer else 10.0**-DECIMALS for gene in space]) / span
        sigma = np.maximum(SIGMA * decay * np.array([gene.gain for gene in space]), resolution)
        hyp = space.start
        for draw in range(DRAWS):
            if draw < LOCAL_DRAWS:
                child = parent.copy()
                if genes:
                    child[genes] = steps_2026(parent[genes], elite[:, genes], sigma[genes], decay, len(genes), rng)
                hyp = switched(space, bounded(space, lower + child * span), rng)
            else:
                hyp, parents = bounded(space, anew(space, rng)), ()
            if tuple(hyp.values()) not in known:
                break
        return Proposal(hyp, parents)


def stale(history: History) -> int:
    """How many rows came after the best one, as far as they are shown; ties, to five decimals, are for the first."""
    best = max(round(row.fitness, DECIMALS) for row in history.rows)
    first = min(row.number for row in history.rows if round(row.fitness, DECIMALS) == best)
    return sum(row.number > first for row in history.newest)
