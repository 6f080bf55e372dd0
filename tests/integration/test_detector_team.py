"""Two processes of torchrun (gloo) train one candidate: the gradients of one process, one who writes, a resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from detector import digits, trainer
from detector.execution import Execution
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

ROOT = Path(__file__).resolve().parents[2]
# The command itself, with an ear at the place where gradients are complete.
RECORDING = """
import sys, torch
real, steps = torch.nn.utils.clip_grad_norm_, []
def record(parameters, *options, **more):
    parameters = list(parameters)
    if not steps:
        torch.save([p.grad.clone() for p in parameters], f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
    steps.append(0)
    return real(parameters, *options, **more)
torch.nn.utils.clip_grad_norm_ = record
from detector.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 8, "val": 4}))


def together(*arguments, recording=None):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [*recording] if recording else ["-m", "detector"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_team_of_two(data, tmp_path, monkeypatch):
    script, hyp, runs = tmp_path / "recording.py", tmp_path / "hyp.yaml", tmp_path / "runs"
    script.write_text(RECORDING)
    hyp.write_text("warmup_epochs: 0\n")
    common = ["train", "--data", data, "--imgsz", "64", "--batch", "8", "--epochs", "2", "--hyp", hyp, "--precision", "fp32"]
    common += ["--checkpoints", runs]
    whole = tmp_path / "whole.safetensors"
    done = together(*common, "--save", whole, "--project", tmp_path / "project", recording=[str(script), str(tmp_path)])
    # Rank 0 alone reports and writes.
    assert done.stdout.count("epoch 2/2") == 1
    assert done.stdout.count("map50_95") == 2
    assert len((tmp_path / "project" / "results.csv").read_text().splitlines()) == 3

    # One process, which runs the two half-batches one after the other and steps once.
    class Enough(Exception):
        pass

    grads = []

    def record(parameters, *_, **__):
        grads.extend(p.grad.clone() for p in parameters)
        raise Enough

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record)
    scenario = Scenario(data=data, imgsz=64, batch=4, nominal_batch=8, epochs=2)
    with pytest.raises(Enough):
        trainer.train(Hyperparameters(warmup_epochs=0.0), scenario, seed=0, execution=Execution(precision="fp32"))
    for rank in range(2):
        theirs = torch.load(tmp_path / f"{rank}.pt")
        assert len(theirs) == len(grads)
        assert max(g.abs().max().item() for g in grads) > 0.01
        for a, b in zip(theirs, grads, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)

    # Resumed after the first epoch, to the same bits.
    assert len(list(runs.iterdir())) == 2
    max(runs.iterdir()).unlink()
    again = tmp_path / "again.safetensors"
    done = together(*common, "--save", again)
    assert "epoch 1/2" not in done.stdout
    a, b = load_file(whole), load_file(again)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_what_a_team_cannot_do_is_said(data):
    from detector.team import Team

    scenario = Scenario(data=data, imgsz=64, batch=5)
    with pytest.raises(ValueError, match=r"base\.batch is 5, which 2 processes cannot share"):
        trainer.train(Hyperparameters(), scenario, seed=0, execution=Execution(team=Team(0, 2)))
    with pytest.raises(ValueError, match="sync_norms needs several processes, each on a GPU"):
        Execution(sync_norms=True)
