"""The lineages before yolov5: losses against slow float64 implementations, and every gene of all three turned alone."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import metrics, optim
from detector.assign import assign
from detector.assign_overlap import assign_by_overlap
from detector.augment import render
from detector.boxes import decode, exponential_size, overlap
from detector.cache import OUTLINE_POINTS, Picture
from detector.lineages import OPERATING_POINT, loss_of
from detector.models import Detector
from detector.samples import draw
from evolution.campaign import Campaign
from evolution.hyperparameters import LINEAGES, Hyperparameters, lineage_space
from evolution.preflight import preflight

ROOT = Path(__file__).resolve().parents[2]
SIDE = 96


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_giou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    ends = [(min(p - u / 2, q - v / 2), max(p + u / 2, q + v / 2)) for p, u, q, v in ((ax, aw, bx, bw), (ay, ah, by, bh))]
    common = math.prod(
        max(min(p + u / 2, q + v / 2) - max(p - u / 2, q - v / 2), 0) for p, u, q, v in ((ax, aw, bx, bw), (ay, ah, by, bh))
    )
    hull = math.prod(high - low for low, high in ends)
    union = aw * ah + bw * bh - common
    return common / union - (hull - union) / hull


def slow_matches(targets, anchors, height, width, iou_t):
    found = []
    for image, label_class, xc, yc, w, h in targets:
        gx, gy, gw, gh = xc * width, yc * height, w * width, h * height
        for a, (aw, ah) in enumerate(anchors):
            common = min(gw, aw) * min(gh, ah)
            if common / (gw * gh + aw * ah - common) > iou_t:
                column, row = min(int(gx), width - 1), min(int(gy), height - 1)
                found.append((int(image), a, row, column, int(label_class), gx - column, gy - row, gw, gh))
    return found


def slow_bce(x, t, pw, gamma=0.0):
    p = sigmoid(x)
    loss = -(pw * t * np.log(p) + (1 - t) * np.log(1 - p))
    return loss * (1.000001 - np.exp(-loss)) ** gamma


def slow_loss(maps, targets, anchors, hyp, classes):
    """Parts box, obj, cls of either lineage, and the total."""
    box = obj = cls = count = 0
    late = hyp.lineage == "yolov3-2020"
    for level, raw in enumerate(maps):
        wanted = np.zeros(raw.shape[:4])
        gious, centres, sizes, classified = [], [], [], []
        for image, a, r, c, k, dx, dy, gw, gh in slow_matches(targets, anchors[level], *raw.shape[2:4], hyp.iou_t):
            p, (aw, ah) = raw[image, a, r, c], anchors[level][a]
            x, y = sigmoid(p[:2])
            giou = slow_giou((x, y, aw * math.exp(p[2]), ah * math.exp(p[3])), (dx, dy, gw, gh))
            gious.append(1 - giou)
            centres += [(x - dx) ** 2, (y - dy) ** 2]
            sizes += [(p[2] - math.log(gw / aw)) ** 2, (p[3] - math.log(gh / ah)) ** 2]
            classified.append(slow_bce(p[5:], np.eye(classes)[k], hyp.cls_pw, hyp.fl_gamma))
            wanted[image, a, r, c] = max(wanted[image, a, r, c], giou) if late else 1
        objectness = slow_bce(raw[..., 4], wanted, hyp.obj_pw, hyp.fl_gamma)
        count += len(gious)
        if late:
            obj, box, cls = obj + objectness.sum(), box + sum(gious), cls + np.sum(classified)
        else:
            obj += hyp.obj * objectness.mean()
            if gious:
                box += hyp.giou * np.mean(gious) + hyp.xy * np.mean(centres) + hyp.wh * np.mean(sizes)
                cls += hyp.cls * np.mean(classified)
    images = maps[0].shape[0]
    if late:
        box, cls = 3 * hyp.giou * box / count, 3 * hyp.cls * cls / (count * classes)
        obj = hyp.obj * obj * 3 / (6300 * images) * 2
    parts = np.array([box, obj, cls if classes > 1 else 0.0])
    return parts, parts.sum() * images / 64


def random_targets(rng, n, classes=3):
    wh = np.exp(rng.uniform(np.log(0.03), np.log(0.9), (n, 2)))
    xy = rng.uniform(0.001, 0.999, (n, 2))
    return np.concatenate((rng.integers(2, size=(n, 1)), rng.integers(classes, size=(n, 1)), xy, wh), 1)


@pytest.mark.parametrize("genes", [{}, {"cls_pw": 1.7, "obj_pw": 0.6, "iou_t": 0.4, "giou": 2.0, "cls": 5.0, "obj": 7.0}])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("lineage", ["yolov3-2019", "yolov3-2020"])
def test_loss(lineage, classes, genes):
    rng = np.random.default_rng(2)
    hyp = Hyperparameters.from_mapping(genes, lineage)
    model = Detector("yolov5n", classes, lineage=lineage)
    targets = random_targets(rng, 12, classes)
    maps = [rng.normal(0, 1.5, (2, 3, int(128 / s), int(128 / s), 5 + classes)) for s in model.strides]
    total, parts = loss_of(model, hyp, 128)([torch.tensor(m).float() for m in maps], torch.tensor(targets).float())
    expected, expected_total = slow_loss(maps, targets, model.anchors.double().numpy(), hyp, classes)
    np.testing.assert_allclose(parts, expected, rtol=5e-5, atol=1e-6)
    assert total.item() == pytest.approx(expected_total, rel=5e-5)


@pytest.mark.parametrize("lineage", ["yolov3-2019", "yolov3-2020"])
def test_no_labels_give_a_finite_loss_and_gradient(lineage):
    model = Detector("yolov5n", 3, lineage=lineage)
    maps = [torch.zeros(2, 3, s, s, 8, requires_grad=True) for s in (8, 4, 2)]
    total, parts = loss_of(model, Hyperparameters.from_mapping({}, lineage), 64)(maps, torch.zeros(0, 6))
    total.backward()
    assert parts[0] == parts[2] == 0 < parts[1]
    assert all(torch.isfinite(m.grad).all() for m in maps)


@pytest.mark.parametrize("iou_t", [0.0, 0.2, 0.6])
def test_assignment_by_overlap(iou_t):
    rng = np.random.default_rng(1)
    targets = random_targets(rng, 60)
    targets[0, 2:4] = 1.0  # a centre on the far edge stays on the map
    anchors = np.array([[1.2, 1.6], [3.0, 2.0], [4.5, 6.0]])
    pos = assign_by_overlap(torch.tensor(targets), torch.tensor(anchors), 10, 14, iou_t)
    got = sorted(
        (int(i), int(a), int(r), int(c), int(k), *np.round(b.tolist(), 9))
        for i, a, r, c, k, b in zip(pos.image, pos.anchor, pos.row, pos.column, pos.label_class, pos.box, strict=True)
    )
    expected = sorted((*x[:5], *np.round(x[5:], 9)) for x in slow_matches(targets, anchors, 10, 14, iou_t))
    np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
def test_gradients_of_overlap(kind):
    rng = np.random.default_rng(3)
    a, b = (torch.tensor(np.concatenate((rng.uniform(-1, 1, (8, 2)), rng.uniform(0.5, 3, (8, 2))), 1)) for _ in range(2))
    if kind != "ciou":
        assert torch.autograd.gradcheck(lambda x: overlap(x, b, kind), a.requires_grad_())
        return
    # The paper holds alpha constant while differentiating, so the numeric gradient must hold it too.
    a.requires_grad_()
    overlap(a, b, kind).sum().backward()

    def held(x):
        def v(y):
            return (4 / math.pi**2) * (torch.atan(y[:, 2] / y[:, 3]) - torch.atan(b[:, 2] / b[:, 3])) ** 2

        alpha = (v(a) / (v(a) - overlap(a, b, "iou") + 1)).detach()
        free = (v(x) / (v(x) - overlap(x, b, "iou") + 1)).detach()
        return overlap(x, b, kind) + (free - alpha) * v(x)

    with torch.no_grad():
        for i in range(4):
            step = torch.zeros(4, dtype=a.dtype)
            step[i] = 1e-6
            numeric = (held(a + step) - held(a - step)) / 2e-6
            torch.testing.assert_close(a.grad[:, i], numeric, rtol=1e-4, atol=1e-5)


def test_decode_before_yolov5():
    anchors, strides = torch.tensor([[[2.0, 3.0]]]), torch.tensor([16.0])
    raw = torch.zeros(1, 1, 2, 3, 7)
    raw[0, 0, 1, 2] = torch.tensor([0.3, -0.2, 0.5, -0.4, 1.0, 2.0, -1.0])
    row = decode([raw], anchors, strides, "yolov3-2019")[0, 5]
    expected = [(sigmoid(0.3) + 2) * 16, (sigmoid(-0.2) + 1) * 16, math.exp(0.5) * 32, math.exp(-0.4) * 48]
    np.testing.assert_allclose(row, [*expected, sigmoid(1.0), sigmoid(2.0), sigmoid(-1.0)], rtol=1e-5)
    assert exponential_size(torch.tensor(1e9)) == pytest.approx(1000)


def test_operating_points():
    curves = [(np.array([0.9, 0.5, 0.05, 0.01]), np.array([1, 1, 2, 3]), 4)]
    assert metrics.operating_point(curves, OPERATING_POINT["yolov3-2019"]) == {
        "precision": 0.5,
        "recall": 0.25,
        "f1": pytest.approx(1 / 3),
        "conf": 0.1,
    }
    assert metrics.operating_point(curves, OPERATING_POINT["yolov3-2020"])["recall"] == 0.75
    assert metrics.operating_point(curves, OPERATING_POINT["yolov5"])["conf"] == 0.01


# Every gene of every lineage, turned alone from a low to a high value: what its definition says changes, changes that way.


def losses(hyp, part):
    """One part (0 box, 1 obj, 2 cls) of the loss of fixed maps against fixed labels."""
    rng = np.random.default_rng(0)
    model = Detector("yolov3-tiny", 3, lineage=hyp.lineage)
    maps = [torch.tensor(rng.normal(-2, 1, (2, 3, SIDE // s, SIDE // s, 8))).float() for s in (16, 32)]
    return loss_of(model, hyp, SIDE)(maps, torch.tensor(random_targets(rng, 40)).float())[1][part].item()


def wrongness(hyp, part):
    """The part's share that comes from an output that is badly wrong, of one badly and many nearly right."""
    model = Detector("yolov3-tiny", 2, lineage=hyp.lineage)
    targets = torch.tensor([[0.0, 0, 0.26, 0.26, 0.6, 0.6]])

    def value(wrong):
        maps = [torch.full((1, 3, 6, 6, 7), -3.0), torch.full((1, 3, 3, 3, 7), -3.0)]
        for m in maps:
            m[..., 5] = 3.0
            if wrong and part == 1:
                m[0, 0, 2, 2, 4] = 3.0
            if wrong and part == 2:
                m[0, 0, :, :, 5] = -3.0
        return loss_of(model, hyp, SIDE)(maps, targets)[1][part].item()

    return value(True) / value(False)


def matches(hyp):
    rng = np.random.default_rng(0)
    targets, sizes = torch.tensor(random_targets(rng, 40)), Detector("yolov3-tiny", 1).anchors[0].double()
    if hyp.lineage == "yolov5":
        return len(assign(targets, sizes, 6, 6, hyp.anchor_t).image)
    return len(assign_by_overlap(targets, sizes, 6, 6, hyp.iou_t).image)


def rates(hyp, step):
    return optim.Schedule(hyp, 90, 10).at(step)


def momentum(hyp):
    optimizer, _ = optim.build(torch.nn.Conv2d(1, 1, 1), "SGD", hyp, 1.0)
    optim.apply(optimizer, rates(hyp, 60))
    return optimizer.param_groups[2]["momentum"]


def decay(hyp):
    return optim.build(torch.nn.Conv2d(1, 1, 1), "SGD", hyp, 1.0)[0].param_groups[2]["weight_decay"]


def level_anchors(hyp):
    from detector.anchors import choose
    from detector.models import architecture

    return choose(architecture("yolov5n"), [scene()], "hash", SIDE, "fitted", hyp.anchors).shape[1]


def scene(outlined=False):
    pixels = np.full((SIDE, SIDE, 3), (60, 110, 160), np.uint8)
    pixels[20:40, 12:36] = (200, 90, 30)
    boxes = np.array([(12, 20, 36, 40), (50, 60, 84, 76)], np.float32) / SIDE
    rows = np.concatenate(([[0], [1]], (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1).astype(np.float32)
    outlines = np.empty((0, OUTLINE_POINTS, 2), np.float32)
    if outlined:
        outlines = np.repeat(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(2, 4, 2), OUTLINE_POINTS // 4, 1)
    return Picture(pixels, (SIDE, SIDE), rows, outlines)


MOVING = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "mixup")


def samples(hyp, gene, mosaic=0.0, outlined=False):
    """Sixty augmented samples in which only ``gene`` may act."""
    still = replace(hyp, **{name: 0.0 for name in (*MOVING, "copy_paste") if name != gene})
    still = replace(still, mosaic=hyp.mosaic if gene == "mosaic" else mosaic)
    pictures, shape = [scene(outlined)], (SIDE, SIDE)
    drawn = [draw(0, pictures, still, shape, np.random.default_rng((0, i))) for i in range(60)]
    return [render(sample, pictures) for sample in drawn]


def first(hyp, gene):
    return np.array([o.boxes[list(o.classes).index(0)] for _, o in samples(hyp, gene) if 0 in o.classes])


def colours(hyp, gene):
    return np.mean([np.abs(image.astype(int) - scene().pixels).mean() for image, _ in samples(hyp, gene)])


def widths(hyp, gene):
    return (lambda b: (b[:, 2] - b[:, 0]).mean())(first(hyp, gene))


def width_spread(hyp, gene):
    return (lambda b: (b[:, 2] - b[:, 0]).std())(first(hyp, gene))


def centre_spread(hyp, gene):
    return (lambda b: (b[:, 2] + b[:, 0]).std())(first(hyp, gene))


def mirrored(axis):
    return lambda hyp, gene: (first(hyp, gene)[:, axis] > SIDE / 3).mean()


def objects(mosaic, outlined=False):
    return lambda hyp, gene: np.mean([len(o.classes) for _, o in samples(hyp, gene, mosaic, outlined)])


def mosaics(hyp, gene):
    return np.mean([not np.array_equal(image, scene().pixels) for image, _ in samples(hyp, gene)])


# gene: (what is measured, low value, high value); all measures rise with their gene but those in FALLING.
PROBES = {
    "lr0": (lambda h, _: rates(h, 45).lr, 0.001, 0.01),
    "lrf": (lambda h, _: rates(h, 89).lr, 0.01, 0.5),
    "momentum": (lambda h, _: momentum(h), 0.7, 0.9),
    "weight_decay": (lambda h, _: decay(h), 0.0001, 0.001),
    "warmup_epochs": (lambda h, _: optim.Schedule(h, 90, 10).warmup, 0.5, 2.0),
    "warmup_momentum": (lambda h, _: rates(h, 0).momentum, 0.5, 0.9),
    "warmup_bias_lr": (lambda h, _: rates(h, 0).bias_lr, 0.01, 0.1),
    "box": (lambda h, _: losses(h, 0), 0.05, 0.1),
    "giou": (lambda h, _: losses(h, 0), 1.0, 2.0),
    "xy": (lambda h, _: losses(h, 0), 1.0, 2.0),
    "wh": (lambda h, _: losses(h, 0), 0.1, 0.2),
    "cls": (lambda h, _: losses(h, 2), 0.5, 1.0),
    "cls_pw": (lambda h, _: losses(h, 2), 0.5, 2.0),
    "obj": (lambda h, _: losses(h, 1), 1.0, 2.0),
    "obj_pw": (lambda h, _: losses(h, 1), 0.5, 2.0),
    "fl_gamma": (lambda h, _: wrongness(h, 1), 0.0, 1.5),
    "iou_t": (lambda h, _: matches(h), 0.1, 0.5),
    "anchor_t": (lambda h, _: matches(h), 2.0, 4.0),
    "anchors": (lambda h, _: level_anchors(h), 2.0, 5.0),
    "hsv_h": (colours, 0.01, 0.1),
    "hsv_s": (colours, 0.1, 0.8),
    "hsv_v": (colours, 0.1, 0.8),
    "degrees": (widths, 3.0, 30.0),
    "translate": (centre_spread, 0.05, 0.15),
    "scale": (width_spread, 0.1, 0.4),
    "shear": (widths, 2.0, 10.0),
    "perspective": (width_spread, 0.0003, 0.001),
    "flipud": (mirrored(1), 0.2, 0.8),
    "fliplr": (mirrored(0), 0.2, 0.8),
    "mosaic": (mosaics, 0.2, 0.8),
    "mixup": (objects(1.0), 0.2, 0.9),
    "copy_paste": (objects(1.0, True), 0.0, 1.0),
}
FALLING = {"iou_t"}
INERT = {("yolov5", "iou_t")}  # matches by shape; kept so that hyp files stay complete, with gain 0


@pytest.mark.parametrize(("lineage", "gene"), [(x, g.name) for x in LINEAGES for g in lineage_space(x)])
def test_every_gene_of_every_lineage_acts(lineage, gene):
    measure, low, high = PROBES[gene]
    if gene == "lrf" and lineage != "yolov5":
        low, high = -3.0, -1.0
    before, after = (measure(Hyperparameters.from_mapping({gene: value}, lineage), gene) for value in (low, high))
    if (lineage, gene) in INERT:
        assert before == after
        assert lineage_space(lineage)[gene].gain == 0
    elif gene in FALLING:
        assert before > after
    else:
        assert before < after


def test_gains_are_proportional():
    for lineage, gene, part in (("yolov3-2019", "obj", 1), ("yolov3-2019", "cls", 2), ("yolov3-2020", "giou", 0)):
        once, twice = (losses(Hyperparameters.from_mapping({gene: v}, lineage), part) for v in (3.0, 6.0))
        assert twice == pytest.approx(2 * once, rel=1e-5)


def test_fl_gamma_turns_both_cross_entropies_in_2020():
    plain, focal = (Hyperparameters.from_mapping({"fl_gamma": g}, "yolov3-2020") for g in (0.0, 2.0))
    assert wrongness(plain, 2) < wrongness(focal, 2)
    assert losses(plain, 0) == losses(focal, 0)


def test_the_final_rate_is_a_power_of_ten_before_yolov5():
    hyp = Hyperparameters.from_mapping({"lrf": -2}, "yolov3-2019")
    assert rates(hyp, 89).lr == pytest.approx(hyp.lr0 / 100)
    assert rates(hyp, 0).lr == hyp.lr0  # no warm-up


def test_auto_gives_adamw_one_rate_at_each_lineages_default():
    for lineage in LINEAGES:
        hyp = Hyperparameters.from_mapping({}, lineage)
        _, factor = optim.build(torch.nn.Conv2d(1, 1, 1), "auto", hyp, 1.0)
        assert hyp.lr0 * factor == pytest.approx(optim.AUTO_LR[lineage])


def test_hyp_sets_of_a_lineage():
    early = Hyperparameters.from_mapping({"xy": 2}, "yolov3-2019")
    assert (early.xy, early.mosaic, early.hsv_h, early.fliplr, early.warmup_epochs) == (2, 0, 0, 0.5, 0)
    assert Hyperparameters.from_mapping({}, "yolov3-2020").mosaic == 1
    assert Hyperparameters.from_mapping({}) == Hyperparameters()
    for lineage in LINEAGES:
        space = lineage_space(lineage)
        hyp = Hyperparameters.from_mapping({}, lineage)
        assert hyp.to_dict() == space.start
        assert space.contains(space.start)
        assert all(g.lower > 0 for g in space if g.scale == "log")
    assert lineage_space("yolov3-2019").names[:8] == ("giou", "xy", "wh", "cls", "cls_pw", "obj", "obj_pw", "iou_t")
    assert (len(lineage_space("yolov3-2019")), len(lineage_space("yolov3-2020"))) == (18, 18)
    with pytest.raises(ValueError, match="'box' is no gene of lineage yolov3-2020"):
        Hyperparameters.from_mapping({"box": 1}, "yolov3-2020")
    # The sigma of 2019 per gene, at a common sigma of 0.2.
    sigma = {g.name: round(g.gain * 0.2, 9) for g in lineage_space("yolov3-2019")}
    assert (sigma["giou"], sigma["momentum"], sigma["weight_decay"], sigma["lrf"]) == (0.15, 0.05, 0.2, 0)


# The table for people, docs/GENES.md, is held to the code.


def gene_rows():
    lines = (ROOT / "docs" / "GENES.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0] not in ("gene", "---")]


def test_the_gene_table_has_every_gene_of_every_lineage_once():
    named = [(lineage, row[0]) for row in gene_rows() for lineage in row[1].split(", ")]
    assert sorted(named) == sorted((x, g.name) for x in LINEAGES for g in lineage_space(x))
    inert = {(lineage, row[0]) for row in gene_rows() for lineage in row[1].split(", ") if "**ever**" in row[2]}
    assert inert == INERT


@pytest.mark.parametrize("row", gene_rows(), ids=lambda row: f"{row[0]}-{row[1].split(',')[0]}")
def test_the_gene_table_names_modules_and_tests_that_are_there(row):
    for module in re.findall(r"`([^`]+)`", row[3]):
        assert re.search(rf"\b{row[0]}\b", (ROOT / module).read_text(encoding="utf-8")), f"{module} does not know {row[0]}"
    (test,) = re.findall(r"`(test_\w+)`", row[5])
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_detector_*.py")]
    assert any(f"def {test}(" in source for source in sources), f"no test {test}"


@pytest.mark.parametrize(
    ("space", "base", "facts", "inert"),
    [
        ({}, {}, {"classes": 1}, {"cls", "cls_pw"}),
        ({"copy_paste": {"start": 0.3}}, {}, {"polygons": False}, {"copy_paste"}),
        ({"mixup": {"start": 0.3}, "copy_paste": {"start": 0.3}}, {"rect": True}, {}, {"mosaic", "mixup", "copy_paste"}),
        (
            {"mosaic": {"start": 0}, "mixup": {"start": 0.3}, "copy_paste": {"start": 0.3}},
            {},
            {"polygons": True},
            {"mixup", "copy_paste"},
        ),
        ({}, {"anchors": "stock"}, {}, {"anchors"}),
        ({"warmup_epochs": {"start": 0}}, {}, {}, {"warmup_momentum", "warmup_bias_lr"}),
    ],
)
def test_the_preflight_names_genes_that_cannot_act(space, base, facts, inert):
    document = {"name": "x", "base": {"epochs": 10, **base}, "space": space, "evolve": {"strategy": "yolov5-2021"}}
    campaign = Campaign.from_document(document)
    assert {gene.name for gene in preflight(campaign, facts).genes if gene.status == "inert"} == inert
