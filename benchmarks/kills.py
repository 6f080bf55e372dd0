"""A campaign of real trainings through ``kill -9`` of everything: ``python -m benchmarks.kills --kills 3 --seed 0 --json OUT``.

At random moments every process of ``hypevolve run`` is killed: the command itself, coordinator, PostgreSQL, workers and
trainings. The same command is given again each time. Afterwards the rows are counted in the database.
"""

from __future__ import annotations

import argparse
import contextlib
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

from sqlalchemy import create_engine, text

from benchmarks import record
from detector import digits
from server.postgres import EmbeddedPostgres

CANDIDATES = 10
BASE = {**digits.DEMO_BASE, "epochs": 2}


def campaign(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Run, kill ``kills`` times, run to the end; what is in the database then."""
    chance = random.Random(seed)
    digits.write(folder / "digits")
    document = {"name": "kills", "base": {"data": "digits/data.yaml", **BASE}, "budget": {"candidates": CANDIDATES}}
    (folder / "campaign.yaml").write_text(json.dumps(document))
    command = [sys.executable, "-m", "hypevolve", "run", "campaign.yaml", "--folder", "run", "--json"]
    killed, resumed, before = [], [], 0
    for number in range(kills):
        said = folder / f"said-{number}"
        running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said.open("w"))
        _wait_for_more(folder, before)
        time.sleep(chance.uniform(0, 4))
        victims = _processes(folder)
        chance.shuffle(victims)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.wait()
        before = _finished(folder)
        killed.append(len(victims))
        resumed += [line.strip() for line in said.read_text().splitlines() if line.startswith("resumed")]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    resumed += [line.strip() for line in done.stderr.splitlines() if line.startswith("resumed")]
    with EmbeddedPostgres(folder / "run/database") as postgres:
        rows = _count(postgres.url)
    return {"processes_killed": killed, "resumed": resumed, "last_run_s": round(time.monotonic() - began, 1), **rows}


def _wait_for_more(folder: Path, before: int) -> None:
    """Until more candidates are done than before."""
    deadline = time.monotonic() + 300
    while _finished(folder) <= before:
        if time.monotonic() > deadline:
            raise SystemExit(f"no candidate finished in five minutes; see {folder / 'run/logs'}")
        time.sleep(0.1)


def _finished(folder: Path) -> int:
    """How many trainings the workers have logged as done."""
    return sum(path.read_text(errors="replace").count(" done ") for path in (folder / "run/logs").glob("worker-*.log"))


def _processes(folder: Path) -> list[int]:
    """Every process that works in the folder or names it, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            if int(process.name) != os.getpid() and (
                str(folder) in words or os.readlink(process / "cwd").startswith(str(folder))
            ):
                found.append(int(process.name))
    return found


def _count(url: str) -> dict[str, Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(
            text(
                """
                select (select count(*) from candidate) as candidates,
                       (select count(*) from candidate where state = 'done') as done,
                       (select count(distinct number) from candidate) as numbers,
                       (select count(distinct hyp_hash) from candidate) as hyp_sets,
                       (select count(*) from result where counts) as results_counted,
                       (select count(*) from attempt) as attempts,
                       (select count(*) from attempt where outcome = 'released') as released,
                       (select count(*) from attempt where outcome = 'lost') as lost
                """
            )
        ).one()
    engine.dispose()
    return dict(row._mapping)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill everything at random moments, resume, count.")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = campaign(Path(folder), asked.kills, asked.seed)
    print(json.dumps(figures, indent=1))
    exact = figures["candidates"] == figures["done"] == figures["numbers"] == figures["results_counted"] == CANDIDATES
    if asked.json:
        record.write(asked.json, seed=asked.seed, results=figures | {"planned": CANDIDATES, "exact": exact})
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
