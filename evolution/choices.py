"""How rules that know numbers alone treat genes of choices (an optimizer, a switch) and whole numbers.

===================  =====================================================================================================
inheritance          a choice is that of one parent: the one drawn, the side of a crossover, the heaviest of a mean
mutation             a rule that multiplies, or adds a normal step, leaves choices alone; afterwards each changes with
                     probability 0.1 into another one, all alike. A child in which nothing else can move changes one for sure
anew                 where a rule draws a gene between its bounds, every choice and every whole number is equally likely
whole numbers        bred as numbers, clipped, then rounded
===================  =====================================================================================================

None of the historical programs had such genes; this is how their rules are carried over. In the unit cube they have axes of
their own (``evolution.cube``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evolution.space import Space

Vector = NDArray[np.float64]

SWITCHED = 0.1


def chosen(space: Space) -> NDArray[np.bool_]:
    """Which genes are genes of choices."""
    return np.array([bool(gene.choices) for gene in space], dtype=bool)


def switched(space: Space, hyp: dict[str, float], rng: np.random.Generator, *, surely: bool = False) -> dict[str, float]:
    """``hyp`` with some choices changed; with ``surely`` at least one. Nothing is drawn where no choice can move."""
    genes = [gene for gene in space if gene.choices and not gene.fixed]
    if not genes:
        return hyp
    changed = rng.random(len(genes)) < SWITCHED
    if surely and not changed.any():
        changed[rng.integers(len(genes))] = True
    result = dict(hyp)
    for gene, change in zip(genes, changed, strict=True):
        if change:
            other = int(rng.integers(len(gene.choices) - 1))
            result[gene.name] = float(other + (other >= result[gene.name]))
    return result


def anew(space: Space, rng: np.random.Generator) -> Vector:
    """Uniform values between the bounds, one draw per gene; whole numbers and choices equally likely."""
    whole = np.array([gene.integer or bool(gene.choices) for gene in space], dtype=bool)
    lower = np.array([gene.lower for gene in space]) - 0.5 * whole
    upper = np.array([gene.upper for gene in space]) + 0.5 * whole
    values = lower + rng.random(len(space)) * (upper - lower)
    return np.where(whole, np.round(np.clip(values, lower + 0.5 * whole, upper - 0.5 * whole)), values)


def mean(space: Space, rows: NDArray[np.float64], weights: Vector) -> Vector:
    """The weighted mean of rows (one per parent, a column per gene); choices are those of the heaviest, the first of equals."""
    averaged = weights @ rows
    return np.where(chosen(space), rows[int(weights.argmax())], averaged)
