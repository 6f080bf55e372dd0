"""The campaign's network, a process of its own: two doors to the same coordinators, both unreliable.

Simulated workers journal their answers themselves; real ones come through the second door, which journals for them.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.chaos.journal import Journal
from benchmarks.chaos.proxy import Fault, HttpProxy

# Of the requests that are harmed, how many in which way.
SHARES: dict[Fault, float] = {"drop": 0.4, "twice": 0.3, "hold": 0.2, "cut": 0.05, "mute": 0.05}


@dataclass(frozen=True)
class Settings:
    """``lossy`` is the share of requests that are harmed, ``hold_s`` the longest an answer is held back."""

    coordinators: list[int]
    journals: Path
    run: int
    seed: int
    lossy: float
    hold_s: float


def run(settings: Settings, done: Any, ports: Connection, diary: Path) -> None:
    """Serve until SIGTERM. ``done`` counts acknowledged results, ``ports`` is told the numbers of the two doors."""
    chance = random.Random(settings.seed + settings.run)

    def choose(_line: Mapping[str, Any]) -> Fault | None:
        if chance.random() >= settings.lossy:
            return None
        fault = chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
        with diary.open("a") as told:
            told.write(json.dumps({"what": "network", "fault": fault}) + "\n")
        return fault

    def acknowledged() -> None:
        with done.get_lock():
            done.value += 1

    upstreams = [("127.0.0.1", port) for port in settings.coordinators]
    shared: dict[str, Any] = {
        "hold_s": settings.hold_s,
        "acknowledged": acknowledged,
        "doubles": Journal(settings.journals / f"doubles-{settings.run}.jsonl"),
    }
    observer = Journal(settings.journals / f"observer-{settings.run}.jsonl")
    with HttpProxy(upstreams, choose, **shared) as ours, HttpProxy(upstreams, choose, journal=observer, **shared) as observed:
        ports.send((ours.port, observed.port))
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
