"""``hypevolve run`` as people use it, with a trainer of a third of a second: to the end, through kills, and again."""

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
FILES = ("hyp_evolved.yaml", "evolve.csv", "evolve.txt", "evolve.png", "summary.json")
TOY = """
import time

def train(ctx):
    for epoch in range(ctx.epochs):
        time.sleep(0.1)
        ctx.report(epoch, map50=0.1 * epoch)
    quality = 1 - (ctx.hyp["x"] - 0.7) ** 2
    return {"precision": quality, "recall": quality, "f1": quality, "map50": quality, "map50_95": quality / 2}

def never(ctx):
    ctx.report(0)
    while True:  # deaf to every request to stop
        time.sleep(1)

def fail(ctx):
    raise RuntimeError("the moon is full")
"""
CAMPAIGN = """
name: toy
base: {epochs: 3}
trainer: {python: "toy:train"}
hyp: {x: 0.3, y: 0.5}
space: {x: {gain: 1, min: 0.01, max: 1}, y: {gain: 1, min: 0.01, max: 1}}
retries: {failed: 0}
budget: {candidates: 8}
"""


def _until(what: str, found: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {DEADLINE_S:g} s")


def _processes(folder: Path) -> dict[int, str]:
    """Whatever works in ``folder`` or names it on its command line, but for this process."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in words or os.readlink(process / "cwd").startswith(str(folder)):
                found[int(process.name)] = words
    found.pop(os.getpid(), None)
    return found


class Project:
    """A folder with a campaign, and the runs on it."""

    def __init__(self, folder: Path, database_url: str | None) -> None:
        self.folder = folder
        self.runs = folder / "runs" / "toy"
        self.environment = {k: v for k, v in os.environ.items() if k != "HYPEVOLVE_DATABASE_URL"}
        if database_url:  # saves each run a database of its own
            self.environment["HYPEVOLVE_DATABASE_URL"] = database_url
        self.starts = 0
        (folder / "toy.py").write_text(TOY)
        self.write(CAMPAIGN)

    def write(self, campaign: str) -> None:
        (self.folder / "campaign.yaml").write_text(campaign)

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.starts += 1
        command = [sys.executable, "-P", "-m", "hypevolve", *(options or ("run", "campaign.yaml"))]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=(self.folder / f"stderr-{self.starts}").open("w"), text=True,
        )  # fmt: skip

    def said(self) -> str:
        return (self.folder / f"stderr-{self.starts}").read_text()

    def finish(self, started: subprocess.Popen[str]) -> str:
        """The run ends by itself and successfully; what it printed."""
        out, _ = started.communicate(timeout=DEADLINE_S)
        assert started.returncode == 0, self.said()
        return out

    def run(self, *options: str) -> str:
        return self.finish(self.start(*options))

    def fails(self, *options: str) -> tuple[int, str]:
        """The exit code of a run that fails, and the only line it said last."""
        started = self.start(*options)
        started.communicate(timeout=DEADLINE_S)
        assert started.returncode not in (0, 1) or "Traceback" not in self.said()
        assert self.left() == {}
        return started.returncode, self.said().splitlines()[-1]

    def counts(self) -> dict[str, int]:
        """Of the campaign now; nothing where there is no answer yet."""
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError, KeyError):
            url = json.loads((self.runs / "coordinator.json").read_text())["url"]
            counts: dict[str, int] = httpx.get(f"{url}/api/v1/campaigns/toy", timeout=5).json()["counts"]
            return counts
        return {}

    def done(self, least: int) -> Callable[[], bool]:
        return lambda: self.counts().get("done", 0) >= least

    def left(self) -> dict[int, str]:
        return _processes(self.folder)

    def gone(self) -> None:
        _until("the end of every process", lambda: not self.left())

    def summary(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.runs / "summary.json").read_text())
        return document

    def complete(self, planned: int) -> None:
        """The budget was spent exactly, on as many different candidates."""
        counts = self.summary()["counts"]
        assert (counts["planned"], counts["done"], counts["failed"]) == (planned, planned, 0)
        assert len((self.runs / "evolve.csv").read_text().splitlines()) == planned + 1
        assert self.left() == {}


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Iterator[Project]:
    project = Project(tmp_path, database_url)
    yield project
    _kill(project)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, None)
    yield project
    _kill(project)


def _kill(project: Project) -> None:
    for pid in project.left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_run_ends_by_itself_with_files_a_summary_and_no_process(embedded: Project) -> None:
    out = embedded.run()
    embedded.complete(8)
    assert sorted(path.name for path in embedded.runs.iterdir() if path.name in FILES) == sorted(FILES)
    assert out.splitlines()[0].startswith("toy           8 of 8 done, 0 failed, 0 lost, this run took ")
    assert "against the default hyp set's 0.462" in out
    assert "created toy: 8 candidates" in embedded.said()
    assert "page: http://127.0.0.1:" in embedded.said()
    assert "\x1b" not in out + embedded.said()
    assert (embedded.runs / "evolve.png").read_bytes().startswith(b"\x89PNG")

    # Again, on the finished campaign: nothing is trained, the files come back, and --json is one document.
    before = (embedded.runs / "evolve.csv").read_bytes()
    for name in FILES:
        (embedded.runs / name).unlink()
    document = json.loads(embedded.run("run", "campaign.yaml", "--json"))
    assert document == embedded.summary()
    assert "toy is finished already" in embedded.said()
    assert (embedded.runs / "evolve.csv").read_bytes() == before


def test_killed_at_any_moment_it_goes_on_where_it_was_and_spends_the_budget_exactly(embedded: Project) -> None:
    chance = random.Random()
    killed = embedded.start()
    _until("the first result", embedded.done(1))
    time.sleep(chance.uniform(0, 0.5))
    # The one process that a person sees: all the others go with it.
    killed.kill()
    killed.wait()
    embedded.gone()

    killed = embedded.start()
    _until("the resumption", lambda: "resumed toy: " in embedded.said())
    time.sleep(chance.uniform(0, 1.5))
    everything = list(embedded.left())
    chance.shuffle(everything)
    for pid in everything:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed.wait()
    embedded.gone()

    began = time.monotonic()
    embedded.run()
    embedded.complete(8)
    assert time.monotonic() - began < 45  # nobody waited for a lease to expire


def test_a_killed_worker_and_a_killed_coordinator_are_started_again(project: Project) -> None:
    project.write(CAMPAIGN.replace("candidates: 8", "candidates: 14"))
    running = project.start()
    _until("the first result", project.done(1))
    (worker,) = [pid for pid, words in project.left().items() if "-m worker " in words and "--name worker-1" in words]
    os.kill(worker, signal.SIGKILL)
    _until("the worker's new start", lambda: "worker-1 ended (SIGKILL) and is started again" in project.said())
    _until("results after that", project.done(4))
    os.kill(json.loads((project.runs / "coordinator.json").read_text())["pid"], signal.SIGKILL)
    _until("the coordinator's new start", lambda: "the coordinator ended (SIGKILL)" in project.said())
    project.finish(running)
    project.complete(14)


def test_an_interrupted_run_leaves_no_process_and_says_how_to_go_on(project: Project) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        running = project.start()
        _until("a result", project.done(1))
        running.send_signal(number)
        running.wait(DEADLINE_S)
        assert running.returncode == 130
        assert project.left() == {}
        assert project.said().splitlines()[-1].endswith("to go on: hypevolve run campaign.yaml")
    project.run()
    (resumed,) = [line for line in project.said().splitlines() if line.startswith("resumed toy: ")]
    assert "in training" not in resumed  # all of it was handed back
    project.complete(8)


def test_a_second_interrupt_does_not_wait(project: Project) -> None:
    project.write(CAMPAIGN.replace("toy:train", "toy:never"))
    running = project.start()
    _until("a training", lambda: project.counts().get("running"))
    running.send_signal(signal.SIGINT)
    _until("the first answer", lambda: "once more: kill" in project.said())
    running.send_signal(signal.SIGINT)
    began = time.monotonic()
    running.wait(DEADLINE_S)
    assert running.returncode == 130
    assert time.monotonic() - began < 3
    project.gone()


def test_a_raised_budget_goes_on_and_another_campaign_of_the_name_is_refused(project: Project) -> None:
    project.write(CAMPAIGN.replace("candidates: 8", "candidates: 2"))
    project.run()
    project.write(CAMPAIGN.replace("candidates: 8", "candidates: 4"))
    project.run()
    assert "the budget is now 4 candidates; it was 2" in project.said()
    project.complete(4)
    project.write(CAMPAIGN.replace("epochs: 3", "epochs: 5"))
    code, line = project.fails()
    assert code == 4
    assert "base.epochs" in line
    assert line.endswith("or start afresh with another --folder")


def test_a_campaign_whose_every_training_fails_says_why(project: Project) -> None:
    project.write(CAMPAIGN.replace("toy:train", "toy:fail").replace("candidates: 8", "candidates: 3"))
    code, line = project.fails()
    assert code == 9
    assert "no candidate of toy has a result (3 crash); the last: " in line
    assert "the moon is full" in line
    assert project.summary()["counts"]["failed"] == 3


def test_workers_that_cannot_work_end_the_run(project: Project) -> None:
    project.write(CAMPAIGN.replace("toy:train", "nowhere:train"))
    code, line = project.fails("run", "campaign.yaml", "--workers", "1")
    assert code == 1
    assert "worker-1 ended 2 times in a row (exit status " in line
    assert "No module named 'nowhere'" in line
    assert "worker-1.log" in line


def test_a_port_asked_for_and_taken_is_one_line(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = project.fails("run", "campaign.yaml", "--port", str(port))
    assert code == 2
    assert f"port {port} on 127.0.0.1 is taken" in line
    assert "--port" in line


def test_runs_started_at_once_have_coordinators_of_their_own(embedded: Project) -> None:
    """With one port for both, the workers of one would train for the other."""
    embedded.write(CAMPAIGN.replace("candidates: 8", "candidates: 3"))
    folders = [embedded.folder / "runs" / name for name in ("a", "b")]
    running = [embedded.start("run", "campaign.yaml", "--folder", str(folder), "--workers", "1") for folder in folders]
    for started in running:
        embedded.finish(started)
    for folder in folders:
        assert (folder / "logs/worker-1.log").read_text().count(" leased toy #") == 3
    assert len({json.loads((folder / "coordinator.json").read_text())["url"] for folder in folders}) == 2


def test_a_database_that_does_not_answer_is_one_line(project: Project) -> None:
    code, line = project.fails("run", "campaign.yaml", "--db", "postgresql://a:secret@127.0.0.1:1/c")
    assert code == 1
    assert "the coordinator cannot start: " in line
    assert "secret" not in project.said()


def test_a_folder_in_use_is_one_line(project: Project) -> None:
    project.runs.mkdir(parents=True)
    with (project.runs / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, line = project.fails()
    assert code == 4
    assert "is in use by another hypevolve run" in line


def test_an_invalid_campaign_starts_nothing(project: Project) -> None:
    project.write(CAMPAIGN.replace("budget", "bugdet"))
    code, line = project.fails()
    assert code == 5
    assert "did you mean 'budget'?" in line
    assert not project.runs.exists()


def test_a_halted_run_goes_on_once_the_cause_is_mended(project: Project) -> None:
    good = (project.folder / "toy.py").read_text()
    (project.folder / "toy.py").write_text(good.replace("quality = 1 -", "quality = nonsense -"))
    project.write(CAMPAIGN.replace("candidates: 8", "candidates: 12"))
    running = project.start()
    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 9
    assert "toy is halted, its newest candidates all failed" in project.said()
    assert "give the same command again" in project.said()
    (project.folder / "toy.py").write_text(good)
    project.run()
    project.complete(12)
    assert "failed candidates are tried again" in project.said()


def test_a_folder_with_another_campaign_s_results_is_left_alone(project: Project) -> None:
    project.run()
    project.write(CAMPAIGN.replace("name: toy", "name: other"))
    running = project.start("run", "campaign.yaml", "--folder", "runs/toy")
    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 4
    assert "holds the results of toy; give another --folder" in project.said()
