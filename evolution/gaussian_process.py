"""A Gaussian process over the unit cube: Matern 3/2, a length scale per axis, fitted by maximum a posteriori.

With 29 axes and a few dozen rows the likelihood alone says little about most length scales; the prior says that an axis matters
little until the rows say otherwise. Values are expected on a scale where 1 is a usual difference (``hybrid.scores``).
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import OptimizeResult, minimize

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ROOT3 = math.sqrt(3.0)
JITTER = 1e-6
LENGTH_SD = 1.5  # of the log length scale, around log(0.5 sqrt(d))
NOISE, NOISE_SD = 0.15, 1.0  # median of the noise variance; sd of its log
OUTLIER = 2.5  # standard deviations
ROUGH_POINTS, ROUGH_STEPS, FINE_STEPS = 90, 12, 8  # few: the posterior's far ends fit noise (docs/log-search.md)


@dataclass(frozen=True)
class Kernel:
    """The hyperparameters of the process: inverse length scales, signal variance, noise variance."""

    inverse_lengths: Vector
    signal: float
    noise: float


def fit(points: Matrix, values: Vector) -> Kernel:
    """The kernel of the points that have not gone wrong; the same for equal content, which is remembered."""
    return _remembered(points.shape[1], points.tobytes(), values.tobytes())


@lru_cache(maxsize=64)
def _remembered(d: int, points: bytes, values: bytes) -> Kernel:
    """First a rough fit to a few points; then, without the values far below what it predicts, a finer one from there.

    The rough fit has two starts: from the prior's middle alone it can settle in "all is noise". The fine one is short, since a
    step costs the cube of the number of points. Values gone wrong make a smooth function look rough and noisy.
    """
    x, y = np.frombuffer(points).reshape(-1, d), np.frombuffer(values)
    few = strided(len(y), ROUGH_POINTS)
    middle = math.log(0.5 * math.sqrt(d))
    lengths = np.full(d, middle)
    starts = (
        np.concatenate([lengths, [0.0, math.log(NOISE)]]),
        np.concatenate([lengths - 0.7, [0.5, math.log(NOISE) - 1.5]]),
    )
    rough = min((_climb(start, x[few], y[few], ROUGH_STEPS) for start in starts), key=lambda end: float(end.fun))
    sound = Model(_kernel(rough.x), x, y - y.mean()).sound()
    return _kernel(_climb(rough.x, x[sound], y[sound], FINE_STEPS).x)


def strided(n: int, most: int) -> NDArray[np.intp]:
    """At most so many of n indices, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


def _climb(start: Vector, x: Matrix, y: Vector, steps: int) -> OptimizeResult:
    d = x.shape[1]
    middle = math.log(0.5 * math.sqrt(d))
    bounds = [(middle - 4, middle + 4)] * d + [(-3.0, 4.0), (math.log(1e-4), math.log(4.0))]
    centred = y - y.mean()
    return minimize(
        _loss, start, args=(x, centred, middle), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
    )


def _kernel(theta: Vector) -> Kernel:
    d = len(theta) - 2
    return Kernel(np.exp(-theta[:d]), math.exp(theta[d]), math.exp(theta[d + 1]))


def _loss(theta: Vector, x: Matrix, y: Vector, middle: float) -> tuple[float, Vector]:
    """Minus the log posterior density, and its gradient."""
    d = x.shape[1]
    scaled = x * np.exp(-theta[:d])
    signal, noise = math.exp(theta[d]), math.exp(theta[d + 1])
    r = _distances(scaled, scaled)
    decay = signal * np.exp(-ROOT3 * r)
    k = (1 + ROOT3 * r) * decay
    inverse, logdet = _inverse(k, noise)
    if inverse is None:
        return 1e10, np.zeros_like(theta)
    weights = inverse @ y
    g = np.outer(weights, weights) - inverse
    w = 3 * g * decay
    gradient = np.empty_like(theta)
    gradient[:d] = (scaled * (w @ scaled)).sum(0) - w.sum(1) @ (scaled * scaled)
    gradient[d] = -0.5 * np.vdot(g, k)
    gradient[d + 1] = -0.5 * noise * np.trace(g)
    z = np.concatenate([(theta[:d] - middle) / LENGTH_SD, [theta[d]], [(theta[d + 1] - math.log(NOISE)) / NOISE_SD]])
    gradient += z / np.concatenate([np.full(d, LENGTH_SD), [1.0, NOISE_SD]])
    return float(0.5 * (y @ weights + logdet + z @ z)), gradient


def _distances(a: Matrix, b: Matrix) -> Matrix:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _inverse(k: Matrix, noise: float) -> tuple[Matrix | None, float]:
    """The inverse of k + noise, and the logarithm of its determinant; None where it is singular."""
    noisy = k.copy().T  # symmetric, and so in the order in which LAPACK works in place
    noisy.flat[:: len(k) + 1] += noise + JITTER
    factor, info = dpotrf(noisy, lower=1, clean=1, overwrite_a=1)
    if info:
        return None, 0.0
    logdet = 2 * float(np.log(np.diag(factor)).sum())
    inverse, info = dpotri(factor, lower=1, overwrite_c=1)
    if info:
        return None, 0.0
    inverse = inverse + inverse.T  # dpotri fills the lower triangle; the upper one is 0
    inverse.flat[:: len(k) + 1] *= 0.5
    return inverse, logdet


class Model:
    """The process given some values: what it predicts at other points."""

    def __init__(self, kernel: Kernel, points: Matrix, values: Vector) -> None:
        self.kernel, self.points, self.values = kernel, points, values
        self._scaled = points * kernel.inverse_lengths
        self._noise = kernel.noise
        covariance = self._covariance(_distances(self._scaled, self._scaled))
        inverse, _ = _inverse(covariance, self._noise)
        if inverse is None:
            self._noise += 1e-2 * kernel.signal
            inverse, _ = _inverse(covariance, self._noise)
        assert inverse is not None
        self._inverse = inverse
        self._weights = inverse @ values

    def without(self, rows: NDArray[np.bool_], values: Vector) -> Self:
        """The model without some of its rows and with these values at the others, by the inverse of a block."""
        model = copy(self)
        model.points, model._scaled, model.values = self.points[~rows], self._scaled[~rows], values
        corner = np.linalg.inv(self._inverse[np.ix_(rows, rows)])
        border = self._inverse[np.ix_(~rows, rows)]
        model._inverse = self._inverse[np.ix_(~rows, ~rows)] - border @ corner @ border.T
        model._weights = model._inverse @ values
        return model

    def believing(self, points: Matrix) -> Self:
        """The model with more points that came out as predicted: its means are the same, its variances smaller there."""
        model = copy(self)
        scaled = points * self.kernel.inverse_lengths
        cross = self._covariance(_distances(scaled, self._scaled))
        own = self._covariance(_distances(scaled, scaled)) + (self.kernel.noise + JITTER) * np.eye(len(points))
        solved = cross @ self._inverse
        corner = np.linalg.inv(own - solved @ cross.T)
        border = -solved.T @ corner
        model._inverse = np.block([[self._inverse - border @ solved, border], [border.T, corner]])
        model.points, model._scaled = np.vstack([self.points, points]), np.vstack([self._scaled, scaled])
        model.values = np.concatenate([self.values, cross @ self._weights])
        model._weights = np.concatenate([self._weights, np.zeros(len(points))])
        return model

    def _covariance(self, r: Matrix) -> Matrix:
        k = self.kernel
        return np.asarray(k.signal * (1 + ROOT3 * r) * np.exp(-ROOT3 * r))

    def predict(self, points: Matrix) -> tuple[Vector, Vector]:
        """Means and variances (of the noiseless value)."""
        k = self._common(points)
        return k @ self._weights, np.maximum(self.kernel.signal - ((k @ self._inverse) * k).sum(1), 1e-9)

    def joint(self, points: Matrix, others: Matrix) -> tuple[Vector, Vector, Matrix]:
        """Variances of the points, means of the others, and covariances of both, a row for each point; of noiseless values."""
        known, theirs = self._common(points), self._common(others)
        solved = known @ self._inverse
        scaled = [some * self.kernel.inverse_lengths for some in (points, others)]
        variances = np.maximum(self.kernel.signal - (solved * known).sum(1), 1e-9)
        return variances, theirs @ self._weights, self._covariance(_distances(*scaled)) - solved @ theirs.T

    def _common(self, points: Matrix) -> Matrix:
        """The prior covariances of points with the rows."""
        return self._covariance(_distances(points * self.kernel.inverse_lengths, self._scaled))

    def mean_gradient(self, points: Matrix) -> tuple[Vector, Matrix]:
        """Means at points, and their gradients, a row for each point: half the work of ``gradient``."""
        scaled, k, decay = self._near(points)
        return k @ self._weights, self._slope(scaled, -3 * decay * self._weights)

    def gradient(self, points: Matrix) -> tuple[Vector, Vector, Matrix, Matrix]:
        """Means and variances at points, and their gradients, a row for each point."""
        scaled, k, decay = self._near(points)
        solved = k @ self._inverse
        mean, variance = (self._slope(scaled, -3 * decay * weights) for weights in (self._weights, solved))
        return k @ self._weights, np.maximum(self.kernel.signal - (k * solved).sum(1), 1e-9), mean, -2 * variance

    def _near(self, points: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The points in units of length scales, their covariances with the rows, and what these decay by."""
        scaled = points * self.kernel.inverse_lengths
        r = _distances(scaled, self._scaled)
        decay = self.kernel.signal * np.exp(-ROOT3 * r)
        return scaled, (1 + ROOT3 * r) * decay, decay

    def _slope(self, scaled: Matrix, pulls: Matrix) -> Matrix:
        """The sum over rows of the pull along the way from the row to each point."""
        return np.asarray((scaled * pulls.sum(1)[:, None] - pulls @ self._scaled) * self.kernel.inverse_lengths)

    def smoothed(self) -> Vector:
        """What is predicted at the points themselves: their values without what is taken to be noise."""
        return self.values - (self._noise + JITTER) * self._weights

    def left_out(self) -> tuple[Vector, Vector]:
        """What each point would be predicted from the others: means, and variances of the noisy value."""
        variance = 1 / np.diag(self._inverse)
        return self.values - self._weights * variance, variance

    def sound(self) -> NDArray[np.bool_]:
        """False where a value lies so far below what the others predict that its training must have gone wrong."""
        expected, variance = self.left_out()
        return np.asarray(self.values >= expected - OUTLIER * np.sqrt(variance))
