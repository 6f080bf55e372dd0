"""Samples rendered by tensors against the same samples rendered by OpenCV: the same boxes, nearly the same pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detector.augment import coloured as coloured_on_host
from detector.batches import training_batches
from detector.cache import OUTLINE_POINTS, Picture
from detector.resident import Resident, coloured, resident
from evolution.hyperparameters import Hyperparameters

SIDE = 96
STILL = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "translate": 0, "scale": 0, "fliplr": 0, "mosaic": 0}
# Mean absolute difference of pixels, of 255 levels.
BOUND, BOUND_COLOURED = 0.001, 0.5
BOX_BOUND = 1e-3


def pictures(outlined, count=7):
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        height, width = [(SIDE, 60), (70, SIDE), (SIDE, SIDE)][i % 3]
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        n = i  # the first picture is a background
        wh = rng.uniform(0.1, 0.4, (n, 2))
        xy = wh / 2 + rng.random((n, 2)) * (1 - wh)
        labels = np.concatenate((rng.integers(3, size=(n, 1)), xy, wh), 1).astype(np.float32)
        outlines = np.empty((0, OUTLINE_POINTS, 2), np.float32)
        if outlined and n and i % 2:
            angle = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
            circle = np.stack((np.cos(angle), np.sin(angle)), 1) / 2
            outlines = (xy[:, None] + circle * wh[:, None]).astype(np.float32)
            outlines[0] = np.nan
        made.append(Picture(pixels, (height, width), labels, outlines))
    return tuple(made)


def sorted_rows(targets):
    rows = targets[(targets[:, 4] > 0) & (targets[:, 5] > 0)]
    return rows[np.lexsort(rows.T[::-1].round(3))]


CASES = {
    "mosaic": {"mosaic": 1},
    "nothing": {},
    "scale and translate": {"scale": 0.5, "translate": 0.2},
    "rotation and shear": {"degrees": 40.0, "shear": 10.0},
    "perspective": {"perspective": 0.001, "degrees": 10.0},
    "mirrors": {"flipud": 0.5, "fliplr": 0.5, "mosaic": 0.5},
    "colours": {"hsv_h": 0.1, "hsv_s": 0.7, "hsv_v": 0.4},
    "mixup": {"mosaic": 0.8, "mixup": 0.5, "scale": 0.5},
    "copy-paste": {"mosaic": 1, "copy_paste": 0.8, "scale": 0.3, "fliplr": 0.5},
    "everything": {
        "mosaic": 0.8, "mixup": 0.4, "copy_paste": 0.5, "scale": 0.5, "translate": 0.1, "degrees": 10.0, "shear": 3.0,
        "perspective": 0.0005, "flipud": 0.3, "fliplr": 0.5, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4,
    },
}  # fmt: skip


@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("outlined", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_device_shows_what_the_host_shows(case, outlined, rect):
    source = pictures(outlined)
    hyp = replace(Hyperparameters(), **{**STILL, **CASES[case]})
    home = Resident(source, "cpu")
    boxes = 0
    for epoch in range(3):
        host, device = (list(training_batches(source, hyp, SIDE, 4, rect, 5, epoch, show=show)) for show in (None, home.batch))
        for a, b in zip(host, device, strict=True):
            assert a.images.shape == b.images.shape
            assert b.images.dtype == torch.uint8
            assert b.images.is_contiguous(memory_format=torch.channels_last)
            difference = (a.images.float() - b.images.float()).abs()
            assert difference.mean() < (BOUND_COLOURED if hyp.hsv_h else BOUND)
            side = np.array((1, 1, *a.images.shape[2:][::-1], *a.images.shape[2:][::-1]))
            rows, others = (sorted_rows(t.numpy()) for t in (a.targets, b.targets))
            np.testing.assert_allclose(others * side, rows * side, atol=BOX_BOUND)
            boxes += len(rows)
    assert boxes > 20


def test_colours_are_those_of_the_host():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for gains in (np.ones(3), *(1 + rng.uniform(-1, 1, (6, 3)) * (0.1, 0.9, 0.9))):
        host = coloured_on_host(image, gains)[..., ::-1].astype(float)
        device = coloured(torch.from_numpy(image[..., ::-1].astype(np.float32))[None], torch.tensor(gains).float()[None])[0]
        difference = np.abs(host - device.numpy())
        assert difference.mean() < BOUND_COLOURED
        assert (
            np.quantile(difference, 0.999) <= 18
        )  # a step of hue at a full colour is 8.5 levels wide, and a gain may take two


def test_a_batch_is_traced_in_parts_where_it_is_large(monkeypatch):
    source = pictures(True)
    hyp = replace(Hyperparameters(), mixup=0.5, copy_paste=0.5)
    whole = list(training_batches(source, hyp, SIDE, 4, False, 0, 0, show=Resident(source, "cpu").batch))
    monkeypatch.setattr("detector.resident.MOST_AT_ONCE", SIDE * SIDE * 3)
    parts = list(training_batches(source, hyp, SIDE, 4, False, 0, 0, show=Resident(source, "cpu").batch))
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)


def test_pictures_stay_on_the_device_for_the_next_candidate():
    source = pictures(False)
    first = resident(source, "cpu")
    assert resident(source, "cpu") is first
    assert resident(pictures(False), "cpu") is not first
