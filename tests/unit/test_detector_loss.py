"""Overlap, assignment and loss against slow float64 implementations written from their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detector import loss as yolov5_loss
from detector import loss_yolov3
from detector.assign import assign
from detector.boxes import decode, overlap
from detector.lineages import loss_of
from detector.loss import DetectionLoss
from detector.models import Detector
from evolution.hyperparameters import LINEAGES, Hyperparameters


def slow_overlap(a, b, kind):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    a1, a2, a3, a4 = ax - aw / 2, ay - ah / 2, ax + aw / 2, ay + ah / 2
    b1, b2, b3, b4 = bx - bw / 2, by - bh / 2, bx + bw / 2, by + bh / 2
    common = max(min(a3, b3) - max(a1, b1), 0) * max(min(a4, b4) - max(a2, b2), 0)
    union = aw * ah + bw * bh - common
    iou = common / union
    cw, ch = max(a3, b3) - min(a1, b1), max(a4, b4) - min(a2, b2)
    if kind == "iou":
        return iou
    if kind == "giou":
        return iou - (cw * ch - union) / (cw * ch)
    v = 4 / math.pi**2 * (math.atan(aw / ah) - math.atan(bw / bh)) ** 2
    alpha = v / (v - iou + 1) if v else 0.0
    return iou - ((ax - bx) ** 2 + (ay - by) ** 2) / (cw**2 + ch**2) - alpha * v


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
def test_overlap(kind):
    rng = np.random.default_rng(0)
    a, b = (np.concatenate((rng.uniform(-3, 3, (500, 2)), rng.uniform(0.2, 6, (500, 2))), 1) for _ in range(2))
    a[0], b[0] = (0, 0, 4, 4), (0.5, 0, 1, 1)  # one inside the other
    b[1] = a[1]
    fast = overlap(torch.tensor(a), torch.tensor(b), kind).numpy()
    np.testing.assert_allclose(fast, [slow_overlap(x, y, kind) for x, y in zip(a, b, strict=True)], atol=1e-5)


def test_ciou_pulls_a_box_towards_a_target_it_does_not_touch():
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    overlap(box, torch.tensor([[5.0, 0.0, 1.0, 1.0]])).sum().backward()
    assert box.grad[0, 0] > 0


def test_decode_inverts_to_the_box_it_encodes():
    anchors, strides = torch.tensor([[[2.0, 3.0]], [[1.0, 4.0]]]), torch.tensor([8.0, 16.0])
    maps = [torch.zeros(1, 1, 4, 6, 7), torch.zeros(1, 1, 2, 3, 7)]
    maps[1][0, 0, 1, 2] = torch.tensor([0.3, -0.2, 0.5, -0.4, 1.0, 2.0, -1.0])
    rows = decode(maps, anchors, strides)
    assert rows.shape == (1, 30, 7)

    def s(x):
        return 1 / (1 + math.exp(-x))

    expected = [(2 * s(0.3) - 0.5 + 2) * 16, (2 * s(-0.2) - 0.5 + 1) * 16, (2 * s(0.5)) ** 2 * 16, (2 * s(-0.4)) ** 2 * 64]
    np.testing.assert_allclose(rows[0, 24 + 5], [*expected, s(1), s(2), s(-1)], rtol=1e-5)
    np.testing.assert_allclose(rows[0, 0, :4], [4, 4, 16, 24])  # logits of zero: the anchor at the cell's centre


def slow_assign(targets, anchors, height, width, anchor_t):
    found = []
    for n, (image, label_class, xc, yc, w, h) in enumerate(targets):
        gx, gy, gw, gh = xc * width, yc * height, w * width, h * height
        for a, (aw, ah) in enumerate(anchors):
            if max(gw / aw, aw / gw, gh / ah, ah / gh) >= anchor_t:
                continue
            column, row = int(gx), int(gy)
            cells = [(column, row)]
            if gx % 1 < 0.5 and gx > 1:
                cells.append((column - 1, row))
            if gy % 1 < 0.5 and gy > 1:
                cells.append((column, row - 1))
            if (width - gx) % 1 < 0.5 and width - gx > 1:
                cells.append((column + 1, row))
            if (height - gy) % 1 < 0.5 and height - gy > 1:
                cells.append((column, row + 1))
            for c, r in cells:
                c, r = min(max(c, 0), width - 1), min(max(r, 0), height - 1)
                found.append((n, int(image), a, r, c, int(label_class), gx - c, gy - r, gw, gh))
    return found


def random_targets(rng, n, images=2, classes=3):
    wh = np.exp(rng.uniform(np.log(0.03), np.log(0.9), (n, 2)))
    xy = rng.uniform(0.001, 0.999, (n, 2))
    return np.concatenate((rng.integers(images, size=(n, 1)), rng.integers(classes, size=(n, 1)), xy, wh), 1)


@pytest.mark.parametrize("anchor_t", [2.0, 4.0, 8.0])
def test_assignment(anchor_t):
    rng = np.random.default_rng(1)
    targets = random_targets(rng, 60)
    targets[0, 2:4] = 1.0  # a centre on the far edge stays on the map
    anchors = np.array([[1.2, 1.6], [3.0, 2.0], [4.5, 6.0]])
    pos = assign(torch.tensor(targets), torch.tensor(anchors), 10, 14, anchor_t)
    got = sorted(
        (int(i), int(a), int(r), int(c), int(k), *np.round(b.tolist(), 9))
        for i, a, r, c, k, b in zip(pos.image, pos.anchor, pos.row, pos.column, pos.label_class, pos.box, strict=True)
    )
    expected = sorted((*x[1:6], *np.round(x[6:], 9)) for x in slow_assign(targets, anchors, 10, 14, anchor_t))
    np.testing.assert_allclose(got, expected)
    np.testing.assert_allclose(pos.anchor_size, anchors[pos.anchor])
    assert (pos.box[1:, :2] > -0.5 - 1e-9).all()
    assert (pos.box[:, :2] < 1.5 + 1e-9).all()


def test_no_labels_give_no_positives_and_a_finite_loss():
    model = Detector("yolov5n", 3)
    assert len(assign(torch.zeros(0, 6), model.anchors[0], 8, 8, 4.0).image) == 0
    loss = DetectionLoss(model, Hyperparameters(), 64)
    total, parts = loss([torch.zeros(2, 3, s, s, 8) for s in (8, 4, 2)], torch.zeros(0, 6))
    assert parts[0] == parts[2] == 0
    assert total == pytest.approx(2 * parts[1].item())


def slow_bce(x, t, pw, gamma):
    p = 1 / (1 + np.exp(-x))
    value = -(pw * t * np.log(p) + (1 - t) * np.log(1 - p))
    if gamma > 0:
        p_t = t * p + (1 - t) * (1 - p)
        value = value * (t * 0.25 + (1 - t) * 0.75) * (1 - p_t) ** gamma
    return value.mean()


def slow_loss(maps, targets, anchors, hyp, classes, imgsz):
    def s(x):
        return 1 / (1 + np.exp(-x))

    box = obj = cls = 0.0
    levels = len(maps)
    balance = [4, 1, 0.4] if levels == 3 else [4, 1]
    for level, raw in enumerate(maps):
        _, _, height, width, _ = raw.shape
        objectness = np.zeros(raw.shape[:4])
        boxes, logits, wanted = [], [], []
        for _, image, a, r, c, k, dx, dy, gw, gh in slow_assign(targets, anchors[level], height, width, hyp.anchor_t):
            p = raw[image, a, r, c]
            aw, ah = anchors[level][a]
            predicted = (2 * s(p[0]) - 0.5, 2 * s(p[1]) - 0.5, (2 * s(p[2])) ** 2 * aw, (2 * s(p[3])) ** 2 * ah)
            ciou = slow_overlap(predicted, (dx, dy, gw, gh), "ciou")
            boxes.append(1 - ciou)
            objectness[image, a, r, c] = max(objectness[image, a, r, c], ciou)
            logits.append(p[5:])
            wanted.append(np.eye(classes)[k])
        if boxes:
            box += np.mean(boxes)
            if classes > 1:
                cls += slow_bce(np.array(logits), np.array(wanted), hyp.cls_pw, hyp.fl_gamma)
        obj += balance[level] * slow_bce(raw[..., 4], objectness, hyp.obj_pw, hyp.fl_gamma)
    return np.array(
        [
            box * hyp.box * 3 / levels,
            obj * hyp.obj * (imgsz / 640) ** 2 * 3 / levels,
            cls * hyp.cls * classes / 80 * 3 / levels,
        ]
    )


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("hyp", [{}, {"fl_gamma": 1.5, "cls_pw": 1.7, "obj_pw": 0.6, "anchor_t": 3.0, "box": 0.1, "cls": 1.0}])
def test_loss(name, classes, hyp):
    rng = np.random.default_rng(2)
    hyp = Hyperparameters(**hyp)
    model = Detector(name, classes)
    targets = random_targets(rng, 12, classes=classes)
    imgsz = 128
    maps = [rng.normal(0, 1.5, (2, 3, int(imgsz / s), int(imgsz / s), 5 + classes)) for s in model.strides]
    total, parts = DetectionLoss(model, hyp, imgsz)(
        [torch.tensor(m, dtype=torch.float32) for m in maps], torch.tensor(targets, dtype=torch.float32)
    )
    expected = slow_loss(maps, targets, model.anchors.double().numpy(), hyp, classes, imgsz)
    np.testing.assert_allclose(parts, expected, rtol=2e-5, atol=1e-6)
    assert total.item() == pytest.approx(2 * expected.sum(), rel=2e-5)


@pytest.mark.parametrize("labels", [0, 1, 12])
@pytest.mark.parametrize("lineage", LINEAGES)
def test_a_loss_of_fixed_shape_is_the_same_loss(lineage, labels):
    rng = np.random.default_rng(5)
    model = Detector("yolov5n", 3, lineage=lineage)
    hyp = Hyperparameters.from_mapping(
        {"cls_pw": 1.7, "obj_pw": 0.6, **({"iou_t": 0.0} if lineage != "yolov5" else {})}, lineage
    )
    targets = torch.tensor(random_targets(rng, labels), dtype=torch.float32)
    padded = torch.cat((targets[: labels // 2], torch.zeros(5, 6), targets[labels // 2 :]))
    raws = [torch.tensor(rng.normal(0, 1.5, (2, 3, int(128 / s), int(128 / s), 8)), dtype=torch.float32) for s in model.strides]
    ends = []
    for fixed, rows in ((False, targets), (True, padded)):
        maps = [raw.clone().requires_grad_() for raw in raws]
        total, parts = loss_of(model, hyp, 128, fixed)(maps, rows)
        total.backward()
        ends.append((total.detach(), parts, *(m.grad for m in maps)))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_loss_of_fixed_shape_asks_the_device_nothing():
    # On the meta device no value exists, so whatever needs one fails.
    with torch.device("meta"):
        maps = [torch.zeros(2, 3, n, n, 8, requires_grad=True) for n in (16, 8, 4)]
        targets = torch.zeros(7, 6)
        for lineage in LINEAGES:
            model = Detector("yolov5n", 3, np.ones((3, 3, 2)), lineage)
            model.to("meta")
            hyp = Hyperparameters.from_mapping({"cls_pw": 1.7, "obj_pw": 0.6}, lineage)
            total, parts = loss_of(model, hyp, 128, fixed=True)(maps, targets)
            total.backward()
            assert parts.shape == (3,)
            with pytest.raises((NotImplementedError, RuntimeError)):
                loss_of(model, hyp, 128)(maps, targets)


@pytest.mark.parametrize(
    ("lineage", "genes", "channels"),
    [
        # The target of objectness is the overlap reached, held constant: a numeric gradient must not move the boxes.
        ("yolov5", {"fl_gamma": 1.5, "cls_pw": 1.7, "obj_pw": 0.6}, slice(4, None)),
        ("yolov3-2020", {"fl_gamma": 1.5, "cls_pw": 1.7, "obj_pw": 0.6}, slice(4, None)),
        ("yolov3-2020", {"obj": 0.0}, slice(0, None)),
        ("yolov3-2019", {"xy": 3.0, "wh": 2.0, "cls_pw": 1.7}, slice(0, None)),
    ],
)
def test_gradients_of_a_loss(lineage, genes, channels):
    rng = np.random.default_rng(6)
    model = Detector("yolov3-tiny", 2, lineage=lineage).double()
    loss = loss_of(model, Hyperparameters.from_mapping(genes, lineage), 32)
    targets = torch.tensor(random_targets(rng, 4, images=1, classes=2))
    maps = [torch.tensor(rng.normal(0, 1, (1, 3, n, n, 7))) for n in (2, 1)]

    def total(*turned):
        rows = [torch.cat((m[..., : channels.start], t), -1) for m, t in zip(maps, turned, strict=True)]
        return loss(rows, targets)[0]

    assert torch.autograd.gradcheck(total, [m[..., channels].clone().requires_grad_() for m in maps])


@pytest.mark.parametrize("gamma", [0.05, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("entropies", [yolov5_loss.cross_entropies, loss_yolov3.cross_entropies])
def test_an_element_that_is_surely_right_has_a_finite_gradient(entropies, gamma):
    """A training that has begun to learn is sure of most cells; with a small gamma its next step must not be NaN."""
    logits = torch.tensor([17.0, 40.0, 300.0, -17.0, -40.0, -300.0, 0.3, 40.0], requires_grad=True)
    target = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.999])
    entropies(logits, target, 1.0, gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[:6].abs().max() < 1e-5
    assert logits.grad[6] < -1e-3
