"""Where trainings fail: a straight border between the finished and the failed points, as far as the failures support one.

A linear discriminant: the pooled spread of the points says how far apart the two means are, and few failures say little.
"""

from __future__ import annotations

import numpy as np

from evolution.cube import Matrix, Vector

SPREAD = 0.05  # added to the spread of every axis, so that a direction without spread decides nothing
TRUSTED = 3.0  # failures at which the border counts half


class Hazard:
    """The probability that a training fails, over the unit cube."""

    def __init__(self, finished: Matrix, failed: Matrix) -> None:
        d = finished.shape[1]
        self._slope: Vector = np.zeros(d)
        self._middle: Vector = np.zeros(d)
        self._odds = -np.inf
        if len(failed) < 2 or len(finished) < 2:
            return
        means = finished.mean(0), failed.mean(0)
        apart = np.vstack([finished - means[0], failed - means[1]])
        covariance = apart.T @ apart / len(apart) + SPREAD**2 * np.eye(d)
        self._slope = np.linalg.solve(covariance, means[1] - means[0]) * len(failed) / (len(failed) + TRUSTED)
        self._middle = (means[0] + means[1]) / 2
        self._odds = float(np.log(len(failed) / len(finished)))

    def probability(self, points: Matrix) -> Vector:
        against = -(self._odds + (points - self._middle) @ self._slope)
        return np.asarray(1 / (1 + np.exp(np.clip(against, -36, 50))))  # never quite 1: a logarithm is taken of the rest

    def log_survival(self, points: Matrix) -> tuple[Vector, Matrix]:
        """The logarithms of the probabilities not to fail, and their gradients, a row for each point."""
        failing = self.probability(points)
        return np.log1p(-failing), -failing[:, None] * self._slope
