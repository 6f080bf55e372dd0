"""Every gene acts, in the direction of its definition. What cannot act is named here: ``INERT``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import anchors, optim
from detector.augment import render
from detector.cache import OUTLINE_POINTS, Picture
from detector.loss import DetectionLoss
from detector.models import Detector, architecture
from detector.samples import draw
from evolution.hyperparameters import Hyperparameters, lineage_space

INERT = {"iou_t"}  # the yolov5 lineage matches by shape; the gene is kept so that hyp files stay complete
DEFAULT = Hyperparameters()
SIDE = 96


# Schedule and optimizer: rates of a training of 90 iterations, 10 an epoch.


def schedule(hyp, **options):
    return optim.Schedule(hyp, 90, 10, **options)


def test_lr0():
    double = replace(DEFAULT, lr0=0.02)
    assert schedule(double).at(45).lr == pytest.approx(2 * schedule(DEFAULT).at(45).lr)


def test_lrf():
    assert schedule(DEFAULT).at(89).lr == pytest.approx(0.01 * DEFAULT.lr0)
    assert schedule(replace(DEFAULT, lrf=0.5)).at(89).lr == pytest.approx(0.5 * DEFAULT.lr0)


def test_momentum():
    hyp = replace(DEFAULT, momentum=0.7)
    for name, key in (("SGD", "momentum"), ("AdamW", "betas"), ("Adam", "betas")):
        optimizer, _ = optim.build(torch.nn.Conv2d(1, 1, 1), name, hyp, 1.0)
        optim.apply(optimizer, schedule(hyp).at(50))
        assert np.ravel([g[key] for g in optimizer.param_groups])[0] == 0.7


def test_weight_decay_reaches_convolutions_alone():
    model = Detector("yolov3-tiny", 2)
    optimizer, _ = optim.build(model, "SGD", replace(DEFAULT, weight_decay=0.001), 0.5)
    biases, norms, weights = optimizer.param_groups
    assert (biases["weight_decay"], norms["weight_decay"], weights["weight_decay"]) == (0, 0, 0.0005)
    assert len(norms["params"]) == 11
    assert len(biases["params"]) == 11 + 2
    assert all(p.ndim == 4 for p in weights["params"])
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_warmup_epochs_and_its_cap():
    assert schedule(replace(DEFAULT, warmup_epochs=1.5)).warmup == 15
    assert schedule(replace(DEFAULT, warmup_epochs=5.0)).warmup == 30  # a third of the budget
    assert schedule(replace(DEFAULT, warmup_epochs=0.0)).at(0).lr == DEFAULT.lr0
    rising = [schedule(DEFAULT).at(i).lr for i in range(30)]
    assert rising[0] == 0
    assert rising == sorted(rising)


def test_warmup_momentum():
    assert schedule(replace(DEFAULT, warmup_momentum=0.5)).at(0).momentum == 0.5
    assert 0.5 < schedule(replace(DEFAULT, warmup_momentum=0.5)).at(15).momentum < DEFAULT.momentum


def test_warmup_bias_lr():
    rates = schedule(replace(DEFAULT, warmup_bias_lr=0.2))
    assert rates.at(0).bias_lr == 0.2
    assert 0.2 > rates.at(15).bias_lr > rates.at(15).lr
    assert rates.at(30).bias_lr == rates.at(30).lr


# Loss: the parts box, obj, cls of fixed maps against fixed labels.


def loss(classes=3, **genes):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = Detector("yolov3-tiny", classes)
    maps = [torch.tensor(rng.normal(-2, 1, (2, 3, SIDE // s, SIDE // s, 5 + classes)), dtype=torch.float32) for s in (16, 32)]
    targets = np.concatenate(
        (rng.integers(2, size=(9, 1)), rng.integers(classes, size=(9, 1)), rng.uniform(0.1, 0.9, (9, 4))), 1
    )
    return DetectionLoss(model, replace(DEFAULT, **genes), SIDE)(maps, torch.tensor(targets, dtype=torch.float32))[1].numpy()


@pytest.mark.parametrize(("gene", "part"), [("box", 0), ("obj", 1), ("cls", 2)])
def test_gains_scale_their_part_alone(gene, part):
    before, after = loss(), loss(**{gene: 2 * getattr(DEFAULT, gene)})
    factor = np.ones(3)
    factor[part] = 2
    np.testing.assert_allclose(after, before * factor, rtol=1e-5)


@pytest.mark.parametrize(("gene", "part"), [("obj_pw", 1), ("cls_pw", 2)])
def test_positive_weights_raise_their_part_alone(gene, part):
    before, after = loss(), loss(**{gene: 2.0})
    assert after[part] > before[part]
    assert np.delete(after, part) == pytest.approx(np.delete(before, part))


def test_fl_gamma_lowers_what_is_nearly_right():
    before, little, much = loss(), loss(fl_gamma=0.5), loss(fl_gamma=2.0)
    assert before[1] > little[1] > much[1]
    assert before[2] > little[2] > much[2]
    assert before[0] == much[0]


def test_anchor_t_admits_more_anchors():
    from detector.assign import assign

    targets = torch.tensor(np.random.default_rng(0).uniform(0.05, 0.9, (30, 6)) * (0, 0, 1, 1, 1, 1), dtype=torch.float32)
    sizes = Detector("yolov3-tiny", 1).anchors[0]
    counts = [len(assign(targets, sizes, 6, 6, t).image) for t in (2.0, 4.0, 8.0)]
    assert counts == sorted(set(counts))


def test_class_genes_are_inert_with_one_class():
    np.testing.assert_array_equal(loss(classes=1), loss(classes=1, cls=4.0, cls_pw=2.0))


def test_anchors():
    wh = np.exp(np.random.default_rng(0).normal(3, 0.8, (300, 2)))
    labels = np.concatenate((np.full((300, 3), 0.5), wh / 640), 1).astype(np.float32)
    pictures = [Picture(np.zeros((640, 640, 3), np.uint8), (640, 640), labels, np.empty((0, 2, 2)))]
    table = architecture("yolov5n")

    def chosen(wanted, gene):
        return anchors.choose(table, pictures, "hash", 640, wanted, gene)

    assert chosen("auto", 3.4).shape == (3, 3, 2)
    np.testing.assert_array_equal(chosen("auto", 3.4), table.anchors)  # they match 98 % of these labels
    assert chosen("auto", 4.6).shape == (3, 5, 2)
    assert chosen("fitted", 3.0).shape == (3, 3, 2)
    assert not np.array_equal(chosen("fitted", 3.0), table.anchors)
    np.testing.assert_array_equal(chosen("stock", 7.0), table.anchors)


# Augmentation: what many samples of a scene with two rectangles look like.


def scene(outlined=False):
    pixels = np.full((SIDE, SIDE, 3), (60, 110, 160), np.uint8)
    pixels[20:40, 12:36] = (200, 90, 30)
    pixels[60:76, 50:84] = (30, 180, 60)
    boxes = np.array([(12, 20, 36, 40), (50, 60, 84, 76)], np.float32) / SIDE
    rows = np.concatenate(([[0], [1]], (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1).astype(np.float32)
    outlines = np.empty((0, OUTLINE_POINTS, 2), np.float32)
    if outlined:
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(2, 4, 2)
        outlines = np.repeat(corners, OUTLINE_POINTS // 4, 1)
    return Picture(pixels, (SIDE, SIDE), rows, outlines)


STILL = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "translate": 0, "scale": 0, "fliplr": 0, "mosaic": 0}


def samples(outlined=False, **genes):
    hyp = replace(DEFAULT, **{**STILL, **genes})
    pictures, shape = [scene(outlined)], (SIDE, SIDE)
    drawn = [draw(0, pictures, hyp, shape, np.random.default_rng((0, i))) for i in range(60)]
    return [render(sample, pictures) for sample in drawn]


def first_boxes(**genes):
    """Centre and size (n, 4) of the first rectangle wherever it is still in the image."""
    boxes = np.array([o.boxes[list(o.classes).index(0)] for _, o in samples(**genes) if 0 in o.classes])
    return np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)


def mean_objects(**genes):
    return np.mean([len(o.classes) for _, o in samples(**genes)])


@pytest.mark.parametrize("gene", ["hsv_h", "hsv_s", "hsv_v"])
def test_colour_genes_spread_colours(gene):
    def spread(value):
        return np.std([image.mean((0, 1)) for image, _ in samples(**{gene: value})], 0).max()

    assert spread(0.0) < 1e-9
    assert 0.01 < spread(0.05) < spread(0.1 if gene == "hsv_h" else 0.8)


def test_degrees_widen_boxes():
    assert first_boxes(degrees=0.0)[:, 3].max() == 20
    assert first_boxes(degrees=10.0)[:, 3].mean() < first_boxes(degrees=40.0)[:, 3].mean()


def test_translate_spreads_places():
    assert first_boxes()[:, 0].std() == 0
    assert first_boxes(translate=0.05)[:, 0].std() < first_boxes(translate=0.15)[:, 0].std()


def test_scale_spreads_sizes():
    assert first_boxes()[:, 2].std() == 0
    assert first_boxes(scale=0.1)[:, 2].std() < first_boxes(scale=0.4)[:, 2].std()


def test_shear_widens_boxes():
    assert first_boxes(shear=3.0)[:, 2].mean() < first_boxes(shear=10.0)[:, 2].mean()


def test_perspective_spreads_sizes():
    assert 0 < first_boxes(perspective=0.0003)[:, 2].std() < first_boxes(perspective=0.001)[:, 2].std()


@pytest.mark.parametrize(("gene", "axis"), [("flipud", 1), ("fliplr", 0)])
def test_flip_genes_are_probabilities(gene, axis):
    def share(value):
        return (first_boxes(**{gene: value})[:, axis] > SIDE / 2).mean()

    assert share(0.0) == 0
    assert 0.05 < share(0.25) < share(0.75) < 0.95
    assert share(1.0) == 1


def test_mosaic_is_a_probability_of_more_objects():
    assert mean_objects(mosaic=0.0) == 2
    assert mean_objects(mosaic=1.0, scale=0.5) != 2
    drawn = [np.array_equal(image, scene().pixels) for image, _ in samples(mosaic=0.5)]
    assert 0.2 < np.mean(drawn) < 0.8


def test_mixup_adds_the_objects_of_a_second_mosaic():
    none, half, full = (mean_objects(mosaic=1.0, mixup=p) for p in (0.0, 0.5, 1.0))
    assert none < half < full
    assert full == pytest.approx(2 * none, rel=0.3)


def test_copy_paste_adds_outlined_objects():
    none, full = (mean_objects(outlined=True, mosaic=1.0, copy_paste=p) for p in (0.0, 1.0))
    assert full > none


def test_copy_paste_is_inert_without_outlines():
    for (a, _), (b, _) in zip(samples(mosaic=1.0), samples(mosaic=1.0, copy_paste=1.0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_iou_t_is_inert():
    assert {"iou_t"} == INERT
    np.testing.assert_array_equal(loss(), loss(iou_t=0.7))


def test_no_gene_is_forgotten():
    # Each name stands in a test above; the training test turns every one of them and compares weights.
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in lineage_space().names if name not in text] == []
