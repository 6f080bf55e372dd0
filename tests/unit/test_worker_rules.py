"""Devices, the gate that limits a worker's life, and what a worker must not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker.devices import Device, environment_for, parse_devices
from worker.gate import Gate


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", [("cpu0", "cpu")]),
        ("cpu,cpu", [("cpu0", "cpu"), ("cpu1", "cpu")]),
        ("cpu*3", [("cpu0", "cpu"), ("cpu1", "cpu"), ("cpu2", "cpu")]),
        ("cuda:0, cuda:1", [("cuda0", "cuda:0"), ("cuda1", "cuda:1")]),
        ("cuda:0,cuda:0", [("cuda0", "cuda:0"), ("cuda0-2", "cuda:0")]),
    ],
)
def test_devices(text: str, devices: list[tuple[str, str]]):
    assert parse_devices(text) == devices


@pytest.mark.parametrize("text", ["", "gpu", "cpu,,cpu", "cpu*0", "0"])
def test_what_is_no_device_is_refused_with_a_remedy(text: str):
    with pytest.raises(ValueError, match="write"):
        parse_devices(text)


def test_a_process_on_a_cpu_has_one_thread():
    assert environment_for(Device("cpu0", "cpu"), {"OMP_NUM_THREADS": "8", "HOME": "h"})["OMP_NUM_THREADS"] == "1"
    assert environment_for(Device("cuda0", "cuda:0"), {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "8"


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


def test_a_worker_loads_no_database_no_web_server_and_its_supervisor_no_torch():
    modules = "worker.__main__, worker.training, worker.trainers, worker.command"
    code = f"import {modules}, sys; print(sorted({{m.partition('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("sqlalchemy", "psycopg2", "fastapi", "starlette", "uvicorn", "server", "torch", "cv2"):
        assert f"'{name}'" not in loaded
