"""A training that was killed with SIGKILL goes on from its checkpoint to the same bits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import pytest
import torch
from safetensors import safe_open

from detector import digits
from detector.errors import DataError
from detector.scenario import Scenario
from detector.trainer import train
from evolution.hyperparameters import Hyperparameters

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 12  # 3 epochs of 4

# Trains with a checkpoint at each chance, and says each batch aloud.
CHILD = """
import json, sys, cv2, torch
from detector.scenario import Scenario
from detector.trainer import train
from evolution.hyperparameters import Hyperparameters
torch.set_num_threads(1); cv2.setNumThreads(1)
base, lineage, folder = json.loads(sys.argv[1])
train(Hyperparameters.from_mapping({}, lineage), Scenario(**base), seed=1, checkpoints=folder, checkpoint_every_s=0,
      progress=lambda fraction: print(fraction, flush=True))
"""


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 15, "val": 3}))


def equal(a, b):
    a, b = a.model.state_dict(), b.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def killed_after(batches, scenario, lineage, folder):
    command = [sys.executable, "-c", CHILD, json.dumps([asdict(scenario), lineage, str(folder)])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(batches):
            assert child.stdout.readline(), "the training ended before it was killed"
        child.kill()


@pytest.mark.parametrize(
    ("lineage", "changes"),
    [
        ("yolov5", {"multi_scale": True}),
        ("yolov5", {"optimizer": "SGD", "nominal_batch": 12, "val_every": 1}),
        ("yolov3-2019", {"optimizer": "Adam", "rect": True}),
    ],
)
def test_resumed_at_a_random_batch_to_the_same_bits(lineage, changes, data, tmp_path):
    scenario = Scenario(data=data, epochs=3, imgsz=64, batch=4, lineage=lineage, **changes)
    hyp = Hyperparameters.from_mapping({}, lineage)
    whole, parts = [], []
    expected = train(hyp, scenario, seed=1, report=lambda *r: whole.append(r))
    batch = random.randint(3, BATCHES - 2)
    killed_after(batch, scenario, lineage, tmp_path)
    fractions = []
    result = train(hyp, scenario, seed=1, checkpoints=tmp_path, report=lambda *r: parts.append(r), progress=fractions.append)
    # Every batch that ends with a step of the optimizer leaves a checkpoint: no more is lost than since the last of them.
    interval = max((scenario.nominal_batch or scenario.batch) // scenario.batch, 1)
    assert len(fractions) < BATCHES - batch + interval, f"killed after batch {batch}"
    assert equal(result, expected), f"killed after batch {batch}"
    assert result.metrics == expected.metrics
    assert parts == whole[len(whole) - len(parts) :]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_finished_training_is_not_repeated(data, tmp_path):
    scenario = Scenario(data=data, epochs=1, imgsz=64, batch=4)
    first = train(Hyperparameters(), scenario, seed=1, checkpoints=tmp_path)
    again = train(Hyperparameters(), scenario, seed=1, checkpoints=tmp_path, progress=lambda _: pytest.fail("trained again"))
    assert equal(first, again)
    assert again.metrics == first.metrics
    with safe_open(str(next(tmp_path.iterdir())), framework="pt") as file:
        before = json.loads(file.metadata()["hypevolve.training"])["seconds"]
    assert again.seconds >= before > 0  # the time before counts


def test_what_cannot_be_read_gives_way_to_the_one_before(data, tmp_path):
    scenario = Scenario(data=data, epochs=3, imgsz=64, batch=4)
    expected = train(Hyperparameters(), scenario, seed=1, checkpoints=tmp_path)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    (tmp_path / ".step-9.partial").write_bytes(b"half")
    fractions = []
    again = train(Hyperparameters(), scenario, seed=1, checkpoints=tmp_path, progress=fractions.append)
    assert len(fractions) == 4
    assert equal(again, expected)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(DataError, match="belongs to a training with another hyp set, scenario, seed or data"):
        train(Hyperparameters(), scenario, seed=2, checkpoints=tmp_path)
