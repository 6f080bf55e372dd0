"""Workers as real processes against a scripted coordinator: what survives kill -9, outages, signals and bad trainings."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from hypevolve.hashes import hyp_hash
from hypevolve.messages import Counts
from worker import supervisor
from worker.devices import parse_devices

HYP = {"lr0": 0.01, "degrees": 0.0}
DEADLINE_S = 60.0  # of what takes a second or two: some start torch, and the machine may be slow
CAMPAIGN = {
    "state": "running", "strategy": "genetic", "weights": {}, "best": None, "default": None, "eta_s": None,
    "created_at": "2026-01-01T00:00:00Z", "finished_at": None, "document": {},
    "counts": dict.fromkeys(Counts.model_fields, 0),
}  # fmt: skip


class Asked(NamedTuple):
    """One request that reached the coordinator, whether or not it was answered."""

    method: str
    path: str
    body: Any
    at: float


class Coordinator:
    """Speaks the protocol from a script. ``answer`` may return a status or "drop" in place of the protocol's answer."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.leases: list[dict[str, Any]] = []
        self.answer: Callable[[Asked], int | str | None] = lambda _: None
        self.command: Callable[[str], str] = lambda _token: "continue"
        self.told: list[str] = []  # commands in the place of work
        self.checkpoint: Any = {"sha256": "", "bytes": 0, "epoch": 0}
        coordinator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, json.loads(body) if body else None, time.monotonic())
                status = coordinator.answer(asked)
                coordinator.asked.append(asked)
                if status == "drop":
                    self.close_connection = True
                    return
                code, answer = (status, None) if isinstance(status, int) else coordinator.protocol(asked)
                content = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Retry-After", "0.05" if code == 204 else "0")
                if asked.path == "/api/v1/leases" and asked.method == "POST" and coordinator.told and code == 204:
                    self.send_header("Hypevolve-Command", coordinator.told.pop())
                    self.send_header("Hypevolve-Reason", "three failed")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def protocol(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/api/v1/workers":
            return 200, {"protocol": 1, "version": "0"}
        if asked.path == "/api/v1/leases":
            return (200, {"leases": [self.leases.pop(0)]}) if self.leases and not self.told else (204, None)
        if asked.path == "/api/v1/campaigns":
            return 200, {"items": [{**CAMPAIGN, "name": name} for name in ("bccd", "mine")]}
        if asked.path.endswith("/epochs"):
            return 200, {"current": True}
        if asked.path.endswith("/result"):
            return 201, {"counts": True}
        if "/checkpoint" in asked.path:
            return 200, self.checkpoint
        if asked.path.endswith("/failure"):
            return 200, {"state": "queued"}
        if asked.method == "DELETE":
            return 204, None
        token = asked.path.rpartition("/")[2]
        return 200, {"lease_s": 60, "command": self.command(token), "current": True}

    def offer(self, body: str, folder: Path, **more: Any) -> str:
        """Offer a candidate whose trainer is a function with this body; its token."""
        number = len(list(folder.glob("trainer_*.py")))
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        note_pid = "open(f'{ctx.name}.pid', 'w').write(str(os.getpid()))"
        source = f"import itertools, os, signal, subprocess, sys, time\ndef train(ctx):\n    {note_pid}\n{lines}\n"
        (folder / f"trainer_{number}.py").write_text(source)
        lease = {
            "candidate": 100 + number, "campaign": "bccd", "number": number, "rung": 0, "token": f"token{number}", "hyp": HYP,
            "hyp_hash": hyp_hash(HYP), "data_hash": None, "base": {}, "weights": {"map50": 1.0}, "seed": number, "epochs": 2,
            "trainer": {"kind": "python", "python": f"trainer_{number}:train"}, "lease_s": 60, "beat_s": 0.1, **more,
        }  # fmt: skip
        self.leases.append(lease)
        return str(lease["token"])

    def of(self, pattern: str) -> list[Asked]:
        return [asked for asked in list(self.asked) if re.search(pattern, f"{asked.method} {asked.path}")]

    def wait_for(self, pattern: str, count: int = 1, within_s: float = DEADLINE_S) -> Asked:
        until(lambda: len(self.of(pattern)) >= count, f"{count} x {pattern}", within_s)
        return self.of(pattern)[count - 1]


class Worker:
    """A worker as a process of its own; ``log`` is its stderr."""

    def __init__(self, url: str, root: Path, *options: str) -> None:
        self.log_file = root / f"worker{len(list(root.glob('worker*.log')))}.log"
        argv = [sys.executable, "-m", "worker", url, "--name", "node-1", "--folder", str(root / "folder"), "--devices", "cpu"]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen([*argv, "--data-root", str(root), *options], stderr=log, stdout=log)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def ends(self) -> int:
        return self.process.wait(DEADLINE_S)


def until(condition: Callable[[], Any], what: str, within_s: float = DEADLINE_S) -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    pytest.fail(f"never came: {what}")


def pid_of(root: Path, number: int) -> int:
    """The process that trains candidate ``number``."""
    file = root / f"bccd-{number}.pid"
    return int(until(lambda: file.exists() and file.read_text(), f"training of {number}"))


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # dead, and only not yet collected by whoever adopted it


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    coordinator = Coordinator()
    yield coordinator
    coordinator.server.shutdown()
    coordinator.server.server_close()


@pytest.fixture
def start(coordinator: Coordinator, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(*options: str) -> Worker:
        workers.append(Worker(coordinator.url, tmp_path, *options))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


FOR_EVER = "while True:\n    ctx.progress(0.5)\n    time.sleep(0.01)"
QUICK = "ctx.report(0, map50=0.1)\nctx.report(1, map50=0.4)\nprint('chatter')\nreturn {'map50': 0.4}"


def test_a_candidate_is_trained_and_told(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer(QUICK, tmp_path)
    worker = start("--until-idle", "0.2")
    assert worker.ends() == 0, worker.log
    assert coordinator.asked[0].path == "/api/v1/workers"
    assert coordinator.asked[0].body["name"] == "node-1"
    (result,) = coordinator.of("result$")
    assert result.path == "/api/v1/candidates/100/attempts/token0/result"
    assert result.body["metrics"] == {"map50": 0.4}
    assert (result.body["fitness"], result.body["hyp_hash"], result.body["epochs"]) == (0.4, hyp_hash(HYP), 2)
    (epochs,) = coordinator.of("epochs$")
    assert [(e["epoch"], e["metrics"]["map50"]) for e in epochs.body["epochs"]] == [(0, 0.1), (1, 0.4)]
    assert epochs.at < result.at
    assert re.search(r"node-1/cpu0: leased bccd #0 \(attempt token0\)", worker.log)
    assert re.search(r"node-1/cpu0: bccd #0 done map50 0.4 fitness 0.4 in", worker.log)
    assert "chatter" not in worker.log
    assert [list((tmp_path / "folder" / kind).iterdir()) for kind in ("leases", "outbox", "scratch")] == [[], [], []]


RESUMES = (
    "import json\n"
    "done = json.loads(ctx.checkpoint.read_text())['epoch'] if ctx.checkpoint.exists() else 0\n"
    "for epoch in range(done, 3):\n"
    "    (ctx.dir / 'draft').write_text(json.dumps({'epoch': epoch + 1}))\n"
    "    os.replace(ctx.dir / 'draft', ctx.checkpoint)\n"
    "    ctx.report(epoch, map50=0.1)\n"
)


def test_a_function_that_is_handed_back_sends_its_checkpoint_before(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer(f"{RESUMES}{FOR_EVER}", tmp_path, checkpoint_s=300)
    worker = start()
    coordinator.wait_for("checkpoint")  # the first at once, the next within 30 s, or when it is handed back
    coordinator.wait_for("epochs$")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends() == 0, worker.log
    sent = coordinator.of("PUT .*token0/checkpoint")
    assert sent[-1].body == {"epoch": 3}
    assert sent[-1].path.endswith("?epoch=3")
    (released,) = coordinator.of("DELETE .*token0")
    assert sent[-1].at < released.at


def test_the_epochs_before_a_checkpoint_arrive_before_it(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    """Who goes on from a checkpoint does not train, and so not report, the epochs before it again."""
    trained = "for epoch in range(3):\n    ctx.report(epoch, map50=0.1)\nctx.checkpoint.write_text('{}')\nctx.report(3)\n"
    coordinator.offer(f"{trained}{FOR_EVER}", tmp_path)
    coordinator.answer = lambda asked: 503 if "/epochs" in asked.path and len(coordinator.of("epochs$")) < 2 else None
    start()
    sent = coordinator.wait_for("PUT .*token0/checkpoint")
    arrived = [asked for asked in coordinator.of("epochs$")[2:] if asked.at < sent.at]  # the first two met a fault
    assert {epoch["epoch"] for asked in arrived for epoch in asked.body["epochs"]} >= {0, 1, 2}


def test_a_function_goes_on_from_the_checkpoint_of_another_node(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.checkpoint = {"epoch": 2}
    content = json.dumps(coordinator.checkpoint).encode()
    known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "epoch": 2}
    coordinator.offer(f"{RESUMES}return {{'map50': done}}", tmp_path, checkpoint=known)
    spoilt = {"sha256": "0" * 64, "bytes": 1, "epoch": 2}  # not what is stored, however often it is asked for
    coordinator.answer = lambda asked: 404 if "candidates/101/checkpoint" in asked.path else None
    coordinator.offer(f"{RESUMES}return {{'map50': done}}", tmp_path, checkpoint=spoilt)
    worker = start("--max", "2")
    assert worker.ends() == 0, worker.log
    assert [result.body["metrics"]["map50"] for result in coordinator.of("result$")] == [2, 0]
    assert "bccd #0: goes on from its checkpoint, epoch 2" in worker.log
    assert "bccd #1: no checkpoint" in worker.log


def test_a_worker_in_quarantine_tests_itself_and_goes_on(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.told = ["self-test"]
    coordinator.offer(QUICK, tmp_path)
    worker = start("--label", "fast", "--max", "1")
    assert worker.ends() == 0, worker.log
    first, tested = coordinator.of("POST .*workers$")[:2]
    assert (first.body["labels"], first.body["self_test"]) == (["fast"], None)
    assert tested.body["self_test"] == {"passed": True, "detail": ""}
    assert tested.body["worker"] == first.body["worker"]
    assert len(coordinator.of("result$")) == 1
    assert re.search(r"in quarantine \(three failed\); a self-test comes in 0 s", worker.log)
    assert not list((tmp_path / "folder" / "scratch").iterdir())


def test_a_worker_without_work_that_is_told_to_drain_ends(coordinator: Coordinator, start: Callable[..., Worker]):
    coordinator.told = ["drain"]
    worker = start()
    assert worker.ends() == 0, worker.log
    assert "ends (three failed)" in worker.log


def test_a_result_is_repeated_unchanged_until_it_is_answered(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer(QUICK, tmp_path)
    replies: list[int | str | None] = ["drop", 503, 429, None]
    coordinator.answer = lambda asked: replies.pop(0) if asked.path.endswith("/result") else None
    worker = start("--max", "1")
    assert worker.ends() == 0, worker.log
    results = coordinator.of("result$")
    assert len(results) == 4
    assert all(result.body == results[0].body for result in results)
    assert worker.log.count("the coordinator answers again") == 1


def test_a_lost_answer_to_an_ask_is_asked_for_again_with_the_same_id(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer(QUICK, tmp_path)
    replies: list[int | str | None] = ["drop", 503]
    coordinator.answer = lambda asked: replies.pop(0) if asked.path.endswith("/leases") and replies else None
    assert start("--max", "1").ends() == 0
    assert len({asked.body["request_id"] for asked in coordinator.of("POST .*leases$")}) == 1


def test_a_refused_result_is_kept_and_the_worker_goes_on(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer(QUICK, tmp_path)
    coordinator.offer(QUICK, tmp_path)
    coordinator.answer = lambda asked: 409 if asked.path.endswith("token0/result") else None
    worker = start("--max", "2")
    assert worker.ends() == 0, worker.log
    assert len(coordinator.of("token0/result$")) == 1
    assert (tmp_path / "folder" / "refused" / "token0.json").exists()
    assert "refused the result" in worker.log


def test_a_result_survives_kill_9_between_training_and_posting(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer(QUICK, tmp_path)
    coordinator.answer = lambda asked: 503 if asked.path.endswith("/result") else None
    worker = start()
    tried = coordinator.wait_for("result$")
    worker.process.kill()
    worker.process.wait()
    until(lambda: gone(pid_of(tmp_path, 0)), "the end of the training process")
    coordinator.answer = lambda _: None
    coordinator.asked.clear()
    worker = start("--until-idle", "0.1")
    assert worker.ends() == 0, worker.log
    (sent,) = coordinator.of("result$")
    assert sent.body == tried.body
    assert coordinator.of("DELETE") == []


def test_kill_9_leaves_no_process_and_the_next_start_releases_the_lease(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    # A program and its child, started by the command trainer, must go too.
    script = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=True); time.sleep(300)"
    command = {"kind": "command", "command": [sys.executable, "-c", script], "results": "x.json"}
    coordinator.offer(FOR_EVER, tmp_path)
    coordinator.offer("", tmp_path, trainer=command)
    worker = start("--devices", "cpu,cpu")
    training = pid_of(tmp_path, 0)
    log = tmp_path / "folder" / "scratch" / "token1" / "log.txt"
    grandchild = int(until(lambda: log.exists() and log.read_text(), "the program's child"))
    coordinator.wait_for("PUT .*token0")
    worker.process.kill()
    worker.process.wait()
    until(lambda: gone(training) and gone(grandchild), "the end of every process")
    worker = start("--until-idle", "0.1")
    assert worker.ends() == 0, worker.log
    released = sorted(asked.path for asked in coordinator.of("DELETE"))
    assert released == [f"/api/v1/leases/token{n}?reason=worker_restarted" for n in (0, 1)]


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def test_a_process_of_a_team_that_dies_ends_its_candidate_and_leaves_nothing(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    pytest.importorskip("torch")
    from detector import digits

    data = str(digits.write(tmp_path / "digits", counts={"train": 8, "val": 4}))
    hyp = {"lr0": 0.01, "warmup_epochs": 0.0}
    lease = {"trainer": {"kind": "detector"}, "hyp": hyp, "hyp_hash": hyp_hash(hyp)}
    lease["base"] = {"data": data, "imgsz": 64, "batch": 8, "val_every": 1}
    torch_s = 120.0  # two processes load torch first

    def offer(epochs: int) -> None:
        coordinator.offer("", tmp_path, **lease, epochs=epochs)

    def team(token: str) -> tuple[int, int]:
        coordinator.wait_for(f"POST .*{token}/epochs", within_s=torch_s)
        (leader,) = children(worker.process.pid)
        (member,) = children(leader)
        return leader, member

    offer(100_000)
    worker = start("--devices", "cpu+cpu")
    assert coordinator.wait_for("POST .*/leases$").body["devices"] == ["cpu", "cpu"]
    _, member = team("token0")
    offer(1)
    os.kill(member, signal.SIGKILL)
    failure = coordinator.wait_for("POST .*token0/failure").body
    assert failure["kind"] == "oom"
    assert failure["detail"].startswith("rank 1 (cpu) was killed (SIGKILL)")
    coordinator.wait_for("PUT .*token1/result", within_s=torch_s)  # with a new process in its place
    offer(100_000)
    leader, other = team("token2")
    assert other != member
    worker.process.kill()
    worker.process.wait()
    until(lambda: gone(leader) and gone(other), "the end of every process")


@pytest.mark.parametrize("body", [FOR_EVER, "ctx.progress(0)\n" + "time.sleep(300)"])
def test_sigterm_hands_the_candidate_back(body: str, coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer(body, tmp_path)
    worker = start()
    training = pid_of(tmp_path, 0)
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends() == 0, worker.log
    assert time.monotonic() - began < 10
    assert [asked.path for asked in coordinator.of("DELETE")] == ["/api/v1/leases/token0?reason=sigterm"]
    assert coordinator.of("failure|result") == []
    assert gone(training)


def test_sigterm_ends_also_where_the_coordinator_hangs_and_the_next_start_tells(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor, "LAST_WORDS_S", 0.5)
    wake = threading.Event()
    coordinator.offer(FOR_EVER, tmp_path)
    coordinator.answer = lambda asked: "drop" if asked.method == "DELETE" and wake.wait(DEADLINE_S) else None
    settings = supervisor.Settings(
        url=coordinator.url, name="node-1", folder=tmp_path / "folder", devices=parse_devices("cpu"), worker=UUID(int=1),
        host="h", data_root=tmp_path, environment=dict(os.environ),
    )  # fmt: skip
    worker = supervisor.Supervisor(settings)
    runs = threading.Thread(target=worker.run)
    runs.start()
    training = pid_of(tmp_path, 0)
    worker.request_stop()
    runs.join(DEADLINE_S)
    assert not runs.is_alive()
    until(lambda: gone(training), "the end of the training process")
    coordinator.asked.clear()
    coordinator.answer = lambda _: None
    wake.set()
    assert start("--until-idle", "0.1").ends() == 0
    coordinator.wait_for("DELETE .*token0.reason=sigterm")


def test_an_idle_or_unconnected_worker_ends_at_once(coordinator: Coordinator, start: Callable[..., Worker]):
    coordinator.answer = lambda _: 503
    worker = start()
    coordinator.wait_for("workers")
    worker.process.send_signal(signal.SIGINT)
    assert worker.ends() == 0, worker.log


def test_the_second_signal_ends_at_once_and_the_lease_stays_in_the_folder(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    coordinator.offer("ctx.progress(0)\ntime.sleep(300)", tmp_path)
    worker = start()
    training = pid_of(tmp_path, 0)
    worker.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in worker.log, "the first signal")
    worker.process.send_signal(signal.SIGINT)
    assert worker.ends() == 130
    assert gone(training)
    assert (tmp_path / "folder" / "leases" / "token0.json").exists()


def test_heartbeats_go_on_while_the_training_process_is_busy_or_stopped(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    # sum() over an iterator in C never gives up the interpreter lock.
    coordinator.offer("ctx.progress(0.25)\nsum(itertools.repeat(1, 10**11))", tmp_path)
    worker = start()
    training = pid_of(tmp_path, 0)
    coordinator.wait_for("PUT .*token0", 5)
    os.kill(training, signal.SIGSTOP)
    seen = len(coordinator.of("PUT"))
    beat = coordinator.wait_for("PUT .*token0", seen + 5)
    assert beat.body["progress"] == 0.25
    worker.process.kill()
    worker.process.wait()
    until(lambda: gone(training), "the end of a stopped training process")


def test_failures_are_told_by_kind_and_the_slot_goes_on(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer("return {'map50': float('nan')}", tmp_path)
    coordinator.offer("raise KeyError('boom')", tmp_path)
    coordinator.offer("print('last words')\nos.kill(os.getpid(), signal.SIGSEGV)", tmp_path)
    coordinator.offer("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    coordinator.offer(QUICK, tmp_path, hyp={"lr0": 0.5})
    coordinator.offer(QUICK, tmp_path)
    worker = start("--max", "6")
    assert worker.ends() == 0, worker.log
    told = {asked.path.split("/")[-2]: asked.body for asked in coordinator.of("failure$")}
    assert {token: body["kind"] for token, body in told.items()} == {
        "token0": "nan", "token1": "crash", "token2": "crash", "token3": "oom", "token4": "data",
    }  # fmt: skip
    assert "KeyError: 'boom'" in told["token1"]["detail"]
    assert "SIGSEGV" in told["token2"]["detail"]
    assert "last words" in told["token2"]["detail"]
    assert len(coordinator.of("token5/result$")) == 1
    assert pid_of(tmp_path, 0) == pid_of(tmp_path, 1) == pid_of(tmp_path, 2), "the process stays warm between candidates"
    assert "bccd #1 failed (crash): KeyError: 'boom' (trainer_1.py:4)" in worker.log


def test_a_failure_shows_what_its_own_training_printed(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer("print('x' * 5000, flush=True)\nreturn {'map50': 0.1}", tmp_path)
    coordinator.offer("print('mine', flush=True)\nos._exit(3)", tmp_path)
    start()
    detail = coordinator.wait_for("POST .*token1/failure").body["detail"]
    assert detail == "mine\nthe training process died (exit status 3)"


def test_cancel_stops_a_training_without_a_failure(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer(FOR_EVER, tmp_path)
    coordinator.offer(QUICK, tmp_path)
    coordinator.command = lambda token: "cancel" if token == "token0" else "continue"
    worker = start("--max", "2")
    assert worker.ends() == 0, worker.log
    assert coordinator.of("DELETE|failure|token0/result") == []
    assert len(coordinator.of("token1/result")) == 1
    assert pid_of(tmp_path, 0) == pid_of(tmp_path, 1)


def test_drain_finishes_the_training_and_asks_no_more(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer(f"while not os.path.exists('go'):\n    ctx.progress(0)\n    time.sleep(0.01)\n{QUICK}", tmp_path)
    coordinator.offer(QUICK, tmp_path)
    coordinator.command = lambda _: "drain"
    worker = start()
    until(lambda: "asks to drain" in worker.log, "drain")
    (tmp_path / "go").touch()
    assert worker.ends() == 0, worker.log
    assert len(coordinator.of("result$")) == 1
    assert len(coordinator.leases) == 1


def test_an_outage_costs_a_training_nothing(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    body = "for e in range(30):\n    ctx.report(e, map50=e / 100)\nopen('reported', 'w')\nreturn {'map50': 0.3}"
    coordinator.offer(body, tmp_path)
    coordinator.answer = lambda asked: "drop" if "token0" in asked.path else None
    worker = start("--max", "1")
    coordinator.wait_for("result$|epochs$", 3)
    until(lambda: list((tmp_path / "folder" / "outbox").iterdir()), "the spooled result")
    coordinator.asked.clear()
    coordinator.answer = lambda _: None
    assert worker.ends() == 0, worker.log
    epochs = [epoch["epoch"] for asked in coordinator.of("epochs$") for epoch in asked.body["epochs"]]
    assert sorted(set(epochs)) == list(range(30))
    assert coordinator.of("epochs$")[0].at < coordinator.of("result$")[-1].at


def test_a_silent_training_fails_where_a_limit_is_set(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer("time.sleep(300)", tmp_path)
    worker = start("--max", "1", "--stall", "0.3")
    assert worker.ends() == 0, worker.log
    assert coordinator.of("failure$")[0].body["kind"] == "timeout"


def test_a_node_that_cannot_train_hands_back_and_ends(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    coordinator.offer("", tmp_path, trainer={"kind": "python", "python": "nowhere:train"})
    worker = start()
    assert worker.ends() == 1
    assert [asked.path for asked in coordinator.of("DELETE")] == ["/api/v1/leases/token0?reason=not_installed"]
    assert worker.log.splitlines()[-1].startswith("worker: node-1/cpu0: bccd #0 handed back: trainer python nowhere:train")


def test_a_node_without_the_data_hands_back_and_ends(coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path):
    pytest.importorskip("torch")
    coordinator.offer("", tmp_path, trainer={"kind": "detector"}, base={"data": "digits/data.yaml", "imgsz": 32})
    worker = start()
    assert worker.ends() == 1
    assert [asked.path for asked in coordinator.of("DELETE")] == ["/api/v1/leases/token0?reason=no_data"]
    assert coordinator.of("failure") == []
    assert f"base.data: {tmp_path}/digits/data.yaml does not exist; " in worker.log.splitlines()[-1]
    assert f"(--data-root is {tmp_path})" in worker.log.splitlines()[-1]


def test_a_gpu_that_is_not_there_ends_the_worker_before_it_asks(coordinator: Coordinator, start: Callable[..., Worker]):
    torch = pytest.importorskip("torch")
    if Path("/dev/nvidiactl").exists() and not torch.version.cuda:
        pytest.skip("a driver without a torch for it: a command may have its own")
    worker = start("--devices", "cuda:99")
    assert worker.ends() == 1
    assert worker.log.startswith(f"worker: --devices: cuda:99 is not there; torch {torch.__version__} sees ")
    assert len(worker.log.splitlines()) == 1
    assert coordinator.asked == []


def test_a_campaign_that_is_not_known_is_named_and_waited_for(
    coordinator: Coordinator, start: Callable[..., Worker], tmp_path: Path
):
    worker = start("--campaign", "nosuch", "--campaign", "mine", "--max", "1")
    until(lambda: f"no campaign nosuch at {coordinator.url}; it has bccd, mine; waiting for it" in worker.log, "the remark")
    coordinator.offer(QUICK, tmp_path, campaign="nosuch")
    assert worker.ends() == 0, worker.log
    assert worker.log.count("no campaign") == 1


def test_time_without_an_answer_counts_as_idle(coordinator: Coordinator, start: Callable[..., Worker]):
    coordinator.answer = lambda _: 503
    worker = start("--until-idle", "0.5")
    assert worker.ends() == 7, worker.log
    assert f"no answer from {coordinator.url} within 0.5 s (--until-idle); is it running" in worker.log.splitlines()[-1]


def test_a_coordinator_that_falls_silent_does_not_keep_an_idle_worker(coordinator: Coordinator, start: Callable[..., Worker]):
    coordinator.answer = lambda asked: "drop" if asked.path.endswith("/leases") else None
    worker = start("--until-idle", "0.5")
    assert worker.ends() == 0, worker.log


def test_a_second_worker_on_the_same_folder_gets_one_line(coordinator: Coordinator, start: Callable[..., Worker]):
    start()
    coordinator.wait_for("workers")
    second = start()
    assert second.ends() == 4
    assert second.log.splitlines() == [line for line in second.log.splitlines() if "another worker is using the folder" in line]
    assert len(second.log.splitlines()) == 1


def test_a_coordinator_that_refuses_ends_the_worker_with_its_reason(coordinator: Coordinator, start: Callable[..., Worker]):
    coordinator.answer = lambda asked: 404 if asked.path.endswith("/leases") else None
    worker = start("--campaign", "typo")
    assert worker.ends() == 3
    assert "404" in worker.log.splitlines()[-1]
