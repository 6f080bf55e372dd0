"""Whole trainings: they learn, repeat bit by bit, feel every gene, stop when told, and read real data."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector import checkpoint, digits
from detector.boxes import decode
from detector.errors import DataError, TrainingDiverged
from detector.evaluate import detections
from detector.scenario import Scenario
from detector.trainer import describe, train
from evolution.hyperparameters import LINEAGES, Hyperparameters, lineage_space
from hypevolve.hashes import hyp_hash
from worker.training import run

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ROOT.parent / "shared" / "datasets"
METRICS = ["precision", "recall", "f1", "conf", "map50", "map50_95", "val_box", "val_obj", "val_cls"]


@pytest.fixture(autouse=True, scope="module")  # before the module's other fixtures, which train too
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve digit scenes whose labels are outlines, so that copy_paste can act."""
    path = digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 8, "val": 4})
    for file in path.parent.glob("labels/*/*.txt"):
        rows = []
        for line in file.read_text().splitlines():
            c, x, y, w, h = line.split()[0], *map(float, line.split()[1:])
            x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            rows.append(f"{c} {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n")
        file.write_text("".join(rows))
    return str(path)


@pytest.fixture(scope="module")
def scenario(data):
    return Scenario(data=data, epochs=3, imgsz=64, batch=4)


def state(training):
    return {key: value.clone() for key, value in training.model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def reference(scenario):
    return train(Hyperparameters(), scenario, seed=3)


def test_same_seed_same_bits(reference, scenario):
    again = train(Hyperparameters(), scenario, seed=3)
    assert equal(state(reference), state(again))
    assert reference.metrics == again.metrics
    assert not equal(state(reference), state(train(Hyperparameters(), scenario, seed=4)))


def test_metrics_are_complete_and_finite(reference, scenario):
    assert list(reference.metrics) == METRICS
    assert all(math.isfinite(v) for v in reference.metrics.values())
    assert reference.seconds > 0
    facts = describe(scenario)
    assert facts["data_hash"] == reference.data_hash
    assert (facts["classes"], facts["images"], facts["has_polygons"], facts["iterations"]) == (
        ["zero", "one", "four"],
        8,
        True,
        6,
    )


CHANGED = {
    "lr0": 0.02,
    "lrf": 0.5,
    "momentum": 0.8,
    "weight_decay": 0.001,
    "warmup_epochs": 0.5,
    "warmup_momentum": 0.5,
    "warmup_bias_lr": 0.05,
    "box": 0.1,
    "cls": 1.0,
    "cls_pw": 1.5,
    "obj": 2.0,
    "obj_pw": 1.5,
    "iou_t": 0.5,
    "anchor_t": 2.5,
    "anchors": 4.0,
    "fl_gamma": 1.0,
    "hsv_h": 0.1,
    "hsv_s": 0.2,
    "hsv_v": 0.1,
    "degrees": 20.0,
    "translate": 0.3,
    "scale": 0.2,
    "shear": 5.0,
    "perspective": 0.001,
    "flipud": 0.5,
    "fliplr": 0.1,
    "mosaic": 0.3,
    "mixup": 1.0,
    "copy_paste": 1.0,
}


@pytest.mark.parametrize("gene", lineage_space().names)
def test_every_gene_changes_the_training(gene, reference, scenario):
    turned = train(replace(Hyperparameters(), **{gene: CHANGED[gene]}), scenario, seed=3)
    # iou_t is the one gene that this lineage documents as unused.
    assert equal(state(turned), state(reference)) == (gene == "iou_t")


@pytest.mark.parametrize("lineage", LINEAGES[1:])
def test_lineages_before_yolov5_train_and_learn(lineage, data):
    hyp = Hyperparameters.from_mapping({}, lineage)
    curve = []
    scenario = Scenario(data=data, epochs=50, imgsz=64, batch=4, lineage=lineage)
    result = train(hyp, scenario, seed=0, report=lambda _, m: curve.append(m["train_box"] + m["train_obj"] + m["train_cls"]))
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])  # one epoch is eight mosaics: too noisy alone
    assert list(result.metrics) == METRICS
    assert result.model.lineage == lineage
    with pytest.raises(ValueError, match=f"the hyp set is of lineage yolov5, base.lineage is {lineage}"):
        train(Hyperparameters(), scenario, seed=0)


def test_the_worker_trains_the_scenarios_lineage(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a training process moves to its data root

    def end(hyp):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        assignment = {
            "token": "t", "hyp": hyp, "hyp_hash": hyp_hash(hyp), "trainer": {"kind": "detector"}, "seed": 3, "epochs": 1,
            "base": {"data": data, "imgsz": 64, "batch": 4, "lineage": "yolov3-2019"}, "weights": {"map50": 0.5, "f1": 0.5},
            "device": "cpu", "data_root": str(tmp_path), "dir": str(scratch), "name": "digits-3",
            "checkpoint_s": 300.0, "data_hash": None,
        }  # fmt: skip
        try:
            return run(assignment, lambda _: None, threading.Event())
        finally:
            shutil.rmtree(scratch)

    done = end(dict(lineage_space("yolov3-2019").start))
    assert (done["say"], done["metrics"]["conf"]) == ("done", 0.1)
    failed = end({"box": 0.05})
    assert (failed["say"], failed["kind"]) == ("failed", "data")
    assert "'box' is no gene of lineage yolov3-2019" in failed["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "SGD"},
        {"optimizer": "Adam"},
        {"nominal_batch": 8},
        {"rect": True},
        {"progressive": True},
        {"multi_scale": True},
        {"anchors": "fitted"},
        {"model": "yolov3-tiny"},
    ],
)
def test_every_scenario_key_changes_the_training(change, reference, scenario):
    turned = train(Hyperparameters(), replace(scenario, **change), seed=3)
    assert not equal(state(turned), state(reference))


def test_other_optimizers_keep_the_models_own_norms(reference, scenario):
    plain = train(Hyperparameters(), replace(scenario, epochs=1, optimizer="SGD"), seed=3)
    momenta = [
        {m.momentum for m in trained.model.modules() if isinstance(m, torch.nn.BatchNorm2d)} for trained in (reference, plain)
    ]
    assert momenta == [{0.1}, {0.03}]


def test_reports_follow_the_epochs(scenario):
    reports, fractions = [], []
    train(
        Hyperparameters(),
        replace(scenario, val_every=2),
        seed=0,
        report=lambda epoch, metrics: reports.append((epoch, metrics)),
        progress=fractions.append,
    )
    assert [epoch for epoch, _ in reports] == [0, 1, 2]
    assert ["map50" in metrics for _, metrics in reports] == [False, True, True]
    assert {"train_box", "train_obj", "train_cls", "lr"} <= set(reports[0][1])
    assert set(METRICS) <= set(reports[2][1])
    assert fractions == pytest.approx([i / 6 for i in range(1, 7)])


def test_progress_can_stop_a_training(scenario):
    class Stop(Exception):
        pass

    def progress(fraction):
        if fraction > 0.4:
            raise Stop

    with pytest.raises(Stop):
        train(Hyperparameters(), scenario, seed=0, progress=progress)


def test_divergence_is_an_outcome(scenario):
    with pytest.raises(TrainingDiverged, match="epoch"):
        train(replace(Hyperparameters(), lr0=1e30, warmup_epochs=0.0), replace(scenario, optimizer="SGD"), seed=0)


def test_the_callers_random_state_is_left_alone(scenario):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(Hyperparameters(), replace(scenario, epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_short_training_learns(data):
    losses = []
    hyp = replace(Hyperparameters(), mosaic=0.0, fliplr=0.0, translate=0.0, scale=0.0, hsv_s=0.0, hsv_v=0.0)
    scenario = Scenario(data=data, epochs=25, imgsz=96, batch=4, anchors="fitted")
    result = train(hyp, scenario, seed=0, report=lambda _, m: losses.append(m["train_box"] + m["train_obj"] + m["train_cls"]))
    assert losses[-1] < 0.75 * losses[0]
    found = detections(decode(result.model(torch.zeros(1, 3, 96, 96)), result.model.anchors, result.model.strides)[0])
    assert len(found.scores) <= 300


def test_weights_start_a_training(reference, scenario, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(reference.model, ["zero", "one", "four"], path)
    first = []

    def losses(weights):
        first.clear()
        train(Hyperparameters(), replace(scenario, weights=weights, epochs=1), seed=0, report=lambda _, m: first.append(m))
        return first[0]["train_obj"]

    assert losses(str(path)) != losses("")
    with pytest.raises(DataError, match=r"is a yolov5n, base\.model is yolov3-tiny"):
        train(Hyperparameters(), replace(scenario, weights=str(path), model="yolov3-tiny"), seed=0)
    path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match="no checkpoint of this detector"):
        train(Hyperparameters(), replace(scenario, weights=str(path)), seed=0)


def test_command_line_trains(data, tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 2e-2\nmosaic: 0\n")
    out, saved = tmp_path / "out.json", tmp_path / "model.safetensors"
    command = [sys.executable, "-m", "detector", "train", "--data", data, "--epochs", "2", "--imgsz", "64", "--batch", "4"]
    command += ["--hyp", str(tmp_path / "hyp.yaml"), "--seed", "1", "--json", str(out), "--save", str(saved)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    document = json.loads(out.read_text())
    assert document["hyp"]["lr0"] == 0.02
    assert list(document["metrics"]) == METRICS
    assert [row["epoch"] for row in document["curve"]] == [0, 1]
    assert "epoch 2/2" in done.stdout
    assert saved.stat().st_size > 6_000_000


@pytest.mark.skipif(not (DATASETS / "bccd-voc").is_dir(), reason="../shared/datasets/bccd-voc is absent")
def test_bccd_is_read():
    facts = describe(Scenario(data=str(DATASETS / "bccd-voc")))
    assert facts["classes"] == ["Platelets", "RBC", "WBC"]
    assert (facts["images"], facts["val_images"], facts["labels"]) == (205, 87, 2804)
    where = DATASETS / "bccd-voc" / "Annotations" / "BloodImage_00343.xml"
    assert facts["remarks"] == [f"boxes without area left out: 2, the first: {where} object 4"]


@pytest.mark.skipif(not (DATASETS / "coco128").is_dir(), reason="../shared/datasets/coco128 is absent")
def test_coco128_is_read():
    facts = describe(Scenario(data=str(DATASETS / "coco128" / "coco128.yaml")))
    assert len(facts["classes"]) == 80
    assert (facts["images"], facts["val_images"]) == (128, 128)
    assert np.isfinite(facts["labels"])
