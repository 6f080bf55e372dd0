"""How the next candidate is bred: what every strategy is given and gives back, and the strategies by name.

A strategy is pure: the same space, history and generator give the same answer, on any replica of the coordinator. It remembers
nothing: whatever it must know is in the rows. It says in ``needs`` what it must see, and is given just that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from evolution.problems import nearest
from evolution.space import Gene, Space

MOST_PENDING = 512  # candidates in training that a strategy is shown, those with the highest numbers


@dataclass(frozen=True)
class Candidate:
    """A candidate without a fitness, as a strategy sees it: in training, or failed."""

    number: int
    hyp: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A finished candidate, as a strategy sees it. Imported rows have negative numbers."""

    number: int
    hyp: Mapping[str, float]
    fitness: float


_Numbered = TypeVar("_Numbered", Candidate, Row)


@dataclass(frozen=True)
class Needs:
    """What a strategy must see. Each part is one indexed query with a limit, so that breeding costs the same at any size."""

    fittest: int
    newest: int = 0
    failed: int = 0
    pending: bool = False


@dataclass(frozen=True)
class History:
    """What a strategy is shown when it breeds candidate ``number``; each part as far as its ``needs`` ask for it.

    ==========  ============================================================  ===================================
    part        candidates                                                    order, cut after
    ==========  ============================================================  ===================================
    fittest     done                                                          (-fitness, number), needs.fittest
    newest      done                                                          -number, needs.newest
    failed      failed                                                        -number, needs.failed
    pending     queued, leased or running                                     -number, MOST_PENDING
    ==========  ============================================================  ===================================

    A row can be in ``fittest`` and in ``newest``. The order inside a part decides nothing but what is cut: a strategy gives the
    same answer for any order.
    """

    number: int
    fittest: tuple[Row, ...] = ()
    newest: tuple[Row, ...] = ()
    failed: tuple[Candidate, ...] = ()
    pending: tuple[Candidate, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The finished candidates that are shown, each once, by number."""
        return sorted({row.number: row for row in (*self.newest, *self.fittest)}.values(), key=lambda row: row.number)

    @classmethod
    def select(
        cls, number: int, needs: Needs, rows: Iterable[Row], failed: Iterable[Candidate] = (), pending: Iterable[Candidate] = ()
    ) -> Self:
        """The history that ``needs`` ask for out of all candidates of a campaign."""
        rows = list(rows)
        return cls(
            number=number,
            fittest=tuple(by_fitness(rows)[: needs.fittest]),
            newest=tuple(_newest(rows, needs.newest)),
            failed=tuple(_newest(failed, needs.failed)),
            pending=tuple(_newest(pending, MOST_PENDING)) if needs.pending else (),
        )


def by_fitness(rows: Iterable[Row]) -> list[Row]:
    """The fittest first, equals by number."""
    return sorted(rows, key=lambda row: (-row.fitness, row.number))


def _newest(candidates: Iterable[_Numbered], n: int) -> list[_Numbered]:
    return sorted(candidates, key=lambda candidate: -candidate.number)[:n] if n else []


@dataclass(frozen=True)
class Proposal:
    """A bred hyp set in the order of the space, and the numbers of the rows it comes from (none: the start hyp set)."""

    hyp: dict[str, float]
    parents: tuple[int, ...]


@dataclass(frozen=True)
class Wait:
    """Nothing can be bred before more candidates are finished; ``reason`` is a line for people."""

    reason: str


class Strategy(Protocol):
    """A rule that breeds one hyp set from what it is shown of a campaign. Candidate 0, the start hyp set, is not bred."""

    @property
    def needs(self) -> Needs:
        """What it must see."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Every option with its value, defaults included: ``create(name, options)`` gives the same strategy."""

    def moves(self, gene: Gene, value: float) -> bool:
        """True where a child of a parent with ``value`` can differ from it in ``gene``."""

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal | Wait:
        """The hyp set of candidate ``history.number``, inside ``space``. The history may be empty.

        Raises:
            ValueError: no gene can move.
        """

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        """The hyp set it would recommend now, trained or not; None while there is no row."""


@dataclass(frozen=True)
class Rule:
    """What the rules without a model share: fields are options, whatever is not fixed moves, the fittest row is recommended."""

    @property
    def options(self) -> Mapping[str, Any]:
        return asdict(self)

    def moves(self, gene: Gene, value: float) -> bool:
        """A step is added: a gene that is 0 moves too."""
        return not gene.fixed

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        return fittest_hyp(space, history)


class OptionError(ValueError):
    """An option of a strategy cannot be used: ``option`` (its name), ``fault`` and ``remedy``; the text is one line."""

    def __init__(self, option: str, fault: str, remedy: str) -> None:
        self.option, self.fault, self.remedy = option, fault, remedy
        super().__init__(f"{option}: {fault}; {remedy}")


def fittest_hyp(space: Space, history: History) -> dict[str, float] | None:
    """The incumbent of a rule without a model: the hyp set of the fittest row."""
    rows = by_fitness(history.rows)
    return {name: rows[0].hyp[name] for name in space.names} if rows else None


def candidate_rng(seed: int, number: int) -> np.random.Generator:
    """The stream that candidate ``number`` is bred from: independent of every other candidate's and of training."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


# By name, with the module and class of each; a module is imported where its strategy is chosen, since it needs the types above.
_CLASSES = {
    "hybrid": ("hybrid", "Hybrid"),
    "yolov3-2019": ("yolov3", "Yolov3Of2019"),
    "yolov3-2020": ("yolov3", "Yolov3Of2020"),
    "yolov5-2021": ("yolov5_2021", "Yolov5"),
    "yolov5-2024": ("yolov5_2024", "Yolov5Population"),
    "ultralytics-2025": ("ultralytics", "UltralyticsOf2025"),
    "ultralytics-2026": ("ultralytics", "UltralyticsOf2026"),
    "cma-es": ("cma_es", "CmaEs"),
    "random": ("random_search", "RandomSearch"),
}
NAMES = tuple(_CLASSES)  # the first is the default
_ELSEWHERE = re.compile(r"(optuna|own):[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Elsewhere:
    """A strategy that is none of ours, as a campaign names it: ``optuna:tpe``, ``own:NAME``. The coordinator has the code.

    Here only what a reader of campaigns must know: its options, unchecked, and that whatever is not fixed can move.
    """

    name: str
    options: Mapping[str, Any]

    @property
    def needs(self) -> Needs:
        return Needs(fittest=1)

    def moves(self, gene: Gene, value: float) -> bool:
        return not gene.fixed

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal | Wait:
        raise NotImplementedError(f"strategy {self.name} is loaded by the coordinator (server.strategies)")

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        return fittest_hyp(space, history)


def create(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy called ``name``; of a name with a colon only what ``Elsewhere`` knows.

    Raises:
        OptionError: a ValueError that names the unknown strategy or option, and the known ones.
    """
    if _ELSEWHERE.fullmatch(name):
        return Elsewhere(name, dict(options))
    if name not in _CLASSES:
        raise OptionError("strategy", f"'{name[:60]}' is unknown", f"available: {', '.join(NAMES)}, optuna:SAMPLER, own:NAME")
    module, class_name = _CLASSES[name]
    kind: Callable[..., Strategy] = getattr(import_module(f"evolution.{module}"), class_name)
    known = list(kind().options)
    for option in options:
        if option not in known:
            raise OptionError(str(option), f"is no option of strategy {name}", nearest(str(option), known))
    return kind(**options)
