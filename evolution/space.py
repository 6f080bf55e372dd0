"""What may vary and how far: a gene, and the ordered space of genes a campaign searches.

The space knows bounds, gains and rounding; it does not know how a child is bred (``evolution.yolov5_2021``) nor what a gene
means to a detector (``evolution.hyperparameters``).

A hyp set as people, workers and files see it holds a ``Value`` per gene: a number, or one of the gene's ``choices`` (texts such
as ``AdamW``, or false and true). Strategies see numbers alone: a choice is its index, between ``lower`` 0 and ``upper`` n - 1.
``Space.encode`` and ``Space.decode`` go from one to the other, at the edge where rows come from the database.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log", "log1m"]
Value = float | bool | str
Coding = tuple[tuple[tuple[str, ...] | tuple[bool, ...], float], ...]


@dataclass(frozen=True)
class Gene:
    """One hyperparameter as a campaign searches it.

    ``start`` is the value of candidate 0, as a number (of a gene of choices: the index). ``gain`` scales the mutation step; 0
    fixes the gene. ``scale`` says where equal steps matter: ``log`` for values that span decades, ``log1m`` (log of 1 - x) for
    momenta, ``linear`` for fractions. ``integer`` genes hold whole numbers. ``choices`` are values without an order.
    """

    name: str
    start: float
    gain: float
    lower: float
    upper: float
    scale: Scale = "linear"
    integer: bool = False
    meaning: str = ""
    choices: tuple[str, ...] | tuple[bool, ...] = ()

    @property
    def fixed(self) -> bool:
        """True where the gene keeps its start value in every candidate."""
        return self.gain == 0 or self.lower == self.upper

    def clip(self, value: float) -> float:
        """``value`` moved to the nearest point inside [lower, upper]; a fixed gene stays where it is."""
        if self.fixed:
            return self.start
        return min(max(value, self.lower), self.upper)

    def encode(self, value: Value) -> float:
        """``value`` as strategies see it. A choice that the gene no longer has becomes the start."""
        if not self.choices:
            return float(value)
        return float(self.choices.index(value)) if value in self.choices else self.start

    def decode(self, number: float) -> Value:
        """The inverse of ``encode``."""
        return self.choices[round(number)] if self.choices else number


@dataclass(frozen=True)
class Space:
    """The genes of a campaign, in the order that every hyp set, file column and table follows."""

    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        names = [gene.name for gene in self.genes]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"genes named twice: {', '.join(repeated)}")

    def __iter__(self) -> Iterator[Gene]:
        return iter(self.genes)

    def __len__(self) -> int:
        return len(self.genes)

    def __getitem__(self, name: str) -> Gene:
        for gene in self.genes:
            if gene.name == name:
                return gene
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(gene.name == name for gene in self.genes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(gene.name for gene in self.genes)

    @property
    def start(self) -> dict[str, float]:
        """The given hyp set as numbers; decoded it is what candidate 0 trains."""
        return {gene.name: gene.start for gene in self.genes}

    @property
    def coding(self) -> Coding:
        """What ``encode`` depends on: two spaces of a campaign with the same coding give the same numbers."""
        return tuple((gene.choices, gene.start) for gene in self.genes if gene.choices)

    def encode(self, hyp: Mapping[str, Value]) -> dict[str, float]:
        """A hyp set as numbers, in the order of the space."""
        return {gene.name: gene.encode(hyp[gene.name]) for gene in self.genes}

    def decode(self, numbers: Mapping[str, float]) -> dict[str, Value]:
        """The hyp set that ``numbers`` stand for."""
        return {gene.name: gene.decode(numbers[gene.name]) for gene in self.genes}

    def contains(self, numbers: Mapping[str, float]) -> bool:
        """True where ``numbers`` assign every gene, no other, a finite value inside its bounds (a fixed gene: its start).

        A gene of choices and an integer gene hold whole numbers.
        """
        if set(numbers) != set(self.names):
            return False
        return all(_allowed(gene, numbers[gene.name]) for gene in self.genes)


def _allowed(gene: Gene, number: float) -> bool:
    if not math.isfinite(number) or gene.clip(number) != number:
        return False
    return gene.fixed or not (gene.integer or gene.choices) or number == round(number)
