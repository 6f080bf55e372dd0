"""The population rule that yolov5 evolves with since January 2024: tournaments, one-point crossover, adaptive rates.

With t = (generation - 1) / generations, population P = 50 and generation k // P of candidate k:

==========================  ===================================================================================
generation 0                candidate 0 is the given hyp set, the others are uniform between their bounds
later generations           bred from the one before, when all of it has ended: until then the answer is Wait
elites                      E = 2 + floor(3 t) fittest; they are parents, they are not carried over
parent                      an elite with probability E / P, else the best of max(2, floor(10 - 10 t)) drawn at random
child                       with probability max(0.5, 1 - t) one-point crossover of two parents, else the first parent
mutation per gene           with probability max(0.01, min(0.5, 0.5 - t)): + U(-0.1, 0.1) of the gene's range
==========================  ===================================================================================

Options: ``population``, ``generations`` (over which the rates adapt; 6 populations of 50 make 300 trainings, the program
counts 300 populations), ``steady: true`` breeds from the P fittest rows there are and so never waits. ``faithful: true`` does
two things as the program does. It adds U(-0.1, 0.1) itself whatever the gene's range: of a range of 0.001 that is always a
bound, of one of 45 nothing. And it draws from a generator that training has re-seeded with 0: every generation has the same
tournaments, cuts and steps, and the campaign's seed decides about the first one alone. Published numbers and behaviour,
written anew. The program starts from some hyp files besides, evolves the 13 augmentation genes (here: whatever is not fixed),
and draws one pool of parents per generation (here each child draws its own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolution import options
from evolution.choices import anew, chosen, switched
from evolution.space import Space
from evolution.strategy import History, Needs, Proposal, Row, Rule, Wait, by_fitness, candidate_rng
from evolution.yolov5_2021 import Vector, tidy

MUTATION = 0.1
SEEDED = 0


@dataclass(frozen=True)
class Rates:
    """What adapts with t, the share of the generations that is over."""

    elites: int
    tournament: int
    crossover: float
    mutation: float


def rates(t: float) -> Rates:
    return Rates(
        elites=2 + int(3 * t),
        tournament=max(2, int(10 - 10 * t)),
        crossover=max(0.5, min(1.0, 1 - t)),
        mutation=max(0.01, min(0.5, 0.5 - t)),
    )


def select(ranked: int, population: int, rate: Rates, rng: np.random.Generator) -> int:
    """The rank of a parent among ``ranked`` rows sorted best first."""
    elites = min(rate.elites, ranked)
    if rng.random() < elites / population:
        return int(rng.integers(elites))
    return int(rng.choice(ranked, min(rate.tournament, ranked), replace=False).min())


def cross(first: Vector, second: Vector, movable: NDArray[np.intp], rng: np.random.Generator) -> Vector:
    """The first parent up to a gene drawn among those that can move, the second from there."""
    child = first.copy()
    if len(movable) > 1:
        cut = movable[rng.integers(1, len(movable)) :]
        child[cut] = second[cut]
    return child


@dataclass(frozen=True)
class Yolov5Population(Rule):
    """The rule and its options."""

    population: int = 50
    generations: int = 6
    steady: bool = False
    faithful: bool = False

    def __post_init__(self) -> None:
        options.whole("population", self.population, 4, 1000)
        options.whole("generations", self.generations, 1, 1_000_000)
        options.flag("steady", self.steady)
        options.flag("faithful", self.faithful)

    @property
    def needs(self) -> Needs:
        if self.steady:
            return Needs(fittest=self.population)
        # The rows of this generation and of the one before are the newest by number.
        return Needs(fittest=1, newest=2 * self.population, pending=True)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal | Wait:
        """A random hyp set, a child of the generation before, or Wait; see ``Strategy.propose``."""
        movable = np.flatnonzero([not gene.fixed for gene in space])
        if not len(movable):
            raise ValueError("no gene can move: each is fixed")
        generation = history.number // self.population
        rows: Sequence[Row] = ()
        if generation and self.steady:
            rows = by_fitness(history.fittest)[: self.population]
        elif generation:
            before = range((generation - 1) * self.population, generation * self.population)
            training = sum(candidate.number in before for candidate in history.pending)
            if training:
                return Wait(f"{training} of generation {generation - 1}'s {self.population} candidates are in training")
            rows = by_fitness(row for row in history.newest if row.number in before)
        if not rows:  # generation 0, or one that failed as a whole
            return Proposal(tidy(space, anew(space, rng)), ())
        if self.faithful:
            rng = candidate_rng(SEEDED, history.number % self.population)
        rate = rates(min((generation - 1) / self.generations, 1.0))
        mated = [rows[select(len(rows), self.population, rate, rng)] for _ in range(2)]
        first, second = (np.array([row.hyp[name] for name in space.names]) for row in mated)
        crossed = rng.random() < rate.crossover
        child = cross(first, second, movable, rng) if crossed else first
        mutated = rng.random(len(space)) < rate.mutation
        span = np.array([gene.upper - gene.lower for gene in space])
        step = rng.uniform(-MUTATION, MUTATION, len(space)) * np.where(self.faithful, 1.0, span) * ~chosen(space)
        parents = dict.fromkeys(row.number for row in mated[: 2 if crossed else 1])
        return Proposal(switched(space, tidy(space, child + mutated * step), rng), tuple(parents))
