"""Fitness is a weighted sum of known, finite metrics, and says which one it lacks."""

import math

import pytest

from evolution.fitness import METRICS, WEIGHTS, fitness, formula

METERED = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "map50": 0.4, "map50_95": 0.2}


def test_yolov5_weights():
    assert fitness(METERED, WEIGHTS) == pytest.approx(0.1 * 0.4 + 0.9 * 0.2)


def test_the_order_of_weights_does_not_change_a_bit():
    weights = {name: 0.1 * (i + 1) / 3 for i, name in enumerate(METRICS)}
    assert fitness(METERED, weights) == fitness(METERED, dict(reversed(list(weights.items()))))


def test_metrics_without_weight_need_not_be_there():
    assert fitness({"map50": 0.5}, {"map50": 1, "f1": 0}) == 0.5


@pytest.mark.parametrize(
    ("metrics", "weights", "message"),
    [
        ({"map50": 0.4}, WEIGHTS, r"metric 'map50_95' is missing; fitness needs 0.1\*map50 \+ 0.9\*map50_95"),
        ({"map50": math.nan, "map50_95": 0}, WEIGHTS, "metric 'map50' is nan; fitness needs finite metrics"),
        (METERED, {"map": 1}, "'map' is no metric that fitness knows; known: precision, recall, f1, map50, map50_95"),
    ],
)
def test_what_is_wrong_is_named(metrics, weights, message):
    with pytest.raises(ValueError, match=message):
        fitness(metrics, weights)


def test_formula():
    assert formula({"map50_95": 0.9, "map50": 0.1, "f1": 0}) == "0.1*map50 + 0.9*map50_95"
