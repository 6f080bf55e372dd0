"""Coordinators and workers whose clocks are days apart, and one that runs fast: only the database's clock decides."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.proxy import HttpProxy
from benchmarks.heartbeats import coordinator
from hypevolve import messages
from hypevolve.client import Client, RetryPolicy

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
LEASE_S = 6.0
TRAINER = """
import select, time

def train(ctx):
    until = time.monotonic() + 8
    while time.monotonic() < until:
        ctx.progress(0.5)
        select.select([], [], [], 0.05)  # time.sleep fails under libfaketime
    return {"map50": 0.5, "map50_95": 0.25}
"""


def under(clock: str) -> dict[str, str]:
    """The environment of a process that lives at another time."""
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
def coordinators(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of two coordinators, one two days ahead and fast, one three hours behind."""
    if not LIBRARIES:
        pytest.skip("no libfaketime here; install Debian's package libfaketime")
    with pytest.MonkeyPatch.context() as patch:
        ports = []
        opened = []
        for name, clock in (("ahead", "+2d x1.05"), ("behind", "-3h")):
            (tmp_path / name).mkdir()
            for key, value in under(clock).items():
                patch.setenv(key, value)
            opened.append(coordinator(tmp_path / name, "--db", database_url))
            ports.append(("127.0.0.1", int(opened[-1].__enter__().rpartition(":")[2])))
        patch.undo()
        with HttpProxy(ports) as proxy:
            yield f"http://127.0.0.1:{proxy.port}"
        for one in opened:
            one.__exit__(None, None, None)


def test_clocks_that_are_days_off_and_run_fast_change_nothing(coordinators: str, api: Any, tmp_path: Path) -> None:
    """Trainings longer than the lease keep it by their heartbeats, a silent worker's goes to another after one lease length."""
    (tmp_path / "toy.py").write_text(TRAINER)
    api.create(candidates=3, lease={"heartbeat": "1s", "expire": f"{LEASE_S}s"})
    with Client(coordinators, retry=RetryPolicy(patience_s=30)) as client:
        (silent,) = client.ask(messages.Ask(request_id=uuid.uuid4(), worker=uuid.uuid4()))
    workers = []
    for name, clock in (("yesterday", "-1d"), ("tomorrow", "+1d")):
        command = [sys.executable, "-m", "worker", coordinators, "--name", name, "--folder", str(tmp_path / f"w-{name}")]
        command += ["--devices", "cpu", "--data-root", str(tmp_path), "--max", "2"]
        environment = {**os.environ, **under(clock), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        log = (tmp_path / f"{name}.log").open("w")
        workers.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
    try:
        end = time.monotonic() + 120
        while api.counts()["done"] < 3:
            assert time.monotonic() < end, "".join(path.read_text() for path in tmp_path.glob("*.log"))
            time.sleep(0.2)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(60)
    rows = api.sql(
        """
        select k.number, count(*), extract(epoch from max(a.started_at) - min(a.started_at))::float8
        from candidate k join attempt a on a.candidate_id = k.id group by k.number order by k.number
        """
    )
    attempts = {number: n for number, n, _ in rows}
    assert attempts == {silent.number: 2, 1: 1, 2: 1}
    assert LEASE_S <= rows[silent.number][2] < 5 * LEASE_S  # at once where somebody asks; the machine may be slow
