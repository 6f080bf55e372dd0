"""Our own strategy: evolution for the first rows, then a local model of the fitness, in a unit cube where zeros can move.

====================  =========================================================================================================
first rows            until 16 rows are there, a child of the rank-weighted mean of the fittest (``recombination``)
model                 a Gaussian process over the log fitness of rows; a failed training is no value, which would bend the
                      model, but moves the border of ``hazard``; so is a row far below what the others predict, which went wrong
of every four         one is a child of the rank-weighted mean of the rows that the model thinks best; one is the point of
                      largest expected improvement in a box around the best of them, candidates in training believed to come
                      out as predicted; two are ascents, each from one of the best rows to the highest lower confidence bound
model that is blind   while it does not predict rows that are left out, children as in the beginning
incumbent             the point of highest lower confidence bound near the best row, trained or not
====================  =========================================================================================================

Nothing that a proposal depends on is kept between two of them. The model is conditioned on at most 300 rows; its kernel is
fitted to rows below a number that moves on in steps, so that most proposals find it in memory and any replica finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr

from evolution import gaussian_process, recombination
from evolution.cube import Cube, Matrix, Vector, reflected
from evolution.gaussian_process import Model
from evolution.hazard import Hazard
from evolution.space import Gene, Space
from evolution.strategy import Candidate, History, Needs, Proposal

ROWS_BEFORE_MODEL = 16
EVOLVED = 4  # every fourth candidate is a child of the evolution; of the three after it, one explores and two ascend
BLIND = 0.6  # correlation of rows that are left out, freed from noise, with their prediction, below which the model is not used
LEAST_SIGNAL = 0.2  # share of the scores' variance that is taken to be no noise, at least
MODEL_ROWS, KERNEL_ROWS = 150, 100  # each: so many fittest and so many newest
BELIEVED = 128  # candidates in training, the newest
LEAST_SETTLED = 10

HALF_WIDTH, LEAST_WIDTH = 0.10, 0.04  # of the box, along an axis of usual relevance
HALVED = 50  # candidates without a better row that halve the box
CAUTIOUS_WIDTH = 0.05  # of the box in which the incumbent is sought
ASCENT_WIDTH, ASCENT_CAUTION, ASCENDING = 0.15, 1.0, 0.8  # of an ascent: its box, its caution, the share of the genes that move
LEADERS, NEAR, ANYWHERE, CLIMBS = 5, 25, 50, 2  # rows to look around, points around each, points in the box, starts of a climb
CAUTION = 3.0  # standard deviations by which the incumbent's bound lies below its mean
RISK = 0.25  # a child of the evolution that fails more probably than this is drawn again
CHILDREN = 4

LOWEST = -2.5  # score of the worst rows

Objective = Callable[[Vector], tuple[float, Vector]]


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
        if history.number % EVOLVED > 1:
            return view.ascent(view.model, rng)
        return view.improvement(view.model, rng)

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
        self.predicted, _ = model.predict(self.points)

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
    """A history as a proposal sees it: its rows and their model, what is in training, where the search stands."""

    def __init__(self, cube: Cube, history: History) -> None:
        self.cube = cube
        self.pending = _points(cube, history.pending)[-BELIEVED:]
        # Whoever is numbered below this has ended, but for a few: twice as many are in the wave in training.
        self.ended = history.number - 2 * len(history.pending)
        rows = _LATEST.of(cube, history, refit_at(self.ended))
        self.numbers, self.points, self.fitness, self.hazard = rows.numbers, rows.points, rows.fitness, rows.hazard
        self.model = rows.model
        self.predicted = rows.predicted

    def child(self, ranking: Vector, rng: np.random.Generator) -> Proposal:
        """A child of the best rows by ``ranking``: the first of a few that will hardly fail, else the safest."""
        parent, parents = self.cube.start, np.zeros(0, dtype=int)
        if len(ranking) > 1:
            order = _ranked(ranking)
            parent, parents = recombination.centre(self.points, order), self.numbers[recombination.elite(order)[0]]
        children = [recombination.child(parent, rng) for _ in range(CHILDREN)]
        risks = self.hazard.probability(np.array(children))
        chosen = int((risks < RISK).argmax()) if (risks < RISK).any() else int(risks.argmin())
        return Proposal(self.cube.hyp(children[chosen]), tuple(parents.tolist()))

    def improvement(self, model: Model, rng: np.random.Generator) -> Proposal:
        """The point of largest expected improvement that does not fail, around the row with the best prediction."""
        best = int(self.predicted.argmax())
        target = float(self.predicted[best])
        stale = max(0, self.ended - int(self.numbers[best]))
        lower, upper = box(model, self.points[best], max(HALF_WIDTH * 0.5 ** (stale / HALVED), LEAST_WIDTH))
        if len(self.pending):
            model = model.believing(self.pending)
        leaders = self.points[_ranked(self.predicted)[:LEADERS]]
        starts = _starts(leaders, lower, upper, rng)
        mean, variance = model.predict(starts)
        merit = log_improvement(mean, np.sqrt(variance), target) + np.log1p(-self.hazard.probability(starts))

        def gain(point: Vector) -> tuple[float, Vector]:
            value, slope = _improvement_at(model, point, target)
            safety, safety_slope = self.hazard.log_survival(point)
            return value + safety, slope + safety_slope

        found = climb(gain, starts[_ranked(merit)[:CLIMBS]], lower, upper, iterations=15)
        return Proposal(self.cube.hyp(found), (int(self.numbers[best]),))

    def ascent(self, model: Model, rng: np.random.Generator) -> Proposal:
        """From one of the best rows, in most of the genes, the point of highest lower confidence bound.

        Expected improvement in 29 genes likes the far corners of its box, most of which are worse than the row it started from.
        This stays where the model knows something; that rows and genes are drawn keeps many workers apart.
        """
        leader = int(_ranked(self.predicted)[rng.integers(min(LEADERS, len(self.points)))])
        start = self.points[leader]
        lower, upper = box(model, start, ASCENT_WIDTH)
        moved = rng.random(len(start)) < ASCENDING
        moved |= not moved.any()  # few genes: all rather than none
        lower, upper = np.where(moved, lower, start), np.where(moved, upper, start)
        found = climb(self._bound(model, ASCENT_CAUTION), start[None], lower, upper, iterations=15)
        return Proposal(self.cube.hyp(found), (int(self.numbers[leader]),))

    def _bound(self, model: Model, caution: float) -> Objective:
        """The lower confidence bound, so many standard deviations below the mean, with the chance not to fail."""

        def bound(point: Vector) -> tuple[float, Vector]:
            mean, variance, slope, variance_slope = model.gradient(point)
            sd = math.sqrt(variance)
            safety, safety_slope = self.hazard.log_survival(point)
            return mean - caution * sd + safety, slope - caution * variance_slope / (2 * sd) + safety_slope

        return bound

    def incumbent(self, model: Model) -> dict[str, float]:
        """The highest lower confidence bound in the box around the row, or mean of rows, where it is highest."""
        means = [recombination.centre(self.points, _ranked(ranking)) for ranking in (self.predicted, self.fitness)]
        known = np.vstack([self.points, *means])
        mean, variance = model.predict(known)
        start = known[int((mean - CAUTION * np.sqrt(variance)).argmax())]

        return self.cube.hyp(climb(self._bound(model, CAUTION), start[None], *box(model, start, CAUTIOUS_WIDTH), iterations=30))


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


def box(model: Model, middle: Vector, half_width: float) -> tuple[Vector, Vector]:
    """Where the model is trusted around ``middle``: wider along axes that matter less, inside the cube."""
    relevance = model.kernel.inverse_lengths
    relevance = np.clip(relevance / np.exp(np.log(relevance).mean()), 0.25, 4.0)
    half = half_width / np.sqrt(relevance)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _starts(leaders: Matrix, lower: Vector, upper: Vector, rng: np.random.Generator) -> Matrix:
    """Points in the box: steps in some of the genes from each leader, and points anywhere."""
    d = len(lower)
    around = np.repeat(leaders, NEAR, axis=0)
    moved = rng.random(around.shape) < np.maximum(4 / d, rng.random((len(around), 1)))
    around = reflected(around + moved * rng.standard_normal(around.shape) * (upper - lower) / 4)
    anywhere = lower + rng.random((ANYWHERE, d)) * (upper - lower)
    return np.clip(np.vstack([around, anywhere]), lower, upper)


def climb(objective: Objective, starts: Matrix, lower: Vector, upper: Vector, iterations: int) -> Vector:
    """The highest point in the box that gradient ascent finds from the starts."""

    def loss(point: Vector) -> tuple[float, Vector]:
        value, slope = objective(point)
        return -value, -slope

    bounds = list(zip(lower, upper, strict=True))
    ends = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations}) for start in starts
    ]
    return np.asarray(np.clip(min(ends, key=lambda end: float(end.fun)).x, lower, upper))


def log_improvement(mean: Vector, sd: Vector, target: float) -> Vector:
    """Logarithm of the expected improvement over ``target``, by its asymptote where it would underflow."""
    u = (mean - target) / sd
    density = np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    near = np.log(np.maximum(u * ndtr(u) + density, 1e-300))
    far = -0.5 * u * u - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-u, 1.0))
    return np.asarray(np.log(sd) + np.where(u > -6, near, far))


def _improvement_at(model: Model, point: Vector, target: float) -> tuple[float, Vector]:
    """``log_improvement`` at one point, and its gradient."""
    mean, variance, mean_slope, variance_slope = model.gradient(point)
    sd = math.sqrt(variance)
    sd_slope = variance_slope / (2 * sd)
    u = (mean - target) / sd
    value = float(log_improvement(np.array([mean]), np.array([sd]), target)[0])
    if u > -6:
        density, below = math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi), float(ndtr(u))
        return value, (below * mean_slope + density * sd_slope) / (sd * max(u * below + density, 1e-300))
    return value, sd_slope / sd - (u + 2 / u) * (mean_slope - u * sd_slope) / sd
