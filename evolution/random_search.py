"""Random search: every candidate is drawn anew; the baseline that a rule must beat.

==========================  ===================================================================================
child                       every gene that is not fixed is uniform between its bounds
option ``scaled``           true: uniform along its scale (log for learning rates and loss gains)
==========================  ===================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evolution import options
from evolution.choices import anew
from evolution.cube import Cube
from evolution.space import Space
from evolution.strategy import History, Needs, Proposal, Rule
from evolution.yolov5_2021 import bounded


@dataclass(frozen=True)
class RandomSearch(Rule):
    """The rule and its option."""

    scaled: bool = False

    def __post_init__(self) -> None:
        options.flag("scaled", self.scaled)

    @property
    def needs(self) -> Needs:
        return Needs(fittest=1)

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A hyp set that owes nothing to the history; see ``Strategy.propose``."""
        cube = Cube(space)
        if self.scaled:
            return Proposal(cube.hyp(rng.random(len(cube))), ())
        return Proposal(bounded(space, anew(space, rng)), ())
