"""One fault campaign: who is started, what is killed and when, and how it ends.

Faults are bound to progress (so many results acknowledged), not to time, so that a slow machine sees the same campaign. The
folder keeps everything: the same command on the same folder goes on where it was broken off.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from sqlalchemy.engine import make_url

from benchmarks.chaos import history, journal, network, node, verdict
from benchmarks.chaos.figures import figures
from benchmarks.chaos.plan import NAME, RETRIES, TRAINER, Plan
from benchmarks.record import ROOT
from hypevolve.client import Client, RetryPolicy
from server.postgres import EmbeddedPostgres

STARTING_S = 60.0  # in which a coordinator on a busy machine may still be importing, and SIGTERM simply ends it


class Campaign:
    """Everything that runs, as a context manager.

    Args:
        coordinator: the program of a coordinator; tests put one with a planted defect here.
        planted: called with the database's URL before the rows are judged; for tests.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        seed: int,
        *,
        coordinator: tuple[str, ...] = ("-m", "server"),
        planted: Callable[[str], None] = lambda _url: None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.plan = plan
        self.outages: list[tuple[float, float]] = []
        self.happened: Counter[str] = Counter()
        self._seed = seed
        self._chance = random.Random(seed)
        self._program = coordinator
        self._planted = planted
        self._say = say
        self._folder = folder
        self._journals = folder / "journals"
        self._journals.mkdir(parents=True, exist_ok=True)
        (folder / "chaos_trainer.py").write_text(TRAINER)
        self._diary = folder / "faults.jsonl"  # what was done to whom: read again where a campaign goes on
        self._run = sum(1 for _ in self._told("begun"))
        self._names = itertools.count(1 + 100_000 * self._run)
        # Deep enough that the path is too long for a socket file: PostgreSQL then listens on TCP, as in a real house.
        self._postgres = EmbeddedPostgres(folder / ("database-" + "x" * 80))
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["benchmarks.chaos.node", "benchmarks.chaos.network"])
        self._nodes: dict[BaseProcess, int] = {}
        self._workers: dict[subprocess.Popen[bytes], Path] = {}
        self._coordinators: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._wake: list[tuple[float, int]] = []
        self._logs = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._nodes, *self._workers, *self._coordinators.values()]:
            with contextlib.suppress(ProcessLookupError, AttributeError):
                os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        for popen in [*self._workers, *self._coordinators.values()]:
            popen.wait()
        if hasattr(self, "_network"):
            self._network.kill()
        self._postgres.stop()
        self._logs.close()
        self._note("ended")

    # ---- the course of it ----------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Start everybody, harm them as planned until the campaign is finished, judge.

        Returns:
            The figures; ``clean`` is False where anything was lost, doubled, illegal, slow or left undone.
        """
        began = time.monotonic()
        self._note("begun")
        for told in self._told("fault"):
            self.happened[told["fault"]] += 1
        self.outages += [(told["from"], told["to"]) for told in self._told("outage")]
        self._postgres.start()
        ports = [_free_port() for _ in range(self.plan.coordinators)]
        for port in ports:
            self._start_coordinator(port)
        self._start_network(ports)
        finished = self._go(began + self.plan.limit_s)
        seconds = time.monotonic() - began
        self._say(f"{'finished' if finished else 'NOT finished'} after {seconds:.0f} s; counting")
        self._send_home()
        self._planted(self._postgres.url)
        dsn = make_url(self._postgres.url).set(drivername="postgresql").render_as_string(False)
        found = verdict.judge(
            journal.read(self._journals),
            history.read(dsn, NAME),
            planned=self.plan.candidates,
            retries=RETRIES,
            poisoned=node.poisoned,
            lease_s=self.plan.lease_s,
            outages=self.outages,
        )
        harmed = Counter(told["fault"] for told in self._told("network"))
        return figures(self.plan, self.happened, harmed, found, finished, seconds)

    def _go(self, deadline: float) -> bool:
        """Until every candidate is finished (True) or time is up."""
        with Client(self._url, timeout_s=10, retry=RetryPolicy(patience_s=60, cap_s=1)) as people:
            people.create_campaign(self.plan.document(self._seed))
            for _ in range(self.plan.clients):
                self._start_node()
            for _ in range(self.plan.workers):
                self._start_worker(self._folder / f"worker-{next(self._names)}")
            due = self.plan.schedule(self._chance, self.happened)
            look = 0.0
            while time.monotonic() < deadline:
                while due and due[0][0] <= self._done.value:
                    self._harm(due.pop(0)[1])
                self._tend()
                if time.monotonic() > look:
                    look = time.monotonic() + 2
                    with contextlib.suppress(Exception):
                        if people.campaign(NAME).state == "finished":
                            return True
                    self._say(f"{self._done.value} of {self.plan.candidates}; {dict(self.happened)}")
                time.sleep(0.05)
        return False

    def _send_home(self) -> None:
        """Everybody ends as in an orderly shutdown; what the frozen still have to say is heard."""
        heard = self._said_by_frozen()
        for _, pid in self._wake:
            _signal(pid, signal.SIGCONT)
        give_up = time.monotonic() + 2 * node.TIMEOUT_S
        while time.monotonic() < give_up and any(self._said_by_frozen()[pid] == before for pid, before in heard.items()):
            time.sleep(0.1)
        for process in [*self._nodes, *self._workers]:
            _signal(process.pid, signal.SIGTERM)
        give_up = time.monotonic() + 30
        for popen in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(max(give_up - time.monotonic(), 0.1))
        for fork in self._nodes:
            fork.join(max(give_up - time.monotonic(), 0.1))
        self._network.terminate()
        self._network.join(10)
        for process in self._coordinators.values():
            process.terminate()
        for port, process in self._coordinators.items():
            young = time.monotonic() - self._started[port] < STARTING_S
            if process.wait(20) not in ((0, -signal.SIGTERM) if young else (0,)):
                self.happened["coordinator ended badly"] += 1

    def _said_by_frozen(self) -> dict[int, int]:
        """How much each process that sleeps has in its journal, so that it is seen when it has got an answer again."""
        journals = {process.pid: f"node-{self._node_seed(number)}" for process, number in self._nodes.items()}
        paths = {pid: self._journals / f"{journals.get(pid, f'observer-{self._run}')}.jsonl" for _, pid in self._wake}
        return {pid: path.stat().st_size for pid, path in paths.items() if path.exists()}

    # ---- who is there --------------------------------------------------------------------------------------------------------

    def _start_coordinator(self, port: int) -> None:
        log = self._logs.enter_context((self._folder / f"coordinator-{port}.log").open("ab"))
        command = [sys.executable, *self._program, "--port", str(port), "--db", self._postgres.url]
        self._started[port] = time.monotonic()
        self._coordinators[port] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def _start_network(self, ports: list[int]) -> None:
        self._done = self._forks.Value("i", 0)
        told, tell = self._forks.Pipe(duplex=False)
        settings = network.Settings(ports, self._journals, self._run, self._seed, self.plan.lossy, self.plan.lease_s / 3)
        self._network = self._forks.Process(target=network.run, args=(settings, self._done, tell, self._diary), daemon=True)
        self._network.start()
        if not told.poll(60):
            raise RuntimeError("the proxies did not start")
        ours, observed = told.recv()
        self._url, self._observed = f"http://127.0.0.1:{ours}", f"http://127.0.0.1:{observed}"
        before = sum(line["do"] == "result" and line.get("status") == 201 for line in journal.read(self._journals))
        self._done.value = before

    def _start_node(self) -> None:
        number = next(self._names)
        arguments = (self._url, self._journals, self._node_seed(number), self.plan.lease_s)
        process = self._forks.Process(target=node.run, args=arguments, daemon=True)
        process.start()
        self._nodes[process] = number

    def _node_seed(self, number: int) -> int:
        return 1_000_000 * self._seed + number

    def _start_worker(self, folder: Path) -> None:
        """A real worker. Its answers are journaled by the proxy that it speaks through."""
        log = self._logs.enter_context(folder.with_suffix(".log").open("ab"))
        command = [sys.executable, "-m", "worker", self._observed, "--folder", str(folder), "--name", folder.name]
        command += ["--devices", "cpu", "--data-root", str(self._folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        popen = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True)
        self._workers[popen] = folder

    def _tend(self) -> None:
        """Wake the frozen, put somebody in the place of everybody who is gone."""
        while self._wake and self._wake[0][0] <= time.monotonic():
            _signal(heapq.heappop(self._wake)[1], signal.SIGCONT)
        for fork in [fork for fork in self._nodes if not fork.is_alive()]:
            del self._nodes[fork]
            self._start_node()
        for popen, folder in [(popen, folder) for popen, folder in self._workers.items() if popen.poll() is not None]:
            del self._workers[popen]
            # The same folder is a node that came back, a new one is a node that never does.
            self._start_worker(folder if self._chance.random() < 0.5 else self._folder / f"worker-{next(self._names)}")
        for port, process in self._coordinators.items():
            if process.poll() is not None:
                if process.returncode != -signal.SIGKILL and not self._outage_lately():
                    self.happened["coordinator died by itself"] += 1
                self._start_coordinator(port)

    def _outage_lately(self) -> bool:
        """A coordinator started while there was no database ends with one line; whoever keeps it running starts it again."""
        return bool(self.outages) and time.time() - self.outages[-1][1] < 10

    # ---- what is done to them ------------------------------------------------------------------------------------------------

    def _harm(self, fault: str) -> None:
        self.happened[fault] += 1
        self._note("fault", fault=fault)
        if fault == "database crashed":
            self._crash_database()
        elif fault == "coordinator killed":
            _signal(self._chance.choice(list(self._coordinators.values())).pid, signal.SIGKILL)
        elif fault == "preemption storm":
            everybody = [*self._nodes, *self._workers]
            for process in self._chance.sample(everybody, len(everybody) // 4):
                _signal(process.pid, signal.SIGTERM)
        else:
            asleep = {pid for _, pid in self._wake}
            awake = [process for process in [*self._nodes, *self._workers] if process.pid not in asleep]
            victim = self._chance.choice(awake).pid
            if fault == "worker killed":
                _signal(victim, signal.SIGKILL)
            else:
                _signal(victim, signal.SIGSTOP)
                until = time.monotonic() + self._chance.uniform(0.5, 3) * self.plan.lease_s
                heapq.heappush(self._wake, (until, victim or 0))

    def _crash_database(self) -> None:
        """Every second crash is an immediate shutdown, the others kill the server's first process."""
        began = time.time()
        pid = self._postgres.pid
        _signal(pid, signal.SIGQUIT if self.happened["database crashed"] % 2 else signal.SIGKILL)
        while self._postgres.alive():
            time.sleep(0.01)
        self._postgres.start()
        self.outages.append((began, time.time()))
        self._note("outage", **{"from": began, "to": time.time()})

    # ---- the diary -----------------------------------------------------------------------------------------------------------

    def _note(self, what: str, **more: Any) -> None:
        with self._diary.open("a") as diary:
            diary.write(json.dumps({"what": what, **more}) + "\n")

    def _told(self, what: str) -> Iterator[dict[str, Any]]:
        if self._diary.exists():
            for line in self._diary.read_text().splitlines():
                told = json.loads(line)
                if told["what"] == what:
                    yield told


def _signal(pid: int | None, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
