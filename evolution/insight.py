"""What an evolution has learned and whether going on is worth it: a report for pages and the command line, from rows alone.

The rows are ``ROWS`` fittest and ``ROWS`` newest ones, so a report costs the same at any size.

===============  =========================================================================================================
story            the line of parents from the start to the best, and what each step changed most
diversity        the mean distance of the newest candidates from the best, as a share of that of the oldest
expected gain    progress is about even in log n: D log2((n + ahead) / n), where D is what the mean of the five fittest has
                 risen since there were half as many rows (one row alone is too lucky)
hint             ``stop`` where the expected gain of the next 50 is below 0.2 % of the best
genes            fixed; stuck (one value in all of the newest); settled (the newest within 2 % of the range); at a bound
                 (a third of the newest, and the best, at a bound that is not the start)
===============  =========================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from evolution.analysis import Step, best_so_far
from evolution.cube import Matrix, Vector
from evolution.importance import GeneImportance, importance, positions
from evolution.space import Space, Value
from evolution.strategy import Row, by_fitness

ROWS = 1000
NEWEST = 40
AHEAD = 50
FITTEST = 5
LITTLE = 0.002  # of the best fitness
CHANGED = 3
LEAST = 10  # rows, before anything is said of the newest
SETTLED, AT_BOUND = 0.02, 1 / 3

GeneState = Literal["moves", "fixed", "stuck", "settled", "at bound"]


class Parent(NamedTuple):
    """A candidate of the story: its number, fitness and, where it has one, the parent it was bred from first."""

    number: int
    hyp: Mapping[str, Value]
    fitness: float | None
    parent: int | None


class Chapter(NamedTuple):
    """A step of the story. ``changed`` are the genes that went farthest from the parent, with both values."""

    number: int
    fitness: float | None
    gain: float | None
    changed: tuple[tuple[str, Value, Value], ...]


class GeneLife(NamedTuple):
    """How a gene fares among the newest candidates. ``spread`` is that of the newest over its range, 0 to 1."""

    name: str
    state: GeneState
    spread: float
    at_lower: float
    at_upper: float


class Outlook(NamedTuple):
    """What ``ahead`` further candidates may bring. ``hint`` is a line for people."""

    ahead: int
    gain: float
    share: float
    verdict: Literal["early", "go on", "stop"]
    hint: str


class Insight(NamedTuple):
    """The report; ``rows`` is how many rows it rests on. ``diversity`` is None while there are too few."""

    rows: int
    steps: tuple[Step, ...]
    outlook: Outlook
    diversity: float | None
    importance: tuple[GeneImportance, ...]
    genes: tuple[GeneLife, ...]


def insight(space: Space, rows: Sequence[Row], done: int | None = None) -> Insight:
    """The report on the finished rows of a campaign, imported ones (negative numbers) included where they count as parents.

    ``done`` is how many candidates of its own are done, where ``rows`` are only the fittest and the newest of them.
    """
    ordered = sorted(rows, key=lambda row: row.number)
    own = [row for row in ordered if row.number >= 0]
    names, points = positions(space, ordered)
    return Insight(
        rows=len(rows),
        steps=tuple(best_so_far({row.number: row.fitness for row in own})),
        outlook=_outlook_of(own, done),
        diversity=_diversity(points, np.array([row.fitness for row in ordered])),
        importance=tuple(importance(space, ordered)),
        genes=tuple(_life(space, ordered, names, points)),
    )


def _outlook_of(own: Sequence[Row], done: int | None) -> Outlook:
    """``outlook`` from rows in the order of their numbers, which may be the fittest and the newest of many more."""
    fitness = [row.fitness for row in own]
    if done is None or done <= len(own):
        return outlook(fitness)
    early = [row.fitness for row in own if 2 * row.number < own[-1].number]
    return outlook(fitness, before=early or [min(fitness)], n=done)


def outlook(
    fitness: Sequence[float], ahead: int = AHEAD, *, before: Sequence[float] | None = None, n: int | None = None
) -> Outlook:
    """What the next candidates may bring, from the fitness of those so far, in the order of their numbers.

    Of very many the fittest are enough: ``n`` is then how many there are, ``before`` the fittest of the first half.
    """
    n = len(fitness) if n is None else n
    if n < LEAST:
        return Outlook(ahead, 0.0, 0.0, "early", f"too early to tell: {n} of {LEAST} results that a forecast needs")
    risen = _fittest(fitness) - _fittest(fitness[: n // 2] if before is None else before)
    gain = max(risen, 0.0) * math.log2((n + ahead) / n)
    scale = abs(max(fitness))
    share = gain / scale if scale else 0.0
    told = f"the next {ahead} candidates are expected to add {gain:.2g} ({share:.1%})"
    if share < LITTLE:
        return Outlook(ahead, gain, share, "stop", f"{told}: little is left; stop, confirm the best, or widen bounds")
    return Outlook(ahead, gain, share, "go on", told)


def _fittest(fitness: Sequence[float]) -> float:
    best = sorted(fitness, reverse=True)[:FITTEST]
    return sum(best) / len(best)


def _diversity(points: Matrix, fitness: Vector) -> float | None:
    if len(points) < 2 * LEAST or not points.shape[1]:
        return None
    distance = np.abs(points - points[int(fitness.argmax())]).mean(1)
    n = min(NEWEST, len(points) // 2)
    before = float(distance[:n].mean())
    return float(distance[-n:].mean()) / before if before > 0 else None


def _life(space: Space, rows: Sequence[Row], names: Sequence[str], points: Matrix) -> list[GeneLife]:
    newest = rows[-NEWEST:]
    best = by_fitness(rows)[0] if rows else None
    lives = []
    for gene in space:
        if gene.fixed or not newest or best is None:
            lives.append(GeneLife(gene.name, "fixed" if gene.fixed else "moves", 0.0, 0.0, 0.0))
            continue
        place = points[-len(newest) :, names.index(gene.name)]
        values = np.array([row.hyp[gene.name] for row in newest])
        lower, upper = float(np.mean(values <= gene.lower)), float(np.mean(values >= gene.upper))
        spread, state = float(np.std(place)), _state(len(newest), values, place)
        if not gene.choices and state in ("moves", "settled"):
            bound = gene.lower if lower >= AT_BOUND else gene.upper if upper >= AT_BOUND else math.nan
            if best.hyp[gene.name] == bound != gene.start:
                state = "at bound"
        if gene.choices:
            lower = upper = 0.0
        lives.append(GeneLife(gene.name, state, spread, lower, upper))
    return lives


def _state(rows: int, values: Vector, place: Vector) -> GeneState:
    if rows < LEAST:
        return "moves"
    if np.ptp(values) == 0:
        return "stuck"
    return "settled" if np.ptp(np.quantile(place, [0.1, 0.9])) < SETTLED else "moves"


def story(space: Space, line: Sequence[Parent]) -> list[Chapter]:
    """What changed from each candidate of a line of descent to the next; ``line`` begins with the oldest."""
    chapters = []
    for before, one in zip([None, *line], line, strict=False):
        changed: list[tuple[float, str, Value, Value]] = []
        if before is not None:
            rows = [Row(0, space.encode(each.hyp), 0.0) for each in (before, one)]
            names, points = positions(space, rows)
            moved = np.abs(points[1] - points[0])
            changed = [
                (-distance, name, before.hyp[name], one.hyp[name])
                for name, distance in zip(names, moved.tolist(), strict=True)
                if before.hyp[name] != one.hyp[name]
            ]
        gain = None
        if before is not None and before.fitness is not None and one.fitness is not None:
            gain = one.fitness - before.fitness
        most = tuple((name, old, new) for _, name, old, new in sorted(changed, key=lambda change: change[:2])[:CHANGED])
        chapters.append(Chapter(one.number, one.fitness, gain, most))
    return chapters
