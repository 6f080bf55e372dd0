"""One simulated worker in a process of its own: the real client, a training that is a pause, a journal of every answer."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.chaos.journal import Journal, Recording
from evolution.fitness import fitness
from hypevolve import messages
from hypevolve.client import FOREVER, Client
from hypevolve.errors import HypevolveError

WAIT_S = 2.0  # as long does a node that is sent home wait for its last answer
TIMEOUT_S = 6.0
POISON_EVERY = 97  # one candidate of so many fails wherever it is trained


def poisoned(number: int) -> bool:
    return number % POISON_EVERY == 13


def metrics_of(hyp: dict[str, float]) -> dict[str, float]:
    """What a training with this hyp set measures: best at x = 0.7, y = 0.2."""
    quality = 1 - (hyp["x"] - 0.7) ** 2 - 0.3 * (hyp["y"] - 0.2) ** 2
    return {"precision": quality, "recall": quality, "f1": quality, "map50": quality, "map50_95": quality / 2}


def run(url: str, folder: Path, seed: int, lease_s: float) -> None:
    """Work until SIGTERM or until the campaign's process is gone."""
    _Node(url, folder, seed, lease_s).run()


class _Node:
    def __init__(self, url: str, folder: Path, seed: int, lease_s: float) -> None:
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._lease_s = lease_s
        self._id = uuid.UUID(int=self._chance.getrandbits(128), version=4)
        journal = Journal(folder / f"node-{seed}.jsonl")
        # One that repeats for ever, and one for the last words of a node that has to go.
        self._client = Client(url, transport=Recording(journal), timeout_s=TIMEOUT_S, retry=FOREVER, stop=self._stop)
        self._parting = Client(url, transport=Recording(journal), timeout_s=TIMEOUT_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())

    def run(self) -> None:
        self._client.register(messages.RegisterWorker(worker=self._id, name=f"node-{str(self._id)[:8]}"))
        parent = multiprocessing.parent_process()
        while not self._stop.is_set() and (parent is None or parent.is_alive()):
            try:
                request = messages.Ask(request_id=uuid.UUID(int=self._chance.getrandbits(128), version=4), worker=self._id)
                for lease in self._client.ask(request, wait_s=WAIT_S):
                    self._hold(lease)
            except HypevolveError:
                continue  # told to stop while nobody answered, or refused: the journal has it, and the check judges

    def _hold(self, lease: messages.Lease) -> None:
        if not self._train(lease):
            return
        if self._stop.is_set():
            self._parting.release(lease.token, "sigterm")
        elif poisoned(lease.number):
            self._client.post_failure(lease.token, messages.Failure(kind="nan", detail="loss is nan"))
        else:
            result = self._result(lease)
            for _ in range(2 if self._chance.random() < 0.1 else 1):
                self._client.put_result(lease.candidate, lease.token, result)

    def _train(self, lease: messages.Lease) -> bool:
        """Some trainings outlast the lease by far. False where the coordinator said cancel."""
        long = self._chance.random() < 0.03
        over = time.monotonic() + (self._chance.uniform(1, 2) * self._lease_s if long else self._chance.uniform(0.05, 0.5))
        if self._chance.random() < 0.2:
            epochs = messages.Epochs(epochs=[messages.Epoch(epoch=0, metrics={"map50": 0.1})])
            self._client.post_epochs(lease.token, epochs)
        while (left := over - time.monotonic()) > 0 and not self._stop.wait(min(left, lease.beat_s)):
            if left <= lease.beat_s:
                break
            try:
                beat = messages.Heartbeat(epoch=1, progress=0.5)
                answer = self._client.heartbeat(lease.token, beat, deadline_s=lease.beat_s)
            except HypevolveError:
                continue  # a worker without answers keeps training
            if answer.command == "cancel":
                return False
        return True

    def _result(self, lease: messages.Lease) -> messages.Result:
        metrics: dict[str, Any] = metrics_of(lease.hyp)
        return messages.Result(
            metrics=metrics,
            fitness=fitness(metrics, lease.weights),
            hyp_hash=lease.hyp_hash,
            rung=lease.rung,
            seconds=0.1,
            epochs=lease.epochs,
        )
