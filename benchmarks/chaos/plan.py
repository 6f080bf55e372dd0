"""What a fault campaign consists of: its size, what goes wrong how often and when, and what is trained meanwhile."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.node import POISON_EVERY

NAME = "chaos"
RETRIES = 1
# The python trainer of the real workers; it fails with a poisoned candidate in three ways.
TRAINER = f"""
import os, signal, time
from benchmarks.chaos.node import metrics_of, poisoned

def train(ctx):
    number = int(ctx.name.rpartition("-")[2])
    time.sleep(0.05 + (number % 10) / 20)
    ctx.report(0, map50=0.1)
    if poisoned(number):
        kind = number // {POISON_EVERY} % 3
        if kind == 0:
            return {{"map50": float("nan"), "map50_95": 0.0}}
        if kind == 1:
            raise MemoryError
        os.kill(os.getpid(), signal.SIGSEGV)
    return metrics_of(ctx.hyp)
"""


@dataclass(frozen=True)
class Plan:
    """How large a campaign is and how often each thing goes wrong. ``lossy`` is the share of requests that are harmed."""

    candidates: int
    clients: int
    workers: int  # real `python -m worker` processes
    coordinators: int
    worker_kills: int
    coordinator_kills: int
    database_crashes: int
    zombies: int
    storms: int
    lossy: float = 0.03
    lease_s: float = 6.0
    limit_s: float = 1200.0

    def document(self, seed: int) -> dict[str, Any]:
        """The campaign that is evolved meanwhile."""
        gene = {"gain": 1, "min": 0.01, "max": 1}
        return {
            "name": NAME,
            "base": {"epochs": 1},
            "trainer": {"python": "chaos_trainer:train"},
            "hyp": {"x": 0.5, "y": 0.5},
            "space": {"x": gene, "y": gene},
            "evolve": {"strategy": "yolov5-2021", "seed": seed},
            "budget": {"candidates": self.candidates},
            "retries": {"failed": RETRIES},
            "lease": {"heartbeat": f"{self.lease_s / 4}s", "expire": f"{self.lease_s}s"},
        }

    def schedule(self, chance: random.Random, happened: Mapping[str, int]) -> list[tuple[int, str]]:
        """Faults still to come, each with the number of results at which it happens."""
        planned = {
            "worker killed": self.worker_kills,
            "coordinator killed": self.coordinator_kills,
            "database crashed": self.database_crashes,
            "worker frozen": self.zombies,
            "preemption storm": self.storms,
        }
        due = []
        for fault, n in planned.items():
            for k in range(n):  # spread evenly, each somewhere within its share
                at = self.candidates * (0.03 + 0.87 * (k + chance.random()) / n)
                if k >= happened.get(fault, 0):
                    due.append((int(at), fault))
        return sorted(due)


SHORT = Plan(1000, 22, 2, 2, worker_kills=20, coordinator_kills=3, database_crashes=10, zombies=4, storms=1, limit_s=240)
LONG = Plan(10_000, 192, 8, 3, worker_kills=40, coordinator_kills=10, database_crashes=5, zombies=20, storms=2, lease_s=10.0)
