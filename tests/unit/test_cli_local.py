"""Decisions of the local supervision: when to start again, which port, which devices, whose folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evolution.campaign_limits import Requires
from hypevolve import children, local
from hypevolve.console import CommandFailed
from hypevolve.run import lacking

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from pathlib import Path
from hypevolve import local
with local.locked(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_child_that_keeps_dying_young_is_given_up_after_the_fifth_death() -> None:
    deaths = children.Deaths()
    pauses = [deaths.pause(1.0) for _ in range(5)]
    assert pauses[-1] is None
    assert pauses[:4] == sorted(pauses[:4])  # type: ignore[type-var]
    assert deaths.in_a_row == 5


def test_a_long_life_makes_up_for_early_deaths() -> None:
    deaths = children.Deaths()
    for _ in range(20):
        assert deaths.pause(1.0) is not None
        assert deaths.pause(3600.0) is not None


def test_a_worker_that_says_twice_that_its_node_cannot_work_is_believed_however_long_it_lived() -> None:
    deaths = children.Deaths()
    assert deaths.pause(3600.0, owned_up=True) is not None
    assert deaths.pause(3600.0, owned_up=True) is None


@pytest.mark.parametrize(
    ("devices", "workers", "shares"),
    [
        (["cpu"], 2, ["cpu", "cpu"]),
        (["cuda:0", "cuda:1"], None, ["cuda:0", "cuda:1"]),
        (["cuda:0", "cuda:1", "cuda:2"], 2, ["cuda:0,cuda:2", "cuda:1"]),
        (["cuda:0", "cuda:1"], 3, ["cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_devices_are_shared_out_among_workers(devices: list[str], workers: int | None, shares: list[str]) -> None:
    assert local.share_devices(devices, workers) == shares


@pytest.mark.parametrize(
    ("requires", "devices", "words"),
    [
        ({}, ["cpu"], ""),
        ({"devices": 2}, ["cpu,cpu+cpu"], ""),
        ({"devices": 2, "device": "cuda"}, ["cuda:0+cuda:1+cuda:2"], ""),
        ({"devices": 2}, ["cpu", "cpu"], "no slot of --devices cpu,cpu is enough for it; write --devices cpu+cpu"),
        ({"devices": 2, "device": "cuda"}, ["cpu+cpu"], "write --devices cuda:0+cuda:1"),
        ({"device": "cuda"}, ["cpu"], "write --devices cuda:0"),
        ({"labels": ("a100",)}, ["cuda:0"], "the workers that run starts have none; leave out a100"),
    ],
)
def test_a_campaign_that_no_worker_started_here_may_train_is_refused(requires: Any, devices: list[str], words: str) -> None:
    found = lacking(Requires(**requires), devices)
    assert words in found
    assert bool(words) == bool(found)


def test_no_worker_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        local.share_devices(["cpu"], 0)


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((local.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert next(local.free_ports(port)) > port


def test_ports_end_where_ports_end() -> None:
    assert all(port <= 65535 for port in local.free_ports(65530))


@pytest.mark.parametrize(("status", "words"), [(1, "exit status 1"), (-9, "SIGKILL"), (-200, "signal 200")])
def test_an_end_has_a_name(status: int, words: str) -> None:
    assert children.how(status) == words


def test_a_folder_belongs_to_one_run_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    with pytest.raises(CommandFailed, match=rf"in use by another hypevolve run \(pid {holder.pid}\)"), local.locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with local.locked(tmp_path):
        assert (tmp_path / "run.lock").read_text() == str(os.getpid())


def test_the_port_of_the_last_time_is_remembered(tmp_path: Path) -> None:
    announce = tmp_path / "coordinator.json"
    assert local._remembered(announce) is None
    announce.write_text(json.dumps({"url": "http://127.0.0.1:8123", "pid": 7}))
    assert local._remembered(announce) == 8123
    announce.write_text("{")
    assert local._remembered(announce) is None


def test_no_proxy_stands_between_the_processes_of_a_machine() -> None:
    environment = local._direct({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "intranet"})
    assert environment["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"


def test_a_child_quotes_only_its_own_life(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_text("of an earlier life\n")
    child = children.Child("child", "no_such_module_at_all", [], log, os.environ)
    assert child.status() is None
    child.start()
    assert child._process is not None
    assert child._process.wait(30) == 1
    assert child.last_line().endswith("No module named no_such_module_at_all")
    log.write_text("of an earlier life\n")
    assert child.last_line() == "(nothing)"
