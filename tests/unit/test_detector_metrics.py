"""Metrics against pycocotools on the same detections, and suppression against brute force."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.evaluate import detections, detections_on_device
from detector.lineages import OPERATING_POINT
from detector.metrics import Found, Truth, average_precision, evaluate
from detector.nms import box_iou, nms, nms_on_device
from evolution.hyperparameters import LINEAGES


def random_boxes(rng, n, side=100):
    xy = rng.uniform(0, side, (n, 2))
    return np.concatenate((xy, xy + rng.uniform(4, side / 2, (n, 2))), 1)


def scenes(rng, images, classes, quality):
    """Labels, and detections that are shifted labels among random boxes."""
    truth, found = [], []
    for _ in range(images):
        boxes, kinds = random_boxes(rng, rng.integers(0, 9)), None
        kinds = rng.integers(classes, size=len(boxes))
        truth.append(Truth(boxes, kinds))
        near = np.repeat(boxes, 3, 0) + rng.normal(0, quality, (3 * len(boxes), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        more = random_boxes(rng, 10)
        every = np.concatenate((near, more))
        label = np.where(rng.random(len(every)) < 0.8, np.concatenate((np.repeat(kinds, 3), rng.integers(classes, size=10))), 0)
        found.append(Found(every, rng.random(len(every)), label))
    return found, truth


TOOLS = ("pycocotools", "faster_coco_eval")


def coco(found, truth, classes, tool="pycocotools"):
    """An evaluation by one of the COCO tools, after accumulate()."""
    if tool == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    def row(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {"id": 0, "image_id": i, "category_id": int(c), "bbox": row(b), "area": (b[2] - b[0]) * (b[3] - b[1]), "iscrowd": 0}
        for i, t in enumerate(truth)
        for b, c in zip(t.boxes, t.classes, strict=True)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number  # pycocotools takes 0 for "no match"
    detections = [
        {"image_id": i, "category_id": int(c), "bbox": row(b), "score": float(s)}
        for i, f in enumerate(found)
        for b, s, c in zip(f.boxes, f.scores, f.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = {
            "images": [{"id": i} for i in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": c, "name": str(c)} for c in range(classes)],
        }
        labels.createIndex()
        run = COCOeval(labels, labels.loadRes(detections), "bbox")
        run.params.maxDets = [1, 10, 300]
        run.evaluate()
        run.accumulate()
    return run


def coco_maps(run):
    precision = run.eval["precision"][:, :, :, 0, 2]
    valid = precision > -1
    return precision[0][valid[0]].mean(), precision[valid].mean()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("quality", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_the_coco_tools(quality, seed, tool):
    found, truth = scenes(np.random.default_rng(seed), 40, 5, quality)
    ours = evaluate(found, truth, 6)  # a class without labels does not count
    map50, map50_95 = coco_maps(coco(found, truth, 6, tool))
    assert ours["map50"] == pytest.approx(map50, abs=1e-4)
    assert ours["map50_95"] == pytest.approx(map50_95, abs=1e-4)
    assert 0 < ours["map50_95"] < ours["map50"] <= 1


@pytest.mark.parametrize("lineage", LINEAGES)
@pytest.mark.parametrize("seed", [2, 3])
def test_operating_points_agree_with_pycocotools(lineage, seed):
    # At IoU 0.5, from the matches that pycocotools made of the same detections.
    found, truth = scenes(np.random.default_rng(seed), 12, 3, 2.0)
    found = [f._replace(scores=f.scores**3) for f in found]  # some lie below 0.001, many below 0.1
    everything = coco(found, truth, 3)
    tables = []
    for c in range(3):
        of_class = [e for e in everything.evalImgs if e and e["category_id"] == c and e["aRng"] == everything.params.areaRng[0]]
        scores = np.concatenate([e["dtScores"] for e in of_class])
        true = np.concatenate([e["dtMatches"][0] > 0 for e in of_class])
        tables.append((scores, true, sum(len(e["gtIds"]) for e in of_class)))

    def at(confidence):
        rows = []
        for scores, true, labels in tables:
            taken = scores >= confidence
            precision, recall = true[taken].sum() / max(taken.sum(), 1), true[taken].sum() / labels
            rows.append((precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)))
        return np.mean(rows, 0)

    point = OPERATING_POINT[lineage]
    ours = evaluate(found, truth, 3, point)
    if point is None:
        expected = max((at(s) for s in np.unique(np.concatenate([t[0] for t in tables]))), key=lambda row: row[2])
    else:
        assert ours["conf"] == point
        expected = at(point)
        assert not np.allclose(expected, at(0.0))
    np.testing.assert_allclose([ours[k] for k in ("precision", "recall", "f1")], expected, atol=1e-4)


def test_perfect_detections():
    truth = [Truth(np.array([[0.0, 0, 10, 10], [20, 20, 40, 30]]), np.array([0, 1]))]
    found = [Found(truth[0].boxes, np.array([0.9, 0.7]), truth[0].classes)]
    assert evaluate(found, truth, 2) == {"precision": 1, "recall": 1, "f1": 1, "conf": 0.7, "map50": 1, "map50_95": 1}


def test_operating_point_is_the_confidence_of_largest_f1():
    truth = [Truth(np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]), np.zeros(3, int))]
    wrong = [[80.0, 80, 90, 90]] * 6
    boxes = np.array([*truth[0].boxes[:2].tolist(), *wrong, truth[0].boxes[2].tolist()])
    got = evaluate([Found(boxes, np.linspace(0.9, 0.1, 9), np.zeros(9, int))], truth, 1)
    assert got["conf"] == pytest.approx(0.8)
    assert got["precision"] == 1
    assert got["recall"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(0.8)


def test_a_second_detection_of_one_object_is_false():
    truth = [Truth(np.array([[0.0, 0, 10, 10]]), np.zeros(1, int))]
    found = [Found(np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]]), np.array([0.5, 0.6]), np.zeros(2, int))]
    got = evaluate(found, truth, 1)
    assert got["map50"] == 1
    assert got["map50_95"] == pytest.approx((9 + 0.5) / 10)  # at .95 the better scored one is false


def test_nothing_found_or_nothing_to_find_is_zero():
    empty = Found(np.empty((0, 4)), np.empty(0), np.empty(0, int))
    for truth in (Truth(np.array([[0.0, 0, 1, 1]]), np.zeros(1, int)), Truth(np.empty((0, 4)), np.empty(0, int))):
        assert set(evaluate([empty], [truth], 2).values()) == {0.0}


def test_average_precision_by_hand():
    # recall 1/2 at precision 1, recall 1 at precision 2/3: 51 of the 101 recalls lie at or below 1/2
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx((51 + 50 * 2 / 3) / 101)


def brute(boxes, scores, classes, iou, most):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if all(classes[i] != classes[j] or box_iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0] <= iou for j in kept):
            kept.append(int(i))
    return kept[:most]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), most=st.integers(1, 40))
def test_suppression_equals_brute_force(seed, n, most):
    rng = np.random.default_rng(seed)
    boxes, scores, classes = random_boxes(rng, n, 40), rng.integers(1, 20, n) / 20, rng.integers(2, size=n)
    assert nms(boxes, scores, classes, 0.5, most).tolist() == brute(boxes, scores, classes, 0.5, most)


def test_suppression_across_blocks_equals_brute_force():
    rng = np.random.default_rng(0)
    boxes, scores, classes = random_boxes(rng, 700, 60), rng.random(700), rng.integers(3, size=700)
    assert nms(boxes, scores, classes, 0.6, 300).tolist() == brute(boxes, scores, classes, 0.6, 300)


def test_suppression_looks_at_no_clock(monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.concatenate((rng.uniform(0, 600, (3_000, 2)), rng.uniform(5, 80, (3_000, 2)), rng.random((3_000, 4))), 1)
    rows = torch.tensor(rows).float()
    before = detections(rows)
    for clock in ("time", "monotonic", "perf_counter", "process_time", "time_ns", "monotonic_ns", "perf_counter_ns"):
        monkeypatch.setattr(f"time.{clock}", lambda: pytest.fail("asked for the time"))
    for found in (detections(rows), detections_on_device(rows[None])[0]):
        assert len(found.scores) == 300
        np.testing.assert_array_equal(found.scores, before.scores)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3), most=st.integers(1, 40))
def test_suppression_on_a_device_equals_brute_force(seed, sizes, most):
    rng = np.random.default_rng(seed)
    n = max(sizes)
    boxes, scores, classes = np.zeros((len(sizes), n, 4)), np.zeros((len(sizes), n)), np.zeros((len(sizes), n), int)
    for i, size in enumerate(sizes):
        boxes[i], classes[i] = random_boxes(rng, n, 40), rng.integers(2, size=n)
        scores[i, :size] = -np.sort(-rng.integers(1, 20, size) / 20)
    keep, real = nms_on_device(torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(classes), 0.5, most)
    for i, size in enumerate(sizes):
        expected = brute(boxes[i, :size].astype(np.float32).astype(float), scores[i, :size], classes[i, :size], 0.5, most)
        assert keep[i][real[i]].tolist() == expected


@pytest.mark.parametrize("classes", [1, 3])
def test_detections_on_a_device_are_those_of_the_host(classes):
    rng = np.random.default_rng(classes)
    rows = np.concatenate((rng.uniform(0, 300, (3, 1500, 2)), rng.uniform(5, 80, (3, 1500, 2)), rng.random((3, 1500, 5))), 2)
    rows = torch.tensor(rows[..., : 5 + classes]).float()
    rows[1, :, 4] *= 0.001  # hardly anything is left
    rows[2] = 0.0  # nothing is
    for device, host in zip(detections_on_device(rows), map(detections, rows), strict=True):
        for a, b in zip(device, host, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(detections(rows[0]).scores) == 300
