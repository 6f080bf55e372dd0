"""Messages about what a campaign has learned; docs/EVOLUTION.md, section 7, says how each number is made."""

from __future__ import annotations

from typing import Literal

from hypevolve.shapes import Answer, Value


class GeneImportance(Answer):
    """How a gene goes with fitness: ``share`` of the importance with its 90 % interval, rank correlation, slope near the best.

    ``slope`` is the change of fitness for a tenth of the gene's range, ``error`` its standard error; a choice has neither.
    """

    name: str
    share: float
    low: float
    high: float
    rank: float | None
    slope: float | None
    error: float | None


class GeneLife(Answer):
    """How a gene fares among the newest candidates; ``spread`` and the shares at a bound are 0 to 1."""

    name: str
    state: Literal["moves", "fixed", "stuck", "settled", "at bound"]
    spread: float
    at_lower: float
    at_upper: float


class Outlook(Answer):
    """What ``ahead`` further candidates are expected to add, in fitness and as a share of the best."""

    ahead: int
    gain: float
    share: float
    verdict: Literal["early", "go on", "stop"]
    hint: str


class Chapter(Answer):
    """A step in the line of parents of the best: what it gained, and the genes it changed most (name, before, after)."""

    number: int
    fitness: float | None
    gain: float | None
    changed: list[tuple[str, Value, Value]]


class Insight(Answer):
    """What a campaign has learned; it rests on ``rows`` rows, the fittest and the newest."""

    campaign: str
    rows: int
    outlook: Outlook
    diversity: float | None
    importance: list[GeneImportance]
    genes: list[GeneLife]
    story: list[Chapter]
