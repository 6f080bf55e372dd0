"""Genes and spaces: bounds, fixed genes, order, and the table of the built-in detector's genes."""

import math

import pytest

from evolution.hyperparameters import Hyperparameters, lineage_space
from evolution.space import Gene, Space

GENE = Gene("lr0", 0.01, 1.0, 1e-5, 0.1)


def test_clip():
    assert [GENE.clip(x) for x in (-1, 0.05, 7)] == [1e-5, 0.05, 0.1]
    assert Gene("a", 0.3, 0.0, 0.0, 1.0).clip(0.9) == 0.3
    assert Gene("a", 0.3, 1.0, 0.3, 0.3).fixed


def test_names_are_unique():
    with pytest.raises(ValueError, match="genes named twice: lr0"):
        Space((GENE, GENE))


def test_contains():
    space = Space((GENE, Gene("iou_t", 0.2, 0.0, 0.1, 0.7)))
    assert space.contains({"iou_t": 0.2, "lr0": 0.1})
    for hyp in ({"lr0": 0.1}, {"lr0": 0.1, "iou_t": 0.3}, {"lr0": 0.2, "iou_t": 0.2}, {"lr0": math.nan, "iou_t": 0.2}):
        assert not space.contains(hyp)
    assert not space.contains({"lr0": 0.1, "iou_t": 0.2, "x": 1})


def test_order_and_access():
    space = lineage_space()
    assert len(space) == 29
    assert (space.names[0], space.names[-1]) == ("lr0", "copy_paste")
    assert tuple(space.start) == space.names == tuple(Hyperparameters().to_dict())
    assert space["box"].upper == 0.2
    assert "box" in space
    assert "giou" not in space
    with pytest.raises(KeyError):
        space["giou"]


def test_defaults_lie_inside_their_bounds():
    space = lineage_space()
    assert space.contains(space.start)
    with pytest.raises(ValueError, match="lineage 'yolov9' is unknown; known: yolov5, yolov3-2019, yolov3-2020"):
        lineage_space("yolov9")
