"""How the next candidate is bred: what every strategy is given and gives back, and the strategies by name.

A strategy is pure: the same space, rows and generator give the same proposal, on any replica of the coordinator. Whatever it
must remember is in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evolution.problems import nearest
from evolution.space import Gene, Space


@dataclass(frozen=True)
class Row:
    """A finished candidate, as a strategy sees it."""

    number: int
    hyp: Mapping[str, float]
    fitness: float


@dataclass(frozen=True)
class Proposal:
    """A bred hyp set in the order of the space, and the numbers of the rows it comes from (none: the start hyp set)."""

    hyp: dict[str, float]
    parents: tuple[int, ...]


class Strategy(Protocol):
    """A rule that breeds one hyp set from the fittest rows."""

    @property
    def fittest(self) -> int:
        """How many of the fittest rows it must see; the coordinator loads just these."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Every option with its value, defaults included: ``create(name, options)`` gives the same strategy."""

    def moves(self, gene: Gene, value: float) -> bool:
        """True where a child of a parent with ``value`` can differ from it in ``gene``."""

    def propose(self, space: Space, fittest: Sequence[Row], rng: np.random.Generator) -> Proposal:
        """A child, inside ``space``. ``fittest`` is sorted by (-fitness, number) and may be empty.

        Raises:
            ValueError: no gene can move.
        """


class OptionError(ValueError):
    """An option of a strategy cannot be used: ``option`` (its name), ``fault`` and ``remedy``; the text is one line."""

    def __init__(self, option: str, fault: str, remedy: str) -> None:
        self.option, self.fault, self.remedy = option, fault, remedy
        super().__init__(f"{option}: {fault}; {remedy}")


NAMES = ("yolov5-2021",)
# Of the project's plan; a campaign file that asks for one deserves a better answer than "unknown".
_YEARS = ("yolov3-2019", "yolov3-2020", "yolov5-2024", "ultralytics-2025", "ultralytics-2026")
PLANNED = ("hybrid", *_YEARS, "cma-es", "random", "optuna")


def create(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy called ``name``.

    Raises:
        OptionError: a ValueError that names the unknown strategy or option, and the known ones.
    """
    # Each strategy's module needs the types above, so it is imported where it is chosen.
    from evolution.yolov5_2021 import Yolov5

    if name not in NAMES:
        available = f"available: {', '.join(NAMES)}"
        if name.split(":")[0] in PLANNED:
            raise OptionError("strategy", f"'{name}' is not in this version", available)
        raise OptionError("strategy", f"'{name[:60]}' is unknown", available)
    known = list(Yolov5().options)
    for option in options:
        if option not in known:
            raise OptionError(str(option), f"is no option of strategy {name}", nearest(str(option), known))
    return Yolov5(**options)


def candidate_rng(seed: int, number: int) -> np.random.Generator:
    """The stream that candidate ``number`` is bred from: independent of every other candidate's and of training."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
