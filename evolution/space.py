"""What may vary and how far: a gene, and the ordered space of genes a campaign searches.

The space knows bounds, gains and rounding; it does not know how a child is bred (``evolution.yolov5_2021``) nor what a gene
means to a detector (``evolution.hyperparameters``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log", "log1m"]


@dataclass(frozen=True)
class Gene:
    """One hyperparameter as a campaign searches it.

    ``start`` is the value of candidate 0. ``gain`` scales the mutation step; 0 fixes the gene. ``scale`` says where equal
    steps matter: ``log`` for values that span decades, ``log1m`` (log of 1 - x) for momenta, ``linear`` for fractions.
    """

    name: str
    start: float
    gain: float
    lower: float
    upper: float
    scale: Scale = "linear"
    integer: bool = False
    meaning: str = ""

    @property
    def fixed(self) -> bool:
        """True where the gene keeps its start value in every candidate."""
        return self.gain == 0 or self.lower == self.upper

    def clip(self, value: float) -> float:
        """``value`` moved to the nearest point inside [lower, upper]; a fixed gene stays where it is."""
        if self.fixed:
            return self.start
        return min(max(value, self.lower), self.upper)


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
        """The given hyp set, which candidate 0 trains unchanged."""
        return {gene.name: gene.start for gene in self.genes}

    def contains(self, hyp: Mapping[str, float]) -> bool:
        """True where ``hyp`` assigns every gene, no other, a finite value inside its bounds (a fixed gene: its start)."""
        if set(hyp) != set(self.names):
            return False
        return all(math.isfinite(hyp[gene.name]) and gene.clip(hyp[gene.name]) == hyp[gene.name] for gene in self.genes)
