"""Goodput under overload: ``python -m benchmarks.overload --clients 8,64 --seconds 5 --rounds 3 --json OUT``.

Workers send one request at a time and wait for its answer, so load grows with their number. Eight that never train already ask
for all that a coordinator can do; several times as many are the overload. Rounds of the two alternate on one coordinator, so
that other load on the machine meets both alike. Meanwhile four workers beat, whose heartbeats must get through.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import record, toy
from benchmarks.counters import quantile_ms
from benchmarks.heartbeats import coordinator
from hypevolve.messages import PREFIX

BEATERS = 4
RESULT = {"metrics": {"map50": 0.5, "map50_95": 0.25}, "fitness": 0.275, "seconds": 1, "epochs": 1}


class _Worker(threading.Thread):
    """Sends one request after the other until it is told to stop; counts answers by status."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.answers: Counter[int] = Counter()
        self.took: list[float] = []
        self._stopped = stop
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._id = str(uuid.uuid4())

    def run(self) -> None:
        while not self._stopped.is_set():
            began = time.perf_counter()
            self.once()
            self.took.append(time.perf_counter() - began)
        self._connection.close()

    def once(self) -> None:
        """Ask and tell."""
        status, said = self.send("POST", "/leases", {"request_id": str(uuid.uuid4()), "worker": self._id})
        if status == 200:
            (lease,) = said["leases"]
            path = f"/candidates/{lease['candidate']}/attempts/{lease['token']}/result"
            self.send("PUT", path, RESULT | {"hyp_hash": lease["hyp_hash"]})

    def send(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self._connection.request(method, f"{PREFIX}{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        self.answers[answer.status] += 1
        if answer.status in (429, 503):
            time.sleep(0.1)
        return answer.status, json.loads(content) if content else None


class _Beater(_Worker):
    """Holds a lease and beats."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(url, stop)
        _, said = self.send("POST", "/leases", {"request_id": str(uuid.uuid4()), "worker": self._id})
        self._token = said["leases"][0]["token"]
        self.answers.clear()

    def once(self) -> None:
        self.send("PUT", f"/leases/{self._token}", {"epoch": 1, "progress": 0.5})
        self._stopped.wait(0.05)

    def waited(self) -> list[float]:
        return [max(took - 0.05, 0.0) for took in self.took]


def measure(url: str, clients: list[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """For each number of clients: results stored in a second, the median of the rounds, and what became of the requests."""
    http_ = _Worker(url, threading.Event())
    status, _ = http_.send("POST", "/campaigns", toy.campaign("overload", 1_000_000))
    assert status == 201, status
    seen: dict[int, list[tuple[float, list[_Worker], list[_Beater]]]] = {n: [] for n in clients}
    for _ in range(rounds):
        for n in clients:
            stop = threading.Event()
            beaters = [_Beater(url, stop) for _ in range(BEATERS)]
            workers = [_Worker(url, stop) for _ in range(n)]
            began = time.perf_counter()
            for worker in [*beaters, *workers]:
                worker.start()
            time.sleep(seconds)
            stop.set()
            for worker in [*beaters, *workers]:
                worker.join()
            stored = sum(worker.answers[201] for worker in workers)
            seen[n].append((stored / (time.perf_counter() - began), workers, beaters))
    return [_figures(n, of) for n, of in seen.items()]


def _figures(clients: int, seen: list[tuple[float, list[_Worker], list[_Beater]]]) -> dict[str, Any]:
    workers = [worker for _, those, _ in seen for worker in those]
    beaters = [beater for _, _, those in seen for beater in those]
    answers = sum((worker.answers for worker in [*workers, *beaters]), Counter())
    return {
        "clients": clients,
        "results_per_s": round(statistics.median(rate for rate, _, _ in seen), 1),
        "p99_ms": quantile_ms([took for worker in workers for took in worker.took], 0.99),
        "beats": sum(beater.answers.total() for beater in beaters),
        "beats_refused": sum(beater.answers.total() - beater.answers[200] for beater in beaters),
        "beat_p99_ms": quantile_ms([took for beater in beaters for took in beater.waited()], 0.99),
        "answers": {str(status): n for status, n in sorted(answers.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", default="8,64", help="of which the first is capacity (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder)) as url:
        cells = measure(url, [int(n) for n in asked.clients.split(",")], asked.seconds, asked.rounds)
    for cell in cells:
        print("  ".join(f"{name} {value}" for name, value in cell.items()))
    share = cells[-1]["results_per_s"] / cells[0]["results_per_s"]
    print(f"goodput under overload: {share:.0%} of that at capacity")
    if asked.json:
        record.write(asked.json, seed=None, results={"share": round(share, 3), "cells": cells})


if __name__ == "__main__":
    main()
