"""One candidate on two devices of a worker computes what it computes on one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detector import digits, trainer
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters, lineage_space
from hypevolve.hashes import hyp_hash
from worker import crew
from worker.errors import Interrupted, NotInstalled, TrainingFailed
from worker.training import run

# One rate all along, so that a step is the same whether it is the first or the second iteration.
HYP = dict(lineage_space("yolov5").start) | {"warmup_epochs": 0.0, "lrf": 1.0}
BASE = {"imgsz": 64, "batch": 8, "optimizer": "SGD"}
WEIGHTS = {"map50": 0.1, "map50_95": 0.9}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 8, "val": 4}))


@pytest.fixture
def members() -> Iterator[None]:
    yield
    crew.dismiss()


@pytest.mark.parametrize(("kind", "status"), [("oom", -signal.SIGKILL), ("crash", 1)])
def test_a_leader_that_waits_for_a_lost_process_dies_as_that_did(kind: str, status: int):
    code = (
        "import sys, threading, types; from worker import crew; crew._STUCK_S = 0.1; detail = 'rank 1 (cuda:1) died'\n"
        "end = {'say': 'failed', 'kind': sys.argv[1], 'detail': detail}\n"
        "crew._guard([types.SimpleNamespace(end=end, where='rank 1 (cuda:1)')], threading.Event())"
    )
    done = subprocess.run([sys.executable, "-c", code, kind], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stderr == "the training waits for a lost process: rank 1 (cuda:1) died\n"


def test_what_a_process_says_no_to_is_the_teams_end():
    def lost(**end: str) -> Exception | None:
        fine = types.SimpleNamespace(end={"say": "done"}, where="rank 1 (cuda:1)")
        return crew._lost([fine, types.SimpleNamespace(end=end or None, where="rank 2 (cuda:2)")])

    assert lost() is None
    assert lost(say="done") is None
    failed = lost(say="failed", kind="oom", detail="CUDA out of memory")
    assert isinstance(failed, TrainingFailed)
    assert (failed.kind, str(failed)) == ("oom", "rank 2 (cuda:2): CUDA out of memory")
    absent = lost(say="not_installed", reason="not_installed", detail="cuda:2 is not there")
    assert isinstance(absent, NotInstalled)
    assert isinstance(lost(say="interrupted", detail="SIGTERM"), Interrupted)


def trained(
    data: str, folder: Path, device: str, epochs: int = 1, cancel: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a training ended, and what it said; with ``cancel`` it is told to stop after its first epoch."""
    folder.mkdir()
    assignment = {
        "token": "t", "hyp": HYP, "hyp_hash": hyp_hash(HYP), "base": {**BASE, "data": data}, "trainer": {"kind": "detector"},
        "seed": 3, "epochs": epochs, "weights": WEIGHTS, "device": device, "data_root": str(folder), "dir": str(folder),
        "name": "digits-3", "checkpoint_s": 0.0, "data_hash": None,
    }  # fmt: skip
    said: list[dict[str, Any]] = []
    cancelled = threading.Event()

    def say(message: dict[str, Any]) -> None:
        said.append(message)
        if cancel and message["say"] == "epoch":
            cancelled.set()

    return run(assignment, say, cancelled), said


def test_two_devices_compute_what_one_does(data: str, tmp_path: Path, members: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    end, said = trained(data, tmp_path / "two", "cpu+cpu")
    assert end["say"] == "done", end
    epochs = [message for message in said if message["say"] == "epoch"]
    assert len(epochs) == 1
    assert sum(message["say"] == "checkpoint" for message in said) >= 1

    # One process, which runs the two half-batches one after the other and steps once.
    scenario = Scenario(data=data, **{**BASE, "batch": 4, "nominal_batch": 8}, epochs=1)
    reports: list[dict[str, float]] = []
    alone = tmp_path / "one"
    trainer.train(
        Hyperparameters.from_mapping(HYP),
        scenario,
        seed=3,
        checkpoints=alone,
        report=lambda _, metrics: reports.append(metrics),
    )
    for key in ("train_box", "train_obj", "train_cls"):
        assert epochs[0]["metrics"][key] == pytest.approx(reports[0][key], abs=1e-5)
    ours, theirs = (load_file(max(folder.glob("step-*"))) for folder in (tmp_path / "two" / "checkpoints", alone))
    fresh = trainer.initial_model(Hyperparameters.from_mapping(HYP), scenario, trainer.load_cached(data, 64), 3)[0]
    for name, start_value in fresh.named_parameters():
        torch.testing.assert_close(ours[f"model.{name}"], theirs[f"model.{name}"], rtol=0, atol=1e-5)
        assert "conv" not in name or start_value.ndim < 4 or not torch.equal(ours[f"model.{name}"], start_value)

    # The next candidate finds the second process warm, and the same training gives the same bits.
    (first,) = crew._MEMBERS
    again, _ = trained(data, tmp_path / "again", "cpu+cpu")
    assert again["weights_hash"] == end["weights_hash"]
    assert [first] == crew._MEMBERS
    # Told to stop, it stops; the second process, which waits for the next step, goes.
    assert trained(data, tmp_path / "stopped", "cpu+cpu", epochs=100_000, cancel=True)[0] == {"say": "cancelled"}
    assert crew._MEMBERS == []
