"""A Gaussian process over the unit cube: Matern 3/2, a length scale per axis, fitted by maximum a posteriori.

With 29 axes and a few dozen rows the likelihood alone says little about most length scales; the prior says that an axis matters
little until the rows say otherwise. Values are expected on a scale where 1 is a usual difference (``hybrid.scores``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ROOT3 = math.sqrt(3.0)
JITTER = 1e-6
LENGTH_SD = 1.5  # of the log length scale, around log(0.5 sqrt(d))
NOISE, NOISE_SD = 0.15, 1.0  # median of the noise variance; sd of its log
OUTLIER = 2.5  # standard deviations
ITERATIONS = 12  # few: the posterior's far ends fit noise (docs/log-search.md)


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
    x = np.frombuffer(points).reshape(-1, d)
    y = np.frombuffer(values)
    kernel = _fit(x, y - y.mean())
    # A few values far below all others make a smooth function look rough and noisy: fitted again without them.
    sound = Model(kernel, x, y - y.mean()).sound()
    return kernel if sound.all() else _fit(x[sound], y[sound] - y[sound].mean())


def _fit(x: Matrix, y: Vector) -> Kernel:
    """The kernel with the highest posterior density."""
    d = x.shape[1]
    middle = math.log(0.5 * math.sqrt(d))
    # From the prior's middle alone the search can settle in "all is noise"; the second start is a low-noise one.
    starts = (
        np.concatenate([np.full(d, middle), [0.0, math.log(NOISE)]]),
        np.concatenate([np.full(d, middle - 0.7), [0.5, math.log(NOISE) - 1.5]]),
    )
    bounds = [(middle - 4, middle + 4)] * d + [(-3.0, 4.0), (math.log(1e-4), math.log(4.0))]
    best: Vector = starts[0]
    least = math.inf
    for start in starts:
        found = minimize(
            _loss, start, args=(x, y, middle), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS}
        )
        if found.fun < least:
            best, least = found.x, float(found.fun)
    return Kernel(np.exp(-best[:d]), math.exp(best[d]), math.exp(best[d + 1]))


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
    noisy = k.copy()
    noisy.flat[:: len(k) + 1] += noise + JITTER
    factor, info = dpotrf(noisy, lower=1, clean=1)
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
        covariance = self._covariance(_distances(self._scaled, self._scaled))
        inverse, _ = _inverse(covariance, kernel.noise)
        if inverse is None:
            inverse, _ = _inverse(covariance, kernel.noise + 1e-2 * kernel.signal)
        assert inverse is not None
        self._inverse = inverse
        self._weights = inverse @ values

    def _covariance(self, r: Matrix) -> Matrix:
        k = self.kernel
        return np.asarray(k.signal * (1 + ROOT3 * r) * np.exp(-ROOT3 * r))

    def predict(self, points: Matrix) -> tuple[Vector, Vector]:
        """Means and variances (of the noiseless value)."""
        k = self._covariance(_distances(points * self.kernel.inverse_lengths, self._scaled))
        return k @ self._weights, np.maximum(self.kernel.signal - ((k @ self._inverse) * k).sum(1), 1e-9)

    def gradient(self, point: Vector) -> tuple[float, float, Vector, Vector]:
        """Mean and variance at one point, and their gradients."""
        difference = point * self.kernel.inverse_lengths - self._scaled
        r = np.sqrt((difference * difference).sum(1))
        decay = self.kernel.signal * np.exp(-ROOT3 * r)
        k = (1 + ROOT3 * r) * decay
        slope = -3 * decay
        solved = self._inverse @ k
        both = np.stack([slope * self._weights, slope * solved]) @ difference * self.kernel.inverse_lengths
        return float(k @ self._weights), max(self.kernel.signal - float(k @ solved), 1e-9), both[0], -2 * both[1]

    def left_out(self) -> tuple[Vector, Vector]:
        """What each point would be predicted from the others: means, and variances of the noisy value."""
        variance = 1 / np.diag(self._inverse)
        return self.values - self._weights * variance, variance

    def sound(self) -> NDArray[np.bool_]:
        """False where a value lies so far below what the others predict that its training must have gone wrong."""
        expected, variance = self.left_out()
        return np.asarray(self.values >= expected - OUTLIER * np.sqrt(variance))
