"""Optuna's samplers as strategies (``optuna:tpe``, ``optuna:random``), rebuilt from the rows for every proposal.

The study lives in memory for one proposal: finished rows are its complete trials, failed ones its failed trials, candidates in
training its running ones (TPE's ``constant_liar`` keeps away from them). The sampler is seeded from the candidate's own stream
and everything is added in the order of numbers, so that any replica finds the same child. Samplers whose memory is not in
the trials (CMA-ES, NSGA-II) are not offered: ``cma-es`` is a strategy of its own. Nor is the Gaussian process: it needs torch,
which a coordinator has not, and seconds of processor time for each proposal.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from evolution.space import Gene, Space
from evolution.strategy import Candidate, History, Needs, OptionError, Proposal, Row, fittest_hyp

SAMPLERS = ("tpe", "random")
SEEN = 500

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Optuna:
    """A sampler of optuna. ``tpe`` is multivariate, with pending candidates taken for bad ones."""

    sampler: str

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            known = ", ".join(f"optuna:{name}" for name in SAMPLERS)
            raise OptionError("strategy", f"'optuna:{self.sampler}' is unknown", f"available: {known}")

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    @property
    def needs(self) -> Needs:
        return Needs(fittest=SEEN // 2, newest=SEEN // 2, failed=50, pending=True)

    def moves(self, gene: Gene, value: float) -> bool:
        return not gene.fixed

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """What the sampler asks for next; see ``Strategy.propose``."""
        distributions = {gene.name: _distribution(gene) for gene in space if not gene.fixed}
        if not distributions:
            raise ValueError("no gene can move: each is fixed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # options of the sampler that optuna calls experimental
            study = optuna.create_study(direction="maximize", sampler=self._made(int(rng.integers(2**31))))
            shown: list[Row | Candidate] = [*history.rows, *history.failed, *history.pending]
            for one in sorted(shown, key=lambda one: one.number):
                study.add_trial(_trial(one, space, distributions, history))
            asked = study.ask(distributions).params
        hyp = space.start
        for gene in space:
            if gene.name in asked:
                value = float(asked[gene.name])
                hyp[gene.name] = gene.clip(value if gene.integer or gene.choices else float(f"{value:.6g}")) + 0.0
        return Proposal(hyp, ())

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        return fittest_hyp(space, history)

    def _made(self, seed: int) -> BaseSampler:
        if self.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)


def _distribution(gene: Gene) -> BaseDistribution:
    if gene.choices:
        return CategoricalDistribution([float(index) for index in range(len(gene.choices))])
    if gene.integer:
        return IntDistribution(int(gene.lower), int(gene.upper))
    return FloatDistribution(gene.lower, gene.upper, log=gene.scale == "log" and gene.lower > 0)


def _trial(
    one: Row | Candidate, space: Space, distributions: Mapping[str, BaseDistribution], history: History
) -> optuna.trial.FrozenTrial:
    params = {}
    for name in distributions:
        gene = space[name]
        value = gene.clip(one.hyp[name])  # of a time with wider bounds
        params[name] = round(value) if gene.integer else value
    kind: dict[str, Any] = {"params": params, "distributions": dict(distributions)}
    if isinstance(one, Row):
        return create_trial(value=one.fitness, **kind)
    return create_trial(state=TrialState.RUNNING if one in history.pending else TrialState.FAIL, **kind)
