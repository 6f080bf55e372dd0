"""The recipe for short trainings: averaging, anchors, the scenario, the built-in data set, and the command line's refusals."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import anchors, digits, optim
from detector.__main__ import main
from detector.data import load
from detector.ema import Average
from detector.models import Detector
from detector.precision import autocast, cpu_has_bfloat16
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

ROOT = Path(__file__).resolve().parents[2]


def test_accumulation_ramps_during_warmup():
    schedule = optim.Schedule(Hyperparameters(), 90, 10, accumulate=4)
    steps = [schedule.at(i).accumulate for i in range(90)]
    assert steps[0] == 1
    assert steps == sorted(steps)
    assert set(steps[30:]) == {4}


def test_auto_is_adamw_at_a_share_of_the_rates():
    hyp, model = Hyperparameters(), torch.nn.Conv2d(1, 1, 1)
    optimizer, factor = optim.build(model, "auto", hyp, 1.0)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (hyp.momentum, 0.99)
    assert optim.build(model, "AdamW", hyp, 1.0)[0].param_groups[0]["betas"] == (hyp.momentum, 0.999)
    schedule = optim.Schedule(hyp, 90, 10, factor=factor)
    plain = optim.Schedule(hyp, 90, 10)
    assert schedule.at(40).lr == pytest.approx(0.4 * plain.at(40).lr)
    assert schedule.at(0).bias_lr == pytest.approx(0.04)
    assert [type(optim.build(model, n, hyp, 1.0)[0]).__name__ for n in ("SGD", "Adam", "AdamW")] == ["SGD", "Adam", "AdamW"]


def test_norms_average_over_a_twentieth_of_the_training():
    assert [optim.norm_momentum(total) for total in (10, 200, 400, 10_000)] == [0.1, 0.1, pytest.approx(0.05), 0.03]
    model = Detector("yolov5n", 1)
    model.average_norms(0.07)
    momenta = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.07}


def test_average_follows_the_last_tenth_of_the_steps():
    model = torch.nn.BatchNorm2d(1)
    average = Average(model)
    weights = []
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(step)
            model.running_mean.fill_(-step)
        average.update()
        weights.append(average.model.weight.item())
    assert 199 - weights[-1] == pytest.approx(200 / 11, rel=0.05)
    assert average.model.running_mean.item() == pytest.approx(-weights[-1])
    assert Average.decay(1) < 0.1
    assert Average.decay(10**7) == 0.9999


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16 units")
def test_bfloat16_gives_nearly_the_same_gradient():
    torch.manual_seed(0)
    model = Detector("yolov5n", 3).to(memory_format=torch.channels_last)
    images = torch.rand(4, 3, 64, 64)
    weight = model.head.heads[0].weight
    gradients = []
    for context in (contextlib.nullcontext(), autocast("cpu")):
        with context:
            maps = model(images)
        gradients.append(torch.autograd.grad(sum(m.float().pow(2).mean() for m in maps), weight)[0])
    exact, rounded = gradients
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)  # it did compute in another format
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99


def test_fitted_anchors_match_what_stock_ones_miss():
    rng = np.random.default_rng(0)
    wh = np.concatenate((rng.normal(6, 0.5, (200, 2)), rng.normal((90, 6), 1, (200, 2)), rng.normal((8, 100), 1, (100, 2))))
    stock = np.array([(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)], float)
    fitted = anchors.fit(wh, 9)
    assert anchors.recall(wh, stock) < 0.9
    assert anchors.recall(wh, fitted) == 1
    assert (np.diff(fitted.prod(1)) >= 0).all()
    np.testing.assert_array_equal(fitted, anchors.fit(wh, 9))


def test_more_anchors_than_sizes():
    assert anchors.fit(np.array([[8.0, 4.0], [20.0, 30.0]]), 6).shape == (6, 2)


def test_scenario_from_a_mapping(tmp_path):
    scenario = Scenario.from_mapping({"data": "set.yaml", "epochs": 3, "imgsz": 320}, data_root=tmp_path)
    assert scenario.data == str(tmp_path / "set.yaml")
    assert (scenario.model, scenario.epochs, scenario.imgsz, scenario.optimizer) == ("yolov5n", 3, 320, "auto")
    assert Scenario.from_mapping({"data": "/a/b"}, data_root=tmp_path).data == "/a/b"


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({}, "base.data is missing"),
        ({"data": ""}, "base.data is ''"),
        ({"data": 3}, "base.data is 3"),
        ({"data": "a", "optimzer": "SGD"}, "base.optimzer is no key of a base scenario; did you mean 'optimizer'"),
        ({"data": "a", "zzz": 1}, "base.zzz is no key of a base scenario; keys are data, model"),
        (
            {"data": "a", "model": "yolov9"},
            "base.model is 'yolov9', which is unknown; known: yolov3, yolov3-spp, yolov3-tiny, yolov5n",
        ),
        ({"data": "a", "optimizer": "sgd"}, "base.optimizer is 'sgd'"),
        ({"data": "a", "anchors": "none"}, "base.anchors is 'none'"),
        ({"data": "a", "lineage": "yolov7"}, "base.lineage is 'yolov7'"),
        ({"data": "a", "epochs": 0}, "base.epochs is 0; write a whole number, at least 1"),
        ({"data": "a", "batch": 2.5}, "base.batch is 2.5"),
        ({"data": "a", "batch": True}, "base.batch is True"),
        ({"data": "a", "val_every": -1}, "base.val_every is -1"),
        ({"data": "a", "nominal_batch": 0}, "base.nominal_batch is 0"),
        ({"data": "a", "imgsz": 300}, "base.imgsz is 300, but must be a multiple of 32; write imgsz: 288"),
        ({"data": "a", "rect": "yes"}, "base.rect is 'yes'"),
        ({"data": "a", "multi_scale": "yes"}, "base.multi_scale is 'yes'; write multi_scale: true or multi_scale: false"),
        ({"data": "a", "progressive": 1}, "base.progressive is 1; write progressive: true or progressive: false"),
        ({"data": "a", "weights": "yolov5n.onnx"}, "base.weights is .*yolov5n.onnx'; write weights: ''"),
    ],
)
def test_a_wrong_scenario_is_one_line_with_key_and_remedy(base, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        Scenario.from_mapping(base, data_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_progressive_training_starts_small_and_ends_large():
    scenario = Scenario("a", epochs=6, imgsz=320, progressive=True)
    assert [scenario.size_at(epoch) for epoch in range(6)] == [192] * 4 + [320] * 2
    assert Scenario("a", epochs=1, imgsz=320, progressive=True).size_at(0) == 320
    assert Scenario("a", epochs=2, imgsz=32, progressive=True).size_at(0) == 32
    assert {Scenario("a", epochs=6, imgsz=320).size_at(epoch) for epoch in range(6)} == {320}


def contents(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def test_digits_are_the_same_bytes_every_time(tmp_path):
    counts = {"train": 6, "val": 3}
    first = digits.write(tmp_path / "a", counts=counts)
    digits.write(tmp_path / "b" / "c", counts=counts)
    digits.write(tmp_path / "d", seed=1, counts=counts)
    assert contents(tmp_path / "a") == contents(tmp_path / "b" / "c") != contents(tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "d"]  # nothing temporary is left
    stamp = first.stat().st_mtime_ns
    assert digits.write(tmp_path / "a", counts=counts).stat().st_mtime_ns == stamp
    dataset = load(first)
    assert dataset.names == ("zero", "one", "four")
    assert [len(dataset.train), len(dataset.val)] == [6, 3]


def test_digits_refuse_a_folder_of_something_else(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(FileExistsError, match="name another folder"):
        digits.write(tmp_path)
    digits.write(tmp_path / "set", counts={"train": 1, "val": 1})
    with pytest.raises(FileExistsError, match="name another folder"):
        digits.write(tmp_path / "set", seed=1, counts={"train": 1, "val": 1})


def test_digit_labels_enclose_ink(tmp_path):
    rng = np.random.default_rng(0)
    solid = [np.full((1, 8, 8), 16, np.uint8)]
    image, rows = digits.scene(solid, rng)
    for _, x, y, w, h in rows:
        x1, y1, x2, y2 = (int(v * digits.SIDE) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        assert image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].std((0, 1)).max() < 12  # one colour under noise of 6


def test_demo_scenario_is_valid(tmp_path):
    scenario = Scenario.from_mapping({**digits.DEMO_BASE, "data": "data.yaml"}, data_root=tmp_path)
    assert scenario.imgsz == digits.SIDE


def run(*arguments, cwd):
    command = [sys.executable, "-m", "detector", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )


def test_command_line_lists_models(tmp_path):
    done = run("models", "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert rows[3] == {"name": "yolov5n", "parameters": 1_872_157, "gflops": 4.47, "rows": 25_200}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--data", "nowhere.yaml"], 5, "nowhere.yaml does not exist"),
        (["train", "--data", "bad.yaml"], 5, "bad.yaml"),
        (["train", "--data", "good", "--hyp", "hyp.yaml"], 5, "hyp.yaml: 'lr' is no gene"),
        (["train", "--data", "good", "--model", "yolov9"], 2, "base.model is 'yolov9'"),
        (["train"], 2, "--data"),
    ],
)
def test_command_line_refuses_in_one_line(arguments, code, words, tmp_path, monkeypatch, capsys):
    digits.write(tmp_path / "good", counts={"train": 1, "val": 1})
    (tmp_path / "bad.yaml").write_text("train: [a\n")
    (tmp_path / "hyp.yaml").write_text("lr: 0.1\n")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as end:  # of argparse
        status = end.code
    errors = capsys.readouterr().err
    assert status == code
    assert words in errors
    if "--data" in arguments:
        assert errors.count("\n") == 1


def test_nothing_happens_at_import():
    state = copy.copy(torch.get_rng_state())
    threads = torch.get_num_threads()
    import detector.trainer  # noqa: F401

    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
