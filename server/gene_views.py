"""A hyp set gene by gene, against the default and its parent, as pages show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from evolution.space import Gene, Space
from hypevolve.messages import Answer, Value

STUCK_FROM = 10  # candidates: a gene that has not moved in fewer may only have been unlucky


class GeneLine(Answer):
    """One gene of one hyp set. ``change``, ``position`` and ``start_position`` are shares of the range, on the gene's scale."""

    """One gene of one hyp set. ``change``, ``position`` and ``start_position`` are shares of the range, on the gene's scale."""

    name: str
    meaning: str
    start: Value
    parent: Value | None
    value: Value
    change: float
    position: float
    start_position: float
    lower: float
    upper: float
    choices: list[Value]
    fixed: bool
    at_bound: Literal["lower", "upper"] | None


def compare(space: Space, hyp: Mapping[str, Value], parent: Mapping[str, Value] | None) -> list[GeneLine]:
    """Every gene, those that differ most from the default first, fixed ones last."""
    lines = [_line(gene, hyp[gene.name], None if parent is None else parent.get(gene.name)) for gene in space]
    return sorted(lines, key=lambda line: (line.fixed, -abs(line.change)))


def stuck(space: Space, hyps: Sequence[Mapping[str, Value]]) -> list[str]:
    """Genes that should move, yet have one value in all of ``hyps``."""
    if len(hyps) < STUCK_FROM:
        return []
    return [gene.name for gene in space if not gene.fixed and len({hyp[gene.name] for hyp in hyps}) == 1]


def _line(gene: Gene, value: Value, parent: Value | None) -> GeneLine:
    number = gene.encode(value)
    here, start = _share(gene, number), _share(gene, gene.start)
    change = here - start
    if gene.choices:  # without an order, any other choice is as far away as can be
        change = float(number != gene.start)
    bound: Literal["lower", "upper"] | None = None
    if not gene.fixed and not gene.choices and number in (gene.lower, gene.upper):
        bound = "lower" if number == gene.lower else "upper"
    return GeneLine(
        name=gene.name,
        meaning=gene.meaning,
        start=gene.decode(gene.start),
        parent=parent,
        value=value,
        change=change,
        position=here,
        start_position=start,
        lower=gene.lower,
        upper=gene.upper,
        choices=[*gene.choices],
        fixed=gene.fixed,
        at_bound=bound,
    )


def _share(gene: Gene, value: float) -> float:
    """How far between the bounds, 0 to 1, in steps that matter equally."""
    low, high = _scaled(gene, gene.lower), _scaled(gene, gene.upper)
    if low >= high:
        return 0.5
    return min(max((_scaled(gene, value) - low) / (high - low), 0.0), 1.0)


def _scaled(gene: Gene, value: float) -> float:
    if gene.scale == "log" and gene.lower > 0 and value > 0:
        return math.log(value)
    if gene.scale == "log1m" and gene.upper < 1 and value < 1:
        return -math.log(1 - value)
    return value
