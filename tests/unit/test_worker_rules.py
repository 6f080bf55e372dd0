"""Devices, the gate that limits a worker's life, and what a worker must not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker import devices
from worker.devices import Device, absent, environment_for, parse_devices
from worker.gate import Gate


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", [("cpu0", "cpu")]),
        ("cpu,cpu", [("cpu0", "cpu"), ("cpu1", "cpu")]),
        ("cpu*3", [("cpu0", "cpu"), ("cpu1", "cpu"), ("cpu2", "cpu")]),
        ("cuda:0, cuda:1", [("cuda0", "cuda:0"), ("cuda1", "cuda:1")]),
        ("cuda:0,cuda:0", [("cuda0", "cuda:0"), ("cuda0-2", "cuda:0")]),
        ("cuda:0+cuda:1", [("cuda0+cuda1", "cuda:0+cuda:1")]),
        ("cpu+cpu*2", [("cpu+cpu", "cpu+cpu"), ("cpu+cpu-2", "cpu+cpu")]),
    ],
)
def test_devices(text: str, devices: list[tuple[str, str]]):
    assert parse_devices(text) == devices


@pytest.mark.parametrize("text", ["", "gpu", "cpu,,cpu", "cpu*0", "0", "cpu+cuda:0", "cuda:0+cuda:0", "mps+mps"])
def test_what_is_no_device_is_refused_with_a_remedy(text: str):
    with pytest.raises(ValueError, match="write"):
        parse_devices(text)


def test_a_process_on_a_cpu_has_one_thread():
    assert environment_for(Device("cpu0", "cpu"), {"OMP_NUM_THREADS": "8", "HOME": "h"})["OMP_NUM_THREADS"] == "1"
    assert environment_for(Device("cpu+cpu", "cpu+cpu"), {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "1"
    assert environment_for(Device("cuda0", "cuda:0"), {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(
    ("names", "torch", "driver", "fault"),
    [
        ("cpu", ("2.13.0+cpu", 0, False), False, None),
        ("cuda:0", ("2.13.0+cpu", 0, False), False, "cuda:0 is not there; torch 2.13.0+cpu sees no CUDA device"),
        ("cuda:0", ("2.13.0+cpu", 0, False), True, None),  # a command's own torch may see it
        ("cuda:0", ("2.13.0+cu130", 0, True), True, "cuda:0 is not there; torch 2.13.0+cu130 sees no CUDA device"),
        ("cuda:0,cuda:1", ("2.13.0", 1, True), True, "cuda:1 is not there; torch 2.13.0 sees only cuda:0"),
        ("cpu,cuda:5", ("2.13.0", 4, True), True, "cuda:5 is not there; torch 2.13.0 sees only cuda:0 to cuda:3"),
        ("cuda,cuda:1", ("2.13.0", 2, True), True, None),
        ("cuda:0", None, False, None),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_at_start(names, torch, driver, fault, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_ask_torch", lambda: torch and devices._Torch(*torch))
    monkeypatch.setattr(devices, "_has_driver", lambda: driver)
    monkeypatch.setattr(devices, "missing_for_detector", list)
    assert absent(parse_devices(names)) == (fault and f"--devices: {fault}")


def test_torch_is_asked_in_a_process_of_its_own():
    torch = pytest.importorskip("torch")
    assert devices._ask_torch() == (torch.__version__, torch.cuda.device_count(), bool(torch.version.cuda or torch.version.hip))


def test_no_more_than_the_most_candidates_are_asked_for():
    gate = Gate(most=2)
    assert gate.enter()
    assert gate.enter()
    assert not gate.enter()
    gate.nothing()
    assert gate.enter()


def test_a_worker_is_idle_once_all_of_its_slots_are():
    now = [0.0]
    gate = Gate(until_idle_s=5, clock=lambda: now[0])
    assert gate.wait_s(20) == 5
    gate.begin()
    now[0] = 10
    gate.nothing()
    assert not gate.closed.is_set()
    gate.end()
    now[0] = 14
    gate.nothing()
    assert not gate.closed.is_set()
    now[0] = 15
    gate.nothing()
    assert gate.closed.is_set()
    assert not gate.enter()


def test_time_without_an_answer_is_idle_time_unless_something_trains():
    now = [0.0]
    gate = Gate(until_idle_s=5, clock=lambda: now[0])
    gate.begin()
    now[0] = 6
    gate.unanswered()
    gate.end()
    gate.unanswered()
    assert not gate.closed.is_set()
    now[0] = 11
    gate.unanswered()
    assert gate.closed.is_set()


def test_a_worker_loads_no_database_no_web_server_and_its_supervisor_no_torch():
    modules = "worker.__main__, worker.training, worker.trainers, worker.command"
    code = f"import {modules}, sys; print(sorted({{m.partition('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("sqlalchemy", "psycopg2", "fastapi", "starlette", "uvicorn", "server", "torch", "cv2"):
        assert f"'{name}'" not in loaded
