"""The numbers behind the plots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolution.analysis import Step, best_so_far, density, summarize
from evolution.space import Gene


def test_best_so_far_keeps_the_first_of_equals():
    assert best_so_far({3: 0.4, 0: 0.1, 1: 0.3, 2: 0.3}) == [Step(0, 0.1), Step(1, 0.3), Step(3, 0.4)]
    assert best_so_far({}) == []


def test_density_counts_a_points_company():
    assert density([0, 0, 1, 0.99], [0, 0.01, 1, 1]) == [2, 2, 2, 2]
    assert density([0, 0, 1], [0, 1, 1]) == [1, 1, 1]
    assert density([5, 5], [1, 1]) == [2, 2]
    assert density([], []) == []
    with pytest.raises(ValueError, match="2 values and 1 fitnesses"):
        density([1, 2], [1])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_density_agrees_with_a_histogram(points):
    x, y = (np.array(axis) for axis in zip(*points, strict=True))
    counts = density(list(x), list(y))
    # Every cell of n points gives n points the count n.
    assert sum(1 / count for count in counts) == pytest.approx(len(set(map(tuple, _cells(x, y)))))


def _cells(x, y):
    def cell(axis):
        span = np.ptp(axis)
        return np.zeros(len(axis), int) if span == 0 else np.minimum((axis - axis.min()) / span * 20, 19).astype(int)

    return np.stack([cell(x), cell(y)], axis=1)


def test_summary_of_a_gene():
    gene = Gene("mosaic", 1.0, 1.0, 0.0, 1.0)
    summary = summarize(gene, [1.0, 0.8, 1.0, 0.0], [0.1, 0.3, 0.3, 0.2])
    assert (summary.best, summary.at_upper, summary.at_lower) == (0.8, 0.5, 0.25)
    assert (summary.smallest, summary.largest) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 values"):
        summarize(gene, [], [])
