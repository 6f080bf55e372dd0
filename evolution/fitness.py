"""Fitness: a judgement of the metrics that a training posts. Facts are stored, this is computed, and can be computed again."""

from __future__ import annotations

import math
from collections.abc import Mapping

METRICS = ("precision", "recall", "f1", "map50", "map50_95")
WEIGHTS: Mapping[str, float] = {"map50": 0.1, "map50_95": 0.9}  # yolov5's


def fitness(metrics: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of metrics, added up in the order of ``METRICS`` so that every machine gets the same number.

    A metric of weight 0 need not be there.

    Raises:
        ValueError: a weighted metric is missing or not finite, or a weight is for no known metric; the text names it.
    """
    for name in weights:
        if name not in METRICS:
            raise ValueError(f"'{name}' is no metric that fitness knows; known: {', '.join(METRICS)}")
    total = 0.0
    for name in METRICS:
        weight = weights.get(name, 0.0)
        if weight == 0:
            continue
        if name not in metrics:
            raise ValueError(f"metric '{name}' is missing; fitness needs {formula(weights)}")
        value = float(metrics[name])
        if not math.isfinite(value):
            raise ValueError(f"metric '{name}' is {value}; fitness needs finite metrics")
        total += weight * value
    return total


def formula(weights: Mapping[str, float]) -> str:
    """``0.1*map50 + 0.9*map50_95``."""
    return " + ".join(f"{weights[name]:g}*{name}" for name in METRICS if weights.get(name, 0.0) != 0)
