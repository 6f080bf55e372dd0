"""What the plots of an evolution show, as numbers: progress, the density of each gene's scatter, and a gene in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evolution.space import Gene


class Step(NamedTuple):
    """From candidate ``number`` on, the best fitness is ``fitness``."""

    number: int
    fitness: float


class GeneSummary(NamedTuple):
    """A gene over the finished candidates. ``best`` is the value of the fittest; shares are of candidates, 0 to 1.

    Many values at a bound say that the bound, not the data, decides.
    """

    name: str
    best: float
    smallest: float
    largest: float
    at_lower: float
    at_upper: float


def best_so_far(fitness: Mapping[int, float]) -> list[Step]:
    """The steps of the best fitness, from fitness by candidate number; of equal values the first counts."""
    steps: list[Step] = []
    for number in sorted(fitness):
        if not steps or fitness[number] > steps[-1].fitness:
            steps.append(Step(number, fitness[number]))
    return steps


def density(values: Sequence[float], fitnesses: Sequence[float], bins: int = 20) -> list[int]:
    """For each point (value, fitness), how many points share its cell of a bins x bins grid over their range: its colour.

    An axis on which all points agree is one cell wide.
    """
    if len(values) != len(fitnesses):
        raise ValueError(f"{len(values)} values and {len(fitnesses)} fitnesses")
    if not len(values):
        return []
    cells = _cells(values, bins) * bins + _cells(fitnesses, bins)
    _, inverse, counts = np.unique(cells, return_inverse=True, return_counts=True)
    return [int(count) for count in counts[inverse]]


def _cells(values: Sequence[float], bins: int) -> NDArray[np.int64]:
    x = np.asarray(values, dtype=np.float64)
    low, span = x.min(), np.ptp(x)
    if span == 0:
        return np.zeros(len(x), dtype=np.int64)
    cells: NDArray[np.int64] = ((x - low) / span * bins).astype(np.int64)
    return np.minimum(cells, bins - 1)


def summarize(gene: Gene, values: Sequence[float], fitnesses: Sequence[float]) -> GeneSummary:
    """One gene over the finished candidates, given in the order of their numbers: of equals the first is best.

    Raises:
        ValueError: there are none.
    """
    if not len(values) or len(values) != len(fitnesses):
        raise ValueError(f"{len(values)} values and {len(fitnesses)} fitnesses")
    x = np.asarray(values, dtype=np.float64)
    return GeneSummary(
        name=gene.name,
        best=float(x[int(np.argmax(np.asarray(fitnesses, dtype=np.float64)))]),
        smallest=float(x.min()),
        largest=float(x.max()),
        at_lower=float(np.mean(x <= gene.lower)),
        at_upper=float(np.mean(x >= gene.upper)),
    )
