"""The rule that yolov5 evolved with from September 2020 until 2023, and yolov3 still does: one parent, multiplied.

==========================  ===================================================================================
parent                      one of the n = min(5, rows) fittest, drawn with weight f - min f + 1e-6
(option ``parent``)         or, as ``weighted``, the mean of those n rows under the same weights
factor per gene             v = clip(1 + gain * b * z * u * sigma, 0.3, 3)
                            b ~ Bernoulli(0.8) and z ~ N(0, 1) per gene, u ~ U(0, 1) once per draw, sigma = 0.2
duplicate guard             drawn again while no gene that can move has v != 1
child                       parent * v, clipped to the bounds, rounded to 5 decimals
first candidate             the given hyp set, unchanged; children come from it until a row is finished
==========================  ===================================================================================

Published numbers and behaviour, written anew. The one departure: the draw of the parent is honest. The original program drew it
from a generator that training had just re-seeded with 0, so that every draw was the same number and fell on much the same rank
(docs/EVOLUTION.md). ``faithful: true`` does as the program did, and reads its parents back with the five digits of its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolution import options
from evolution.choices import chosen, mean, switched
from evolution.space import Gene, Space
from evolution.strategy import History, Needs, Proposal, Rule, by_fitness

Vector = NDArray[np.float64]

DECIMALS = 5
DIGITS = 5  # of evolve.csv
SMALLEST_FACTOR, LARGEST_FACTOR = 0.3, 3.0
LEAST_WEIGHT = 1e-6
MOST_DRAWS = 10_000
SEEDED_DRAW = 0.8444218515250481  # the first number of the program's generator after it was seeded with 0


@dataclass(frozen=True)
class Yolov5(Rule):
    """The rule and its options; the defaults are yolov5's."""

    parents: int = 5
    parent: str = "single"
    mutation_probability: float = 0.8
    sigma: float = 0.2
    faithful: bool = False

    def __post_init__(self) -> None:
        """Raises OptionError, which names the option and what it may be."""
        options.whole("parents", self.parents, 1, 1000)
        options.choice("parent", self.parent, ("single", "weighted"))
        # The lower limits keep the expected number of draws until something moves below a hundred.
        for option, least in (("mutation_probability", 0.01), ("sigma", 0.001)):
            object.__setattr__(self, option, options.number(option, getattr(self, option), least, 1))
        options.flag("faithful", self.faithful)

    @property
    def needs(self) -> Needs:
        return Needs(fittest=self.parents)

    def moves(self, gene: Gene, value: float) -> bool:
        """A factor moves whatever is not fixed and not 0: 0 times anything is 0. A choice is drawn anew."""
        return movable_by_factor(gene, value)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A child of the fittest rows, or of the start hyp set while there are none; see ``Strategy.propose``."""
        start = np.array([gene.start for gene in space])
        parent, numbers = self._parent(space, history, rng)
        if parent is None or not self._movable(space, parent).any():
            # A parent whose genes have all rounded to 0 can have no children; the campaign goes on from its start.
            parent, numbers = start, ()
        movable = self._movable(space, parent)
        if not movable.any():
            raise ValueError("no gene can move: each is fixed, or 0, which no factor changes")
        multiplied = movable & ~chosen(space)
        if not multiplied.any():
            return Proposal(switched(space, bounded(space, parent), rng, surely=True), numbers)
        gains = np.array([0.0 if gene.choices else gene.gain for gene in space])
        factors = draw_factors(gains, multiplied, rng, probability=self.mutation_probability, sigma=self.sigma)
        return Proposal(switched(space, bounded(space, parent * factors), rng), numbers)

    def _parent(self, space: Space, history: History, rng: np.random.Generator) -> tuple[Vector | None, tuple[int, ...]]:
        rows = by_fitness(history.fittest)[: self.parents]
        if not rows:
            return None, ()
        weights = parent_weights([row.fitness for row in rows])
        hyps = np.array([[row.hyp[name] for name in space.names] for row in rows])
        if self.faithful:
            hyps = in_file(hyps, DIGITS)
        if self.parent == "weighted":
            return mean(space, hyps, weights), tuple(row.number for row in rows)
        drawn = index_at(weights, SEEDED_DRAW if self.faithful else rng.random())
        return hyps[drawn], (rows[drawn].number,)

    def _movable(self, space: Space, parent: Vector) -> NDArray[np.bool_]:
        return np.array([self.moves(gene, value) for gene, value in zip(space, parent, strict=True)], dtype=bool)


def movable_by_factor(gene: Gene, value: float) -> bool:
    """True where a rule that multiplies can move a gene: it is not fixed and not 0, or it is one of choices."""
    return not gene.fixed and (value != 0 or bool(gene.choices))


def parent_weights(fitness: Sequence[float], least: float = LEAST_WEIGHT) -> Vector:
    """Weights of the parents, summing to 1: in proportion to f - min f + ``least``; equal rows have equal weights."""
    f = np.asarray(fitness, dtype=np.float64)
    largest = float(np.abs(f).max())
    if largest > 1e100:  # the difference of huge numbers must not overflow
        f = f / largest
    weights = f - f.min() + least
    if not weights.any():
        weights = np.ones(len(f))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def in_file(values: NDArray[np.float64], digits: int) -> Vector:
    """Values as they come back from a file of so many significant digits."""
    return np.array([float(f"{value:.{digits}g}") for value in values.ravel()]).reshape(values.shape)


def index_at(weights: Vector, uniform: float) -> int:
    """The index on which a number from [0, 1) falls, each index being as wide as its weight; weights sum to 1."""
    return min(int(np.searchsorted(np.cumsum(weights), uniform, side="right")), len(weights) - 1)


def draw_index(weights: Vector, rng: np.random.Generator) -> int:
    """An index drawn with the given weights (which sum to 1), from one uniform number."""
    return index_at(weights, rng.random())


def draw_factors(
    gains: Vector, movable: NDArray[np.bool_], rng: np.random.Generator, *, probability: float = 0.8, sigma: float = 0.2
) -> Vector:
    """One factor per gene, in [0.3, 3]; 1 where the gene keeps its value. At least one movable gene has another factor.

    Raises:
        ValueError: no gene is movable, or gains so small that nothing moves in 10,000 draws.
    """
    if not movable.any():
        raise ValueError("no gene can move")
    for _ in range(MOST_DRAWS):
        mutated = rng.random(len(gains)) < probability
        z = rng.standard_normal(len(gains))
        u = rng.random()
        factors = np.clip(1 + gains * mutated * z * u * sigma, SMALLEST_FACTOR, LARGEST_FACTOR)
        if (factors[movable] != 1).any():
            return np.asarray(factors, dtype=np.float64)
    raise ValueError(f"no gene moved in {MOST_DRAWS:,} draws; gains, mutation_probability or sigma are too small")


def bounded(space: Space, values: Vector) -> dict[str, float]:
    """Values clipped to the bounds and rounded; clipped again, since rounding may step over a bound finer than 5 decimals."""
    hyp = {}
    for gene, value in zip(space, values, strict=True):
        rounded = round(gene.clip(float(value)), 0 if gene.integer or gene.choices else DECIMALS) + 0.0  # never -0.0
        hyp[gene.name] = gene.clip(rounded)
    return hyp


def tidy(space: Space, values: Vector) -> dict[str, float]:
    """Values clipped to the bounds and rounded to six significant digits; whole numbers for integer genes."""
    hyp = {}
    for gene, value in zip(space, values, strict=True):
        inside = gene.clip(float(value))
        hyp[gene.name] = gene.clip(float(round(inside)) if gene.integer or gene.choices else float(f"{inside:.6g}")) + 0.0
    return hyp
