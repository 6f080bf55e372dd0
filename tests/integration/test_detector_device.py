"""Whole trainings by a GPU's path, on CPU tensors: the data set resident, samples, losses and suppression on the device."""

from __future__ import annotations

from dataclasses import replace

import cv2
import pytest
import torch

from detector import digits
from detector.execution import Execution
from detector.scenario import Scenario
from detector.trainer import train
from evolution.hyperparameters import LINEAGES, Hyperparameters

DEVICE = Execution(augment="device")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight scenes, trained on and evaluated on."""
    path = digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 8, "val": 1})
    path.write_text(path.read_text().replace("images/val", "images/train"))
    return str(path)


def test_the_device_path_learns_as_the_host_path_does(data):
    still = {"mosaic": 0.0, "fliplr": 0.0, "translate": 0.05, "scale": 0.1, "hsv_s": 0.2, "hsv_v": 0.2, "lr0": 0.02}
    hyp = replace(Hyperparameters(), **still)
    scenario = Scenario(data=data, epochs=50, imgsz=96, batch=4, anchors="fitted")
    metrics, losses = {}, {}
    for name, execution in (("host", Execution()), ("device", DEVICE)):
        curve = []
        end = train(hyp, scenario, seed=0, execution=execution, report=lambda _, m, c=curve: c.append(m))
        metrics[name], losses[name] = end.metrics, [m["train_box"] + m["train_obj"] + m["train_cls"] for m in curve]
    # The first epochs see the same samples; then roundings grow, as between two seeds.
    assert losses["device"][0] == pytest.approx(losses["host"][0], rel=0.01)
    assert losses["device"][-1] == pytest.approx(losses["host"][-1], rel=0.15)
    assert losses["device"][-1] < 0.75 * losses["device"][0]
    assert min(m["map50"] for m in metrics.values()) > 0.02  # untrained: below 0.001


@pytest.mark.parametrize("lineage", LINEAGES)
def test_every_lineage_trains_on_the_device_path(lineage, data):
    hyp = Hyperparameters.from_mapping({}, lineage)
    scenario = Scenario(data=data, epochs=1, imgsz=64, batch=4, lineage=lineage)
    host, device = (
        train(hyp, scenario, seed=1, execution=Execution(augment=a, precision="fp32")).metrics for a in ("host", "device")
    )
    for key in ("val_box", "val_obj", "val_cls"):
        assert device[key] == pytest.approx(host[key], rel=0.02)


def test_the_device_path_resumes_to_the_same_bits(data, tmp_path):
    class Stop(Exception):
        pass

    def stop(fraction):
        if fraction > 0.4:
            raise Stop

    scenario = Scenario(data=data, epochs=2, imgsz=64, batch=4, rect=True, progressive=True)
    whole = train(Hyperparameters(), scenario, seed=2, execution=DEVICE)
    with pytest.raises(Stop):
        train(Hyperparameters(), scenario, seed=2, execution=DEVICE, checkpoints=tmp_path, progress=stop)
    parts = train(Hyperparameters(), scenario, seed=2, execution=DEVICE, checkpoints=tmp_path)
    a, b = whole.model.state_dict(), parts.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert whole.metrics == parts.metrics


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_its_scale_is_kept(precision, data, tmp_path):
    scenario = Scenario(data=data, epochs=2, imgsz=32, batch=4)  # a CPU computes fp16 slowly
    full = train(Hyperparameters(), scenario, seed=3, execution=Execution(augment="device", precision="fp32")).metrics
    execution = Execution(augment="device", precision=precision)
    half = train(Hyperparameters(), scenario, seed=3, execution=execution, checkpoints=tmp_path)
    for key in ("val_box", "val_obj", "val_cls"):
        assert half.metrics[key] == pytest.approx(full[key], rel=0.1)
    assert half.metrics != full
    again = train(Hyperparameters(), scenario, seed=3, execution=execution, checkpoints=tmp_path)
    assert again.metrics == half.metrics


def test_an_unknown_execution_is_refused():
    with pytest.raises(ValueError, match="precision is 'fp8', which is unknown; known: auto, fp32, bf16, fp16"):
        Execution(precision="fp8")
    with pytest.raises(ValueError, match="augment is 'gpu'"):
        Execution(augment="gpu")
