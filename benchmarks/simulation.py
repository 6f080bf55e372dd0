"""A campaign on simulated workers: results come back out of order, and what the strategy recommends is judged without noise.

A player asks and is told; ``Evolution`` plays a strategy of ours through evolution's own interface, as the coordinator runs it:
it sees the rows that it asks for and nothing else. Other players are in ``benchmarks.peers``.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evolution.space import Space
from evolution.strategy import Candidate, History, Proposal, Row, Strategy, Wait, candidate_rng

BUDGET = 300
CHECKPOINTS = (50, 100, 200, 300)
CURVE = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 125, 150, 175, 200, 225, 250, 275, 300)


class Problem(Protocol):
    """A function to be searched; ``free`` is its space with every gene moving."""

    id: int
    space: Space
    free: Space

    def train(self, hyp: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float]:
        """Fitness (nan: the training failed) and duration."""

    def regret(self, hyp: Mapping[str, float]) -> float:
        """0 at the optimum, 1 where it is no better than the start, without noise."""


class Player(Protocol):
    """Whoever proposes hyp sets; ``readable`` where ``best`` may be asked at any time without changing what follows."""

    readable: bool

    def ask(self, number: int) -> dict[str, float] | None:
        """The hyp set of a candidate; None: wait for a result."""

    def tell(self, number: int, hyp: Mapping[str, float], fitness: float) -> None:
        """The result of a candidate; nan where it failed."""

    def best(self) -> Mapping[str, float] | None:
        """The hyp set that it would recommend now; None: the start."""


class Evolution:
    """A strategy of ``evolution`` as a player."""

    readable = True

    def __init__(self, strategy: Strategy, space: Space, seed: int) -> None:
        self._strategy, self._space, self._seed = strategy, space, seed
        self._rows: list[Row] = []
        self._failed: list[Candidate] = []
        self._pending: dict[int, Candidate] = {}
        self._next = 0

    def _history(self) -> History:
        return History.select(self._next, self._strategy.needs, self._rows, self._failed, self._pending.values())

    def ask(self, number: int) -> dict[str, float] | None:
        answer: Proposal | Wait = Proposal(self._space.start, ())
        if number:
            answer = self._strategy.propose(self._space, self._history(), candidate_rng(self._seed, number))
        if isinstance(answer, Wait):
            return None
        self._pending[number] = Candidate(number, answer.hyp)
        self._next = number + 1
        return answer.hyp

    def tell(self, number: int, hyp: Mapping[str, float], fitness: float) -> None:
        del self._pending[number]
        if math.isnan(fitness):
            self._failed.append(Candidate(number, hyp))
        else:
            self._rows.append(Row(number, hyp, fitness))

    def best(self) -> Mapping[str, float] | None:
        return self._strategy.incumbent(self._space, self._history())


@dataclass(frozen=True)
class Run:
    """One campaign: the incumbent's regret by trainings (``curve``: at more of them), failures, seconds per candidate."""

    id: int
    seed: int
    regret: dict[int, float]
    curve: dict[int, float]
    failed: int
    seconds: float

    @property
    def gain(self) -> float:
        return float(np.mean([gain(regret) for regret in self.regret.values()]))


def gain(regret: float) -> float:
    """The share of the gap that was closed, from -1 to 1."""
    return max(-1.0, 1 - regret)


def seed_of(problem: Problem, seed: int) -> int:
    """The seed of a campaign's player."""
    return seed * 1000003 + problem.id


def run(
    player: Player,
    problem: Problem,
    seed: int,
    workers: int,
    checkpoints: Sequence[int] = CHECKPOINTS,
    curve: Sequence[int] = (),
) -> Run:
    """A campaign of ``max(checkpoints)`` candidates on ``workers`` asynchronous workers."""
    world = np.random.default_rng([problem.id, seed, 77])
    budget, asked, ended, failed, now, seconds, waiting = max(checkpoints), 0, 0, 0, 0.0, 0.0, False
    training: list[tuple[float, int, dict[str, float], float]] = []  # end, number, hyp set, fitness
    read = {*checkpoints, *(curve if player.readable else ())}
    regret: dict[int, float] = {}
    while ended < budget:
        while len(training) < workers and asked < budget and not waiting:
            began = time.process_time()
            hyp = player.ask(asked)
            seconds += time.process_time() - began
            if hyp is None:
                waiting = True
                break
            fitness, duration = problem.train(hyp, world)
            heapq.heappush(training, (now + duration, asked, hyp, fitness))
            asked += 1
        now, number, hyp, fitness = heapq.heappop(training)
        began = time.process_time()
        player.tell(number, hyp, fitness)
        seconds += time.process_time() - began
        waiting = False
        ended += 1
        failed += math.isnan(fitness)
        if ended in read:
            regret[ended] = problem.regret(player.best() or problem.space.start)
    return Run(problem.id, seed, {n: regret[n] for n in checkpoints}, {n: regret[n] for n in regret}, failed, seconds / budget)
