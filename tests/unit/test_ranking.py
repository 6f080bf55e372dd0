"""The study of how short trainings rank: which rows are paired, and what is computed from them."""

from __future__ import annotations

import numpy as np

from benchmarks.ranking import METRICS, compare, space
from evolution.hyperparameters import lineage_space


def rows(values):
    return [{"metrics/precision": "0", **dict.fromkeys(METRICS.values(), str(v)), "lr0": str(gene)} for gene, v in values]


def test_equal_orders_correlate_whatever_the_values():
    rng = np.random.default_rng(0)
    short = [(gene, value) for gene, value in enumerate(rng.random(24))]
    long = [(gene, value**3) for gene, value in reversed(short)]
    found = compare(rows(short), rows([short[0], *long]), 0)
    assert found["hyp_sets"] == 23  # the first is the default hyp set
    assert found["spearman"]["map50"] == {"rho": 1.0, "low": 1.0, "high": 1.0}
    upside_down = compare(rows(short), rows([(gene, -value) for gene, value in short]), 0)
    assert upside_down["spearman"]["map50"]["rho"] == -1
    chance = compare(rows(short), rows([(gene, value) for gene, value in enumerate(rng.random(24))]), 0)["spearman"]["map50"]
    assert chance["low"] < 0 < chance["high"]


def test_a_hyp_set_that_only_one_has_is_left_out():
    found = compare(rows([(0, 1), (1, 1), (2, 2), (3, 3), (4, 4)]), rows([(0, 1), (2, 5), (3, 6), (4, 7)]), 0)
    assert found["hyp_sets"] == 3


def test_the_narrowed_space_lies_around_the_defaults():
    whole = lineage_space("yolov5")
    for name, (_, low, high) in space().items():
        assert whole[name].lower <= low <= whole[name].start <= high <= whole[name].upper
        assert high <= 3.001 * whole[name].start
    assert "degrees" not in space()
