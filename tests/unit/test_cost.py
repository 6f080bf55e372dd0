"""What a campaign will cost: the arithmetic, and a training measured on its beginning."""

import pytest

from evolution.campaign import Campaign
from evolution.cost import cost


def campaign(**keys):
    return Campaign.from_document({"name": "toy", "base": {"epochs": 10, "data": "d", "model": "yolov5n"}, **keys})


def test_without_a_time_only_trainings_are_known():
    price = cost(campaign(), devices=8)
    assert (price.trainings, price.epochs) == (300, 3000)
    assert price.seconds is price.device_hours is price.wall_s is price.checkpoint_bytes is None


def test_hours_of_devices_and_of_waiting():
    price = cost(campaign(), seconds=120.0, devices=8, checkpoint_bytes=1000)
    assert price.device_hours == pytest.approx(10)
    assert price.wall_s == 38 * 120  # the last of 38 rounds is not full
    assert price.checkpoint_bytes == 8000
    assert cost(campaign(budget={"candidates": 3}), seconds=60.0, devices=8, checkpoint_bytes=1000).checkpoint_bytes == 3000


def test_a_budget_of_hours_ends_it_first():
    # As it is counted: work is given out until the hours are used, and what trains then is finished.
    price = cost(campaign(budget={"gpu_hours": 1.0}), seconds=600.0, devices=4)
    assert price.trainings == 6 + 3
    assert cost(campaign(budget={"gpu_hours": 100.0}), seconds=600.0).trainings == 300


@pytest.mark.parametrize(("seconds", "devices"), [(0, 1), (float("inf"), 1), (1, 0)])
def test_nonsense_is_refused(seconds, devices):
    with pytest.raises(ValueError, match="both must be above 0"):
        cost(campaign(), seconds=seconds, devices=devices)


def test_a_training_is_measured_on_its_beginning(tmp_path):
    pytest.importorskip("torch", reason="NO TORCH: the extra hypevolve[worker] has it")
    from detector import digits
    from detector.scenario import Scenario
    from detector.trial import _work, trial
    from evolution.hyperparameters import Hyperparameters

    data = digits.write(tmp_path / "digits", counts={"train": 8, "val": 2})
    base = {"data": str(data), "model": "yolov5n", "epochs": 2, "imgsz": 64, "batch": 4}
    scenario = Scenario.from_mapping(base, data_root=tmp_path)
    part = trial(Hyperparameters(), scenario, limit_s=0.0)
    assert part.share == pytest.approx(2 / 4)  # two batches, whatever the limit
    assert part.checkpoint_bytes > 4 * 3 * 1_700_000  # weights, averages and momenta of 1.7 million numbers
    whole = trial(Hyperparameters(), scenario, limit_s=1e9)
    assert (whole.share, whole.checkpoint_bytes) == (1.0, None)
    assert 0.1 < part.seconds / whole.seconds < 10
    growing = Scenario.from_mapping({**base, "epochs": 8, "imgsz": 128, "progressive": True}, data_root=tmp_path)
    assert _work(growing, 1.0) == pytest.approx(1)
    assert _work(growing, 0.5) < 0.5
