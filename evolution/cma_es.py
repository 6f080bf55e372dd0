"""Separable CMA-ES in the unit cube, by the library ``cmaes``: rebuilt from the rows for every proposal.

==========================  ===================================================================================
start                       mean at the start hyp set, sigma 0.1 of every axis (option ``sigma``)
update                      rows in the order of their numbers, a population of 4 + 3 ln d at a time; every row counts,
                            however late it comes, also imported ones; failed trainings count as the worst row
child                       drawn from the distribution so updated, inside the cube
==========================  ===================================================================================

It is shown the newest 1000 rows: a longer campaign goes on from the mean of the older ones it no longer sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cmaes import SepCMA

from evolution import options
from evolution.cube import Cube
from evolution.space import Space
from evolution.strategy import History, Needs, Proposal, Rule

SEEN = 1000


@dataclass(frozen=True)
class CmaEs(Rule):
    """The rule and its option."""

    sigma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", options.number("sigma", self.sigma, 0.001, 1))

    @property
    def needs(self) -> Needs:
        return Needs(fittest=1, newest=SEEN, failed=SEEN // 10)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A draw from the distribution that the rows have made; see ``Strategy.propose``."""
        cube = Cube(space)
        d = max(len(cube), 2)  # the library knows no single axis; the second one stays unused
        start = np.full(d, 0.5)
        start[: len(cube)] = cube.start
        es = SepCMA(start, self.sigma, bounds=np.array([[0.0, 1.0]] * d), seed=int(rng.integers(2**31)))
        rows = history.rows
        worst = min((row.fitness for row in rows), default=0.0)
        ended = [(row.number, row.hyp, row.fitness) for row in rows]
        ended += [(candidate.number, candidate.hyp, worst) for candidate in history.failed]
        ended.sort(key=lambda one: one[0])
        points = np.full((len(ended), d), 0.5)
        if ended:
            points[:, : len(cube)] = cube.points(hyp for _, hyp, _ in ended)
        told = [(point, -fitness) for point, (_, _, fitness) in zip(points, ended, strict=True)]
        size = es.population_size
        for first in range(0, len(told) - size + 1, size):
            es.tell(told[first : first + size])
        return Proposal(cube.hyp(es.ask()[: len(cube)]), ())
