"""Strategies by name: those of ``evolution``, ``optuna:SAMPLER``, and ``own:NAME``, which an installed package brings along.

A package's entry point in the group ``hypevolve.strategies`` names a module or object with two functions:

    needs(options) -> Needs                                what it must see; raises ValueError for options it cannot use
    propose(space, history, rng, options) -> Proposal      or Wait; numbers only, a choice is its index

It must be a pure function of its arguments: ``hypevolve check-strategy own:NAME`` holds it to that. What it does wrong while a
campaign runs costs that campaign a candidate that is not bred, never another campaign's worker an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from evolution import strategy
from evolution.space import Gene, Space
from evolution.strategy import History, Needs, OptionError, Proposal, Strategy, Wait, fittest_hyp

GROUP = "hypevolve.strategies"

log = logging.getLogger(__name__)


class Own(Protocol):
    """What an entry point of the group is."""

    def needs(self, options: Mapping[str, Any]) -> Needs: ...

    def propose(
        self, space: Space, history: History, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> Proposal | Wait: ...


@dataclass(frozen=True)
class Adapted:
    """A user's two functions as one of our strategies."""

    name: str
    own: Own
    options: Mapping[str, Any]

    @property
    def needs(self) -> Needs:
        return self.own.needs(self.options)

    def moves(self, gene: Gene, value: float) -> bool:
        return not gene.fixed

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal | Wait:
        """Its answer, or Wait with the reason where that cannot be used."""
        try:
            answer = self.own.propose(space, history, rng, self.options)
            if isinstance(answer, Proposal) and not space.contains(answer.hyp):
                raise ValueError(f"its hyp set {answer.hyp} is not inside the space")
            if not isinstance(answer, Proposal | Wait):
                raise TypeError(f"it answered {type(answer).__name__}, neither Proposal nor Wait")
        except Exception as error:
            log.exception("strategy %s cannot breed candidate %d", self.name, history.number)
            return Wait(f"strategy {self.name} failed: {type(error).__name__}: {error}")
        if isinstance(answer, Proposal):
            return Proposal({name: answer.hyp[name] for name in space.names}, answer.parents)
        return answer

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        return fittest_hyp(space, history)


def create(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy that a campaign names.

    Raises:
        OptionError: it is not installed here, or an option cannot be used.
    """
    kind, _, rest = name.partition(":")
    if kind == "optuna" and rest:
        try:
            from server.optuna_strategy import Optuna
        except ImportError as error:
            remedy = "install the extra hypevolve[optuna] where the coordinator runs"
            raise OptionError("strategy", f"'{name}' needs optuna, which is not installed ({error})", remedy) from error
        if options:
            raise OptionError(next(iter(options)), f"is no option of strategy {name}", "remove it")
        return Optuna(rest)
    if kind == "own" and rest:
        found = {entry.name: entry for entry in entry_points(group=GROUP)}
        if rest not in found:
            there = f"installed: {', '.join(sorted(found))}" if found else "none is installed"
            raise OptionError(
                "strategy", f"no package here has a strategy '{rest}'", f"{there} (entry points of group {GROUP})"
            )
        adapted = Adapted(name, found[rest].load(), dict(options))
        try:
            needs = adapted.needs
        except (ValueError, TypeError, KeyError) as error:
            raise OptionError("strategy", f"{name} refuses its options: {error}", "correct them") from error
        if not isinstance(needs, Needs):
            raise OptionError("strategy", f"needs() of {name} answered {type(needs).__name__}", "let it answer a Needs")
        return adapted
    return strategy.create(name, options)
