"""The two rules that yolov3 evolved with before yolov5: July 2019 and January 2020.

``yolov3-2019``
==========================  ===================================================================================
parent                      the fittest of all rows
factor per gene             (1 + s z)^2, z ~ N(0, 1) per gene, every gene every time
s                           0.15; 0.05 for momentum; 0.20 for weight_decay, hsv_s, hsv_v, degrees, translate, scale, shear
==========================  ===================================================================================

``yolov3-2020``
==========================  ===================================================================================
parent                      the fittest row, or (``parent: weighted``) the mean of the n = min(10, rows) fittest, weighted
                            by f - min f, so that the last of them counts nothing
factor, ``method: 1``       (1 + g s u z)^2, z ~ N(0, 1) per gene, one u ~ U(0, 1) for all genes, s = 0.2
factor, ``method: 2``       the same with a u per gene
factor, ``method: 3``       (1 + g s b z)^2, b ~ Bernoulli(0.1) per gene; drawn again while every factor is 1
==========================  ===================================================================================

The square makes a spread of 2 s and a drift upwards of s^2. Published numbers and behaviour, written anew; what is not as it
was: parents are exact (the programs read them back from a file of three digits: ``faithful: true`` does); every gene is clipped
to its bounds (theirs clipped eight and nine genes); rows that all tie have equal weights (theirs divided by zero: their genes
became NaN, which no training survives). The space, also its gains, is the campaign's: lrf moves unless it is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolution import options
from evolution.choices import chosen, mean, switched
from evolution.space import Gene, Space
from evolution.strategy import History, Needs, Proposal, Rule, by_fitness
from evolution.yolov5_2021 import MOST_DRAWS, Vector, in_file, movable_by_factor, parent_weights, tidy

SIGMA = 0.15
SIGMAS = {"momentum": 0.05} | dict.fromkeys(("weight_decay", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear"), 0.20)
SIGMA_2020 = 0.2
PARENTS_2020 = 10
DIGITS = 3  # of evolve.txt
MUTATION_PROBABILITY_3 = 0.1


def factors_2019(sigmas: Vector, rng: np.random.Generator) -> Vector:
    """One factor per gene."""
    return np.asarray((1 + sigmas * rng.standard_normal(len(sigmas))) ** 2)


def factors_2020(gains: Vector, movable: NDArray[np.bool_], method: int, rng: np.random.Generator) -> Vector:
    """One factor per gene. With method 3 at least one movable gene has another factor than 1.

    Raises:
        ValueError: no gene moved in 10,000 draws of method 3.
    """
    n = len(gains)
    if method in (1, 2):
        return np.asarray((1 + gains * SIGMA_2020 * rng.random(1 if method == 1 else n) * rng.standard_normal(n)) ** 2)
    for _ in range(MOST_DRAWS):
        mutated = rng.random(n) < MUTATION_PROBABILITY_3
        factors = (1 + gains * SIGMA_2020 * mutated * rng.standard_normal(n)) ** 2
        if (factors[movable] != 1).any():
            return np.asarray(factors)
    raise ValueError(f"no gene moved in {MOST_DRAWS:,} draws; gains are too small")


@dataclass(frozen=True)
class _Multiplied(Rule):
    """What both rules share: a parent times a factor per gene."""

    def moves(self, gene: Gene, value: float) -> bool:
        """A factor moves whatever is not fixed and not 0. A choice is drawn anew."""
        return movable_by_factor(gene, value)

    def _movable(self, space: Space, parent: Vector) -> NDArray[np.bool_]:
        """Raises ValueError where no gene can move."""
        movable = np.array([self.moves(gene, value) for gene, value in zip(space, parent, strict=True)], dtype=bool)
        if not movable.any():
            raise ValueError("no gene can move: each is fixed, or 0, which no factor changes")
        return movable


@dataclass(frozen=True)
class Yolov3Of2019(_Multiplied):
    """The rule of July 2019 and its option."""

    faithful: bool = False

    def __post_init__(self) -> None:
        options.flag("faithful", self.faithful)

    @property
    def needs(self) -> Needs:
        return Needs(fittest=1)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A child of the fittest row; see ``Strategy.propose``."""
        rows = by_fitness(history.fittest)[:1]
        parent = np.array([rows[0].hyp[name] if rows else space[name].start for name in space.names])
        if self.faithful and rows:
            parent = in_file(parent, DIGITS)
        multiplied = self._movable(space, parent) & ~chosen(space)
        sigmas = np.array([0.0 if gene.choices else SIGMAS.get(gene.name, SIGMA) for gene in space])
        child = tidy(space, parent * factors_2019(sigmas, rng))
        return Proposal(switched(space, child, rng, surely=not multiplied.any()), tuple(row.number for row in rows))


@dataclass(frozen=True)
class Yolov3Of2020(_Multiplied):
    """The rule of January 2020 and its options; the defaults are those of its code."""

    parent: str = "single"
    method: int = 2
    faithful: bool = False

    def __post_init__(self) -> None:
        options.choice("parent", self.parent, ("single", "weighted"))
        options.choice("method", self.method, (1, 2, 3))
        options.flag("faithful", self.faithful)

    @property
    def needs(self) -> Needs:
        return Needs(fittest=1 if self.parent == "single" else PARENTS_2020)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A child of the fittest rows; see ``Strategy.propose``."""
        rows = by_fitness(history.fittest)[: self.needs.fittest]
        if rows:
            weights = parent_weights([row.fitness for row in rows], least=0.0)
            hyps = np.array([[row.hyp[name] for name in space.names] for row in rows])
            parent = mean(space, in_file(hyps, DIGITS) if self.faithful else hyps, weights)
        else:
            parent = np.array([gene.start for gene in space])
        multiplied = self._movable(space, parent) & ~chosen(space)
        numbers = tuple(row.number for row in rows)
        if not multiplied.any():
            return Proposal(switched(space, tidy(space, parent), rng, surely=True), numbers)
        gains = np.array([0.0 if gene.choices else gene.gain for gene in space])
        factors = factors_2020(gains, multiplied, self.method, rng)
        return Proposal(switched(space, tidy(space, parent * factors), rng), numbers)
