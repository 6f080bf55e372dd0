"""Other programs as players of ``benchmarks.simulation``: libraries where they are installed, the prototype where it is there.

=====================================  =====================================================  ==================
name                                   what                                                   needs
=====================================  =====================================================  ==================
``prototype``                          "proto Hybrid L2" of the test bed, as it stands        ../shared/bench
``cmaes-sep``, ``cmaes-full``          CMA-ES in the unit cube, sigma 0.1, from the start     cmaes
``optuna-tpe``, ``-cmaes``, ``-gp``    samplers on the genes themselves, log where they say   optuna
``nevergrad-NAME``                     an optimizer of its registry, in the unit cube         nevergrad
=====================================  =====================================================  ==================

A failed training is told as fitness 0, or as a failure where the library has a word for it.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.simulation import BUDGET, Player
from evolution.cube import Cube
from evolution.space import Space

BED = Path(__file__).resolve().parents[2] / "shared" / "bench" / "search"
SIGMA = 0.1  # of an axis
KINDS = {"linear": "lin", "log": "log", "log1m": "mom"}  # the test bed's words


class Parameter(NamedTuple):
    """A gene as the test bed's strategies read it."""

    lo: float
    hi: float
    default: float
    gain: float
    kind: str


class Peer:
    """What all of them share: candidate 0 is the start, and the fittest row is recommended."""

    readable = True

    def __init__(self, space: Space, seed: int, workers: int) -> None:
        self._space, self._cube, self._seed, self._workers = space, Cube(space), seed % 2**31, workers
        self._asked: dict[int, Any] = {}  # whatever the library wants back, by candidate
        self._fittest: tuple[float, Mapping[str, float] | None] = (-math.inf, None)

    def ask(self, number: int) -> dict[str, float] | None:
        return self._space.start if number == 0 else self._propose(number)

    def _propose(self, number: int) -> dict[str, float]:
        raise NotImplementedError

    def tell(self, number: int, hyp: Mapping[str, float], fitness: float) -> None:
        if fitness > self._fittest[0]:
            self._fittest = (fitness, hyp)
        self._learn(number, fitness)

    def _learn(self, number: int, fitness: float) -> None:
        raise NotImplementedError

    def best(self) -> Mapping[str, float] | None:
        return self._fittest[1]


class Prototype:
    """The strategy that ``hybrid`` has to beat, driven as the test bed drives it."""

    readable = False  # to be asked for its best changes its trust region

    def __init__(self, space: Space, seed: int, workers: int) -> None:
        if str(BED) not in sys.path:
            sys.path.append(str(BED))
        kind = import_module("strategies.ours").HybridL2
        genes = {gene.name: Parameter(gene.lower, gene.upper, gene.start, gene.gain, KINDS[gene.scale]) for gene in space}
        self._strategy = kind(genes, space.start, seed, budget=BUDGET, workers=workers)
        self._asked: dict[int, Any] = {}

    def ask(self, number: int) -> dict[str, float]:
        self._asked[number] = asked = self._strategy.ask()
        return dict(asked)

    def tell(self, number: int, hyp: Mapping[str, float], fitness: float) -> None:
        self._strategy.tell(self._asked.pop(number), fitness)

    def best(self) -> Mapping[str, float]:
        found: Mapping[str, float] = self._strategy.best()
        return found


class CmaEs(Peer):
    """The library ``cmaes``; a population at a time, however late its members come."""

    kind = "SepCMA"

    def __init__(self, space: Space, seed: int, workers: int) -> None:
        super().__init__(space, seed, workers)
        bounds = np.array([[0.0, 1.0]] * len(self._cube))
        self._es = getattr(import_module("cmaes"), self.kind)(self._cube.start, SIGMA, bounds=bounds, seed=self._seed)
        self._told: list[tuple[Any, float]] = []

    def _propose(self, number: int) -> dict[str, float]:
        self._asked[number] = self._es.ask()
        return self._cube.hyp(self._asked[number])

    def _learn(self, number: int, fitness: float) -> None:
        if number not in self._asked:
            return
        self._told.append((self._asked.pop(number), 0.0 if math.isnan(fitness) else -fitness))
        if len(self._told) == self._es.population_size:
            self._es.tell(self._told)
            self._told = []


class FullCmaEs(CmaEs):
    kind = "CMA"


class Optuna(Peer):
    """A sampler of optuna; the start is enqueued."""

    def __init__(self, space: Space, seed: int, workers: int) -> None:
        super().__init__(space, seed, workers)
        optuna = import_module("optuna")
        warnings.filterwarnings("ignore", module="optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._failed = optuna.trial.TrialState.FAIL
        self._ranges = {
            gene.name: optuna.distributions.FloatDistribution(
                gene.lower, gene.upper, log=gene.scale == "log" and gene.lower > 0
            )
            for gene in space
        }
        self._study = optuna.create_study(direction="maximize", sampler=self._sampler(optuna.samplers))
        self._study.enqueue_trial(space.start)

    def _sampler(self, samplers: Any) -> Any:
        return samplers.TPESampler(seed=self._seed, multivariate=True, constant_liar=self._workers > 1)

    def ask(self, number: int) -> dict[str, float]:
        self._asked[number] = trial = self._study.ask(self._ranges)
        return dict(trial.params)

    def _learn(self, number: int, fitness: float) -> None:
        if math.isnan(fitness):
            self._study.tell(self._asked.pop(number), state=self._failed)
        else:
            self._study.tell(self._asked.pop(number), fitness)


class OptunaCmaEs(Optuna):
    def _sampler(self, samplers: Any) -> Any:
        return samplers.CmaEsSampler(x0=self._space.start, sigma0=SIGMA, seed=self._seed)


class OptunaGp(Optuna):
    def _sampler(self, samplers: Any) -> Any:
        return samplers.GPSampler(seed=self._seed, deterministic_objective=False)


class Nevergrad(Peer):
    """An optimizer of nevergrad's registry, by its name there."""

    def __init__(self, space: Space, seed: int, workers: int, name: str) -> None:
        super().__init__(space, seed, workers)
        nevergrad = import_module("nevergrad")
        warnings.filterwarnings("ignore", module="nevergrad")
        genes = nevergrad.p.Array(init=np.clip(self._cube.start, 1e-3, 1 - 1e-3), lower=0.0, upper=1.0)
        genes.set_mutation(sigma=SIGMA)
        genes.random_state.seed(self._seed)
        self._optimizer = nevergrad.optimizers.registry[name](parametrization=genes, budget=BUDGET, num_workers=workers)

    def _propose(self, number: int) -> dict[str, float]:
        self._asked[number] = self._optimizer.ask()
        return self._cube.hyp(self._asked[number].value)

    def _learn(self, number: int, fitness: float) -> None:
        if number in self._asked:
            self._optimizer.tell(self._asked.pop(number), 0.0 if math.isnan(fitness) else -fitness)


_KINDS: dict[str, type[Peer] | type[Prototype]] = {
    "prototype": Prototype,
    "cmaes-sep": CmaEs,
    "cmaes-full": FullCmaEs,
    "optuna-tpe": Optuna,
    "optuna-cmaes": OptunaCmaEs,
    "optuna-gp": OptunaGp,
}
NAMES = (*_KINDS, "nevergrad-NGOpt", "nevergrad-TBPSA", "nevergrad-TwoPointsDE")


def create(name: str, space: Space, seed: int, workers: int) -> Player:
    """The peer called ``name``.

    Raises:
        ImportError: what it needs is not here.
    """
    if name.startswith("nevergrad-"):
        return Nevergrad(space, seed, workers, name.removeprefix("nevergrad-"))
    return _KINDS[name](space, seed, workers)
