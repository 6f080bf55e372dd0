"""Trainings killed at random moments go on elsewhere: ``python -m benchmarks.resume --kills 20 --seed 0 --json OUT``.

One training of the built-in detector runs undisturbed. Then, for each kill, a worker process is ended with SIGKILL at a random
moment after it has sent a checkpoint, training process and all; its lease expires, and another worker process, with an empty
folder of its own, gets the candidate and its checkpoint from the coordinator. Weights, metrics and learning curve must be those
of the undisturbed training, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.heartbeats import coordinator
from detector import digits
from hypevolve import messages
from hypevolve.client import Client

COUNTS = {"train": 32, "val": 8}
BASE = {"model": "yolov5n", "imgsz": 96, "batch": 4, "nominal_batch": 8}
LEASE = {"heartbeat": "250ms", "expire": "2s", "checkpoint": "500ms"}
PATIENCE_S = 900.0  # a machine may be busy


def measure(url: str, folder: Path, kills: int, seed: int, epochs: int = 6) -> dict[str, Any]:
    """What came out of ``kills`` killed trainings at the coordinator ``url``, beside the undisturbed one.

    Raises:
        SystemExit: a training never ended; names its worker's log.
    """
    chance = random.Random(seed)
    digits.write(folder / "digits", counts=COUNTS)
    with Client(url) as client:
        whole = _finished(client, folder, _create(client, "whole", epochs))
        length_s = whole.seconds or 0.0
        found: list[tuple[dict[str, Any], dict[str, Any]]] = []
        too_late = 0
        while len(found) < kills:  # a kill that came after the end of its training is none
            row, facts = _killed(client, folder, f"killed-{len(found) + too_late}", epochs, chance, length_s)
            if row["attempts"] > 1:
                found.append((row, facts))
            else:
                too_late += 1
        expected = _facts(client, "whole")
    rows = [{**row, "bit_identical": facts == expected} for row, facts in found]
    return {
        "kills": kills,
        "kills_too_late": too_late,
        "epochs": epochs,
        "bit_identical": sum(row["bit_identical"] for row in rows),
        "weights_hash": whole.weights_hash,
        "trainings": rows,
    }


def _create(client: Client, name: str, epochs: int) -> str:
    document = {
        "name": name,
        "base": {"data": "digits/data.yaml", "epochs": epochs, **BASE},
        "budget": {"candidates": 1},
        "lease": LEASE,
    }
    client.create_campaign(document)
    return name


def _killed(
    client: Client, folder: Path, name: str, epochs: int, chance: random.Random, length_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill a worker in the midst of a training, let another finish it; where it was killed, and what came out."""
    _create(client, name, epochs)
    victim = _worker(client, folder, name, "victim")
    _wait(lambda: _has_checkpoint(client, name), folder, "a checkpoint")
    moment = chance.uniform(0, 0.8)
    _wait(lambda: _progress(client, name) >= moment, folder, "a heartbeat")
    time.sleep(chance.uniform(0, 0.1 * length_s))
    killed_at = _progress(client, name)
    _kill(victim)
    before = client.candidate(name, 0)
    done = _finished(client, folder, name)
    heir = (folder / f"{name}-heir.log").read_text()
    resumed = next((line.rpartition("epoch ")[2] for line in heir.splitlines() if "goes on from its checkpoint" in line), None)
    row = {
        "killed_at": round(killed_at, 3),
        "state_then": before.state,
        "resumed_after_epochs": None if resumed is None else int(resumed),
        "attempts": done.attempts,
    }
    return row, _facts(client, name)


def _facts(client: Client, name: str) -> dict[str, Any]:
    """What must be equal, wall times left out."""
    candidate = client.candidate(name, 0)
    curve = [(row.epoch, row.metrics) for row in client.epochs(name, 0).epochs]
    return {"weights": candidate.weights_hash, "metrics": candidate.metrics, "fitness": candidate.fitness, "curve": curve}


def _progress(client: Client, name: str) -> float:
    """Of the campaign's only training, as its last heartbeat told it; 1 where none is running."""
    return next((lease.progress for worker in client.workers() for lease in worker.leases if lease.campaign == name), 1.0)


def _has_checkpoint(client: Client, name: str) -> bool:
    """Whether the store holds a checkpoint of the campaign's only candidate."""
    return any(candidate.checkpoint_epoch is not None for candidate in client.candidates(name))


def _worker(client: Client, folder: Path, name: str, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "worker", client.url, "--campaign", name, "--name", role, "--devices", "cpu", "--max", "1"]
    command += ["--data-root", str(folder), "--folder", str(folder / "workers" / f"{name}-{role}")]
    log = (folder / f"{name}-{role}.log").open("wb")
    return subprocess.Popen(command, cwd=record.ROOT, stderr=log, start_new_session=True)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """The worker dies; the kernel takes its training process with it."""
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()


def _finished(client: Client, folder: Path, name: str) -> messages.Candidate:
    """The campaign's only candidate, trained to its end by a worker that has nothing of its own."""
    heir = _worker(client, folder, name, "heir")
    try:
        _wait(lambda: client.campaign(name).state == "finished", folder, f"the end of {name}")
    finally:
        heir.terminate()
        heir.wait()
    return client.candidate(name, 0)


def _wait(condition: Any, folder: Path, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise SystemExit(f"{what} never came; see the logs in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill trainings at random moments, resume them on another worker, compare.")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder)) as url:
        figures = measure(url, Path(folder), asked.kills, asked.seed)
    print(json.dumps(figures, indent=1))
    if asked.json:
        record.write(asked.json, seed=asked.seed, results=figures)
    resumed = sum(row["resumed_after_epochs"] is not None for row in figures["trainings"])
    sys.exit(0 if figures["bit_identical"] == resumed == asked.kills else 1)


if __name__ == "__main__":
    main()
