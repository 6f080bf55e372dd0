"""The networks: sizes as published, and batch-norm folding that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from detector.models import ARCHITECTURES, Detector, architecture, cost, parameters
from detector.scenario import MODELS

# name: parameters at 80 and 3 classes, after folding at 80, convolution GFLOPs at 640, trainable tensors, batch norms, rows
PUBLISHED = {
    "yolov5n": (1_872_157, 1_767_976, 1_867_405, 4.47, 177, 57, 25_200),
    "yolov5s": (7_235_389, 7_027_720, 7_225_885, 16.43, 177, 57, 25_200),
    "yolov5m": (21_190_557, 20_879_400, 21_172_173, 48.87, 243, 79, 25_200),
    "yolov5l": (46_563_709, 46_149_064, 46_533_693, 108.99, 309, 101, 25_200),
    "yolov5x": (86_749_405, 86_231_272, 86_705_005, 205.45, 375, 123, 25_200),
    "yolov3": (61_949_149, 61_534_504, 61_922_845, 155.89, 222, 72, 25_200),
    "yolov3-spp": (62_998_749, 62_584_104, 62_971_933, 156.73, 225, 73, 25_200),
    "yolov3-tiny": (8_852_366, 8_674_496, 8_849_182, 13.17, 37, 11, 6_000),
}


def test_registry_holds_exactly_the_models_that_were_checked():
    assert set(ARCHITECTURES) == set(PUBLISHED) == set(MODELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    at_80, at_3, _, gflops, tensors, norms, rows = PUBLISHED[name]
    assert cost(name) == {"name": name, "parameters": at_80, "gflops": gflops, "rows": rows}
    assert cost(name, classes=3)["parameters"] == at_3
    with torch.device("meta"):
        model = Detector(name, 80)
    assert len(list(model.parameters())) == tensors
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms


@pytest.mark.parametrize("name", PUBLISHED)
def test_folding_drops_one_value_per_norm_channel(name):
    with torch.device("meta"):
        model = Detector(name, 80)
    assert parameters(model.folded()) == PUBLISHED[name][2]


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny"])
def test_folded_model_gives_the_same_outputs(name):
    torch.manual_seed(0)
    model = Detector(name, 3).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.running_var):
                value.uniform_(0.5, 2)
            for value in (module.bias.data, module.running_mean):
                value.normal_()
    model.eval()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for plain, folded in zip(model(images), model.folded()(images), strict=True):
            torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9)


def test_maps_have_one_row_per_anchor_and_cell():
    model = Detector("yolov5n", 3).eval()
    shapes = [tuple(m.shape) for m in model(torch.zeros(2, 3, 64, 96))]
    assert shapes == [(2, 3, 8, 12, 8), (2, 3, 4, 6, 8), (2, 3, 2, 3, 8)]


def test_prior_expects_eight_objects_on_each_level():
    model = Detector("yolov5n", 4)
    before = [head.bias.detach().clone() for head in model.head.heads]
    model.expect(640)
    for head, bias, stride in zip(model.head.heads, before, (8, 16, 32), strict=True):
        added = (head.bias.detach() - bias).view(3, -1)
        np.testing.assert_allclose(added[:, :4], 0)
        np.testing.assert_allclose(added[:, 4], np.log(8 / (640 / stride) ** 2), rtol=1e-4)
        np.testing.assert_allclose(added[:, 5:], np.log(0.6 / (4 - 0.99999)), rtol=1e-4)


def test_anchors_can_be_given():
    pixels = np.arange(1, 17, dtype=float).reshape(2, 4, 2) * 8
    model = Detector("yolov3-tiny", 2, pixels)
    np.testing.assert_allclose(model.anchors * model.strides.view(-1, 1, 1), pixels)
    assert [m.shape[1] for m in model.eval()(torch.zeros(1, 3, 64, 64))] == [4, 4]


def test_unknown_model_is_one_line_with_the_known_ones():
    with pytest.raises(ValueError, match="'yolov9' is unknown; known: yolov3, yolov3-spp, yolov3-tiny, yolov5n") as caught:
        architecture("yolov9")
    assert "\n" not in str(caught.value)
