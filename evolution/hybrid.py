"""Our own strategy: evolution for the first rows, then a local model of the fitness, in a unit cube where zeros can move.

====================  =========================================================================================================
first rows            until 16 rows are there, a child of the rank-weighted mean of the fittest (``recombination``)
model                 a Gaussian process over the log fitness of rows; a failed training is no value, which would bend the
                      model, but moves the border of ``hazard``; so is a row far below what the others predict, which went wrong
of every four         one is a child of the rank-weighted mean of the rows that the model thinks best; three are, among ascents
                      from these rows and children around them, the one whose training is expected to raise the best prediction
                      most (``knowledge_gradient``), candidates in training believed to come out as predicted
model that is blind   while it does not predict rows that are left out, children as in the beginning
incumbent             the point of highest lower confidence bound near the best row, trained or not
====================  =========================================================================================================

Nothing that a proposal depends on is kept between two of them. The model is conditioned on at most 300 rows; its kernel is
fitted to rows below a number that moves on in steps, so that most proposals find it in memory and any replica finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolution import gaussian_process, recombination
from evolution.ascent import Objective, ascend
from evolution.cube import Cube, Matrix, Vector
from evolution.gaussian_process import Model
from evolution.hazard import Hazard
from evolution.knowledge_gradient import knowledge_gradient
from evolution.space import Gene, Space
from evolution.strategy import Candidate, History, Needs, Proposal

ROWS_BEFORE_MODEL = 16
EVOLVED = 4  # every fourth candidate is a child of the evolution
BLIND = 0.6  # correlation of rows that are left out, freed from noise, with their prediction, below which the model is not used
LEAST_SIGNAL = 0.2  # share of the scores' variance that is taken to be no noise, at least
MODEL_ROWS, KERNEL_ROWS = 150, 100  # each: so many fittest and so many newest
BELIEVED = 128  # candidates in training, the newest
LEAST_SETTLED = 10

LEADERS = 5  # rows to look around, beside the mean of the elite
ASCENTS, CLIMB, ASCENDING = 48, 12, 0.8  # how many, in so many steps, in which share of the genes
ASCENT_WIDTH = 0.15  # half width of the box of an ascent, along an axis of usual relevance
BROOD, STEPS = 96, (0.05, 0.10, 0.15)  # children around the leaders, and their steps
KNOWN = 15  # best rows whose prediction a training can raise, beside the ends of the ascents
CAUTIOUS_WIDTH, CAUTIOUS_CLIMB = 0.05, 30  # half width of the box in which the incumbent is sought, and steps
CAUTION = 3.0  # standard deviations by which the incumbent's bound lies below its mean
RISK = 0.25  # a child of the evolution that fails more probably than this is drawn again
CHILDREN = 4
LONE_STEP = 0.07  # of a child bred while nothing is in training; the more there is, the nearer to the usual step

LOWEST = -2.5  # score of the worst rows


@dataclass(frozen=True)
class Hybrid:
    """The strategy; it has no options."""

    @property
    def needs(self) -> Needs:
        # The kernel's rows end up to two waves before the newest; hence more of these than the model uses.
        return Needs(fittest=MODEL_ROWS, newest=2 * MODEL_ROWS, failed=100, pending=True)

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    def moves(self, gene: Gene, value: float) -> bool:
        """A step is added: a gene that is 0 moves too."""
        return not gene.fixed

    def propose(self, space: Space, history: History, rng: np.random.Generator) -> Proposal:
        """A child of the rows' evolution, or what their model thinks best; see ``Strategy.propose``."""
        view = _View(Cube(space), history)
        if view.model is None:
            return view.child(view.fitness, rng)
        if history.number % EVOLVED == 0:
            return view.child(view.predicted, rng)
        return view.most_informative(view.model, rng)

    def incumbent(self, space: Space, history: History) -> dict[str, float] | None:
        """The hyp set it would recommend now, trained or not; None while there is no row."""
        view = _View(Cube(space), history)
        if not len(view.points):
            return None
        if view.model is None:
            return view.cube.hyp(recombination.centre(view.points, _ranked(view.fitness)))
        return view.incumbent(view.model)


class _Rows:
    """The rows of a history as points of the cube, with their model where there is one, its kernel fitted ``before`` a step."""

    def __init__(self, cube: Cube, history: History, before: int) -> None:
        rows = history.rows
        self.numbers = np.array([row.number for row in rows], dtype=int)
        self.points = cube.points(row.hyp for row in rows)
        self.fitness = np.array([row.fitness for row in rows], dtype=np.float64)
        self.hazard = Hazard(self.points, _points(cube, history.failed))
        self.model: Model | None = None
        self.predicted = self.fitness
        if len(rows) >= ROWS_BEFORE_MODEL:
            self._build(before)

    def _build(self, before: int) -> None:
        """Fit the kernel to rows numbered ``before`` a step, which seldom change; condition the model on what is there."""
        settled = np.flatnonzero(self.numbers < before)
        if len(settled) < LEAST_SETTLED:
            settled = np.arange(len(self.numbers))
        settled = settled[mixture(self.fitness[settled], KERNEL_ROWS)]
        kernel = gaussian_process.fit(self.points[settled], scores(self.fitness[settled]))
        self._keep(mixture(self.fitness, MODEL_ROWS))
        model = Model(kernel, self.points, scores(self.fitness))
        sound = model.sound()
        if not sound.all():
            self._keep(np.flatnonzero(sound))
            model = model.without(~sound, scores(self.fitness))
        if not sees(model):
            return
        self.model = model
        self.predicted = model.smoothed()

    def _keep(self, rows: NDArray[np.intp]) -> None:
        self.numbers, self.points, self.fitness = self.numbers[rows], self.points[rows], self.fitness[rows]


def sees(model: Model) -> bool:
    """Whether a model predicts rows that are left out.

    What was observed carries noise, so that even the truth correlates with it by no more than the square root of the share of
    its variance that is signal (Spearman's correction for attenuation, 1904): that much less is asked of a prediction.
    """
    expected, _ = model.left_out()
    variance = float(np.var(model.values))
    if variance == 0 or np.std(expected) == 0:
        return False
    signal = max(1 - model.kernel.noise / variance, LEAST_SIGNAL)
    return bool(np.corrcoef(expected, model.values)[0, 1] >= BLIND * math.sqrt(signal))


class _Latest:
    """The rows that were modelled last. Candidates that are bred together are shown the very same, and need one model."""

    def __init__(self) -> None:
        self._known: tuple[tuple[object, ...], int, _Rows] | None = None

    def of(self, cube: Cube, history: History, before: int) -> _Rows:
        shown, known = (cube.space, history.fittest, history.newest, history.failed), self._known
        if known is None or known[1] != before or any(a is not b for a, b in zip(known[0], shown, strict=True)):
            known = self._known = shown, before, _Rows(cube, history, before)
        return known[2]


_LATEST = _Latest()


class _View:
    """A history as a proposal sees it: its rows and their model, what is in training."""

    def __init__(self, cube: Cube, history: History) -> None:
        self.cube = cube
        lone = recombination.STEP - (recombination.STEP - LONE_STEP) / (1 + len(history.pending))
        self.step = np.where(cube.choosing, recombination.STEP, lone)  # a smaller one would hardly ever choose anew
        self.pending = _points(cube, history.pending)[-BELIEVED:]
        # Whoever is numbered below this has ended, but for a few: twice as many are in the wave in training.
        ended = history.number - 2 * len(history.pending)
        rows = _LATEST.of(cube, history, refit_at(ended))
        self.numbers, self.points, self.fitness, self.hazard = rows.numbers, rows.points, rows.fitness, rows.hazard
        self.model = rows.model
        self.predicted = rows.predicted

    def child(self, ranking: Vector, rng: np.random.Generator) -> Proposal:
        """A child of the best rows by ``ranking``: the first of a few that will hardly fail, else the safest."""
        parent, parents = self.cube.start, list[int]()
        if len(ranking) > 1:
            order = _ranked(ranking)
            parent, parents = recombination.centre(self.points, order), self._elite(order)
        children = [recombination.child(parent, rng, self.step) for _ in range(CHILDREN)]
        risks = self.hazard.probability(np.array(children))
        chosen = int((risks < RISK).argmax()) if (risks < RISK).any() else int(risks.argmin())
        return Proposal(self.cube.hyp(children[chosen]), tuple(parents))

    def most_informative(self, model: Model, rng: np.random.Generator) -> Proposal:
        """Among ascents from the best rows and children around them, the one whose training is worth most.

        Its merit alone decides whether a candidate exploits or explores. That rows, genes and steps are drawn, and that
        candidates in training are believed, keeps many workers apart.
        """
        order = _ranked(self.predicted)
        leaders = order[:LEADERS]
        origins = np.vstack([self.points[leaders], recombination.centre(self.points, order)])
        parents = [*((int(number),) for number in self.numbers[leaders]), tuple(self._elite(order))]
        climbing, brooding = np.arange(ASCENTS) % len(origins), np.arange(BROOD) % len(origins)
        tops = self._ascents(model, origins[climbing], rng)
        steps = np.resize(np.repeat(STEPS, len(origins)), BROOD)
        points = np.vstack([tops, recombination.children(origins[brooding], steps[:, None], rng)])
        known = np.vstack([self.points[order[:KNOWN]], origins[-1:], tops])
        if len(self.pending):
            model = model.believing(self.pending)
        merit = knowledge_gradient(model, points, known) * (1 - self.hazard.probability(points))
        chosen = int(merit.argmax())
        return Proposal(self.cube.hyp(points[chosen]), parents[np.concatenate([climbing, brooding])[chosen]])

    def _ascents(self, model: Model, starts: Matrix, rng: np.random.Generator) -> Matrix:
        """From each start, in most of its genes, the point of highest prediction in a box."""
        moved = rng.random(starts.shape) < ASCENDING
        moved |= ~moved.any(axis=1, keepdims=True)  # few genes: all rather than none
        lower, upper = box(model, starts, ASCENT_WIDTH)
        lower, upper = np.where(moved, lower, starts), np.where(moved, upper, starts)
        return ascend(self._expected(model), starts, lower, upper, CLIMB)

    def _elite(self, order: NDArray[np.intp]) -> list[int]:
        """The numbers of the rows that the rank-weighted mean is made of."""
        return list(self.numbers[recombination.elite(order)[0]].tolist())

    def _expected(self, model: Model) -> Objective:
        """The mean, with the chance not to fail."""

        def expected(points: Matrix) -> tuple[Vector, Matrix]:
            mean, slope = model.mean_gradient(points)
            safety, safety_slope = self.hazard.log_survival(points)
            return mean + safety, slope + safety_slope

        return expected

    def _bound(self, model: Model) -> Objective:
        """The lower confidence bound, with the chance not to fail."""

        def bound(points: Matrix) -> tuple[Vector, Matrix]:
            mean, variance, slope, variance_slope = model.gradient(points)
            sd = np.sqrt(variance)
            safety, safety_slope = self.hazard.log_survival(points)
            return mean - CAUTION * sd + safety, slope - CAUTION * variance_slope / (2 * sd)[:, None] + safety_slope

        return bound

    def incumbent(self, model: Model) -> dict[str, float]:
        """The highest lower confidence bound in the box around the row, or mean of rows, where it is highest."""
        means = [recombination.centre(self.points, _ranked(ranking)) for ranking in (self.predicted, self.fitness)]
        known = np.vstack([self.points, *means])
        mean, variance = model.predict(known)
        start = known[[(mean - CAUTION * np.sqrt(variance)).argmax()]]
        (top,) = ascend(self._bound(model), start, *box(model, start, CAUTIOUS_WIDTH), CAUTIOUS_CLIMB)
        return self.cube.hyp(top)


def _points(cube: Cube, candidates: tuple[Candidate, ...]) -> Matrix:
    """By number, so that the order they are given in decides nothing."""
    return cube.points(one.hyp for one in sorted(candidates, key=lambda one: one.number))


def _ranked(values: Vector) -> NDArray[np.intp]:
    """Indices, best first; equals in the order of their numbers."""
    return np.argsort(-values, kind="stable")


def mixture(fitness: Vector, n: int) -> NDArray[np.intp]:
    """Indices, ascending, of the ``n`` fittest and of the last ``n`` others."""
    order = _ranked(fitness)
    return np.sort(np.concatenate([order[:n], np.sort(order[n:])[-n:]]))


def refit_at(ended: int) -> int:
    """The last step up to ``ended``: from 16 on, a sixth more each time, at least 4 and at most 32."""
    step = 16
    while step < 192:
        further = step + max(4, step // 6)
        if further > ended:
            return step
        step = further
    return max(step, ended - (ended - step) % 32)


def scores(fitness: Vector) -> Vector:
    """Log fitness on a scale where 1 is the spread of the upper half; the lower half is compressed, so a cliff bends little."""
    good = fitness > 0
    if not good.any():
        return np.zeros(len(fitness))
    logs = np.log(fitness[good])
    middle = np.median(logs)
    upper = logs[logs >= middle] - middle
    z = (logs - middle) / max(math.sqrt(float(np.mean(upper**2))), 1e-4)
    result = np.full(len(fitness), LOWEST)
    result[good] = np.maximum(np.where(z < -1, -1 - np.log1p(np.maximum(-z - 1, 0.0)), z), LOWEST)
    return np.asarray(result - result.mean())


def box(model: Model, middles: Matrix, half_width: float) -> tuple[Matrix, Matrix]:
    """Where the model is trusted around points: wider along axes that matter less, inside the cube."""
    relevance = model.kernel.inverse_lengths
    relevance = np.clip(relevance / np.exp(np.log(relevance).mean()), 0.25, 4.0)
    half = half_width / np.sqrt(relevance)
    return np.maximum(middles - half, 0.0), np.minimum(middles + half, 1.0)
