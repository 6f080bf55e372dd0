"""Ask and tell, ours over HTTP against Optuna's RDB storage, in one run on one PostgreSQL:

    python -m benchmarks.service --rows 10000 --clients 1,8,32 --seconds 10 --json OUT

The coordinator is a process of its own over an embedded PostgreSQL with the durable settings that people get; Optuna's study is
a database of the same server. Clients are processes that ask and tell in a loop and never train. Each cell of strategy, rows
and clients begins from a fresh copy of a database with that many finished candidates.

==================  ==========================================================================================================
cycles_per_s        ask + tell pairs, all clients together
p50_ms, p99_ms      of one pair as its client sees it
commits_per_cycle   transactions committed in the database, reading ones included
wal_syncs_per_cycle of ours: how often PostgreSQL waited for its disk
cpu_ms_per_cycle    processor time of PostgreSQL and of whoever proposes: our coordinator, Optuna's clients
==================  ==========================================================================================================

At the end stands each goal (``benchmarks.service_targets``) with "met" or "MISSED".

Optuna is found in the interpreter given by ``--peers`` (``make bench-service`` makes it in .venv-peers); without it only ours
is measured, and that is said.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from benchmarks import record, service_targets
from benchmarks.counters import cpu_s, quantile_ms
from benchmarks.heartbeats import coordinator
from benchmarks.service_rows import judge, seed
from server.database import migrate, parse_url
from server.postgres import EmbeddedPostgres

PEER = Path(__file__).with_name("optuna_rdb.py")
PEERS = record.ROOT / ".venv-peers/bin/python"
OPTUNA_MOST = 10_000  # finished trials beyond which Optuna is not asked: a cell would take an hour
BEATERS = 8


def _sql(url: str, *statements: str) -> Any:
    """The value of the last statement."""
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


@contextlib.contextmanager
def _copy(server: str, template: str) -> Iterator[str]:
    """The URL of a copy of a database, dropped afterwards."""
    _sql(server, f"create database cell template {template} strategy file_copy", "checkpoint")
    try:
        yield make_url(server).set(database="cell").render_as_string(hide_password=False)
    finally:
        _sql(server, "drop database cell with (force)")


def _commits(server: str) -> int:
    """Transactions of the cell's database; connections are ended first, since they keep what they counted for a while."""
    _sql(
        server,
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'cell' and pid <> pg_backend_pid()",
    )
    time.sleep(0.3)
    return int(_sql(server, "select xact_commit from pg_stat_database where datname = 'cell'"))


def _wal_syncs(server: str) -> int:
    return int(_sql(server, "select wal_sync from pg_stat_wal"))


# ---- ours ------------------------------------------------------------------------------------------------------------------


class _Http:
    """One kept-alive connection; as little of a client as measures the server and not itself."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(self._address, timeout=60)

    def send(self, method: str, path: str, body: Any) -> Any:
        """The decoded answer; 503 is repeated, as every worker does."""
        while True:
            self._connection.request(method, f"/api/v1{path}", json.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            content = answer.read()
            if answer.status == 503:
                time.sleep(0.05)
                continue
            if answer.status >= 300 or answer.status == 204:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return json.loads(content)


def _client(url: str, number: int, seconds: float, begin: Any, answers: Any) -> None:
    connection, worker, rng = _Http(url), str(uuid.UUID(int=number)), random.Random(number)
    cycles, asks = [], []
    begin.wait()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        ask = {"request_id": str(uuid.UUID(int=rng.getrandbits(128))), "worker": worker}
        (lease,) = connection.send("POST", "/leases", ask)["leases"]
        got = time.perf_counter()
        result = judge(lease["hyp"]) | {"hyp_hash": lease["hyp_hash"], "seconds": 1.0, "epochs": 1}
        connection.send("PUT", f"/candidates/{lease['candidate']}/attempts/{lease['token']}/result", result)
        cycles.append(time.perf_counter() - asked)
        asks.append(got - asked)
    answers.put({"cycles": cycles, "asks": asks, "seconds": time.perf_counter() - began})


def _beater(url: str, leases: list[str], stop: Any, answers: Any) -> None:
    """Eight workers' heartbeats, a hundred a second in all."""
    connection, latencies = _Http(url), []
    while not stop.is_set():
        for token in leases:
            sent = time.perf_counter()
            connection.send("PUT", f"/leases/{token}", {"epoch": 1, "progress": 0.5})
            latencies.append(time.perf_counter() - sent)
            time.sleep(0.01)
    answers.put(latencies)


def ours(server: str, postgres: int, strategy: str, rows: int, clients: int, seconds: float, beats: bool) -> dict[str, Any]:
    """One cell of our coordinator."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder), "--db", server) as url:
        pid = json.loads((Path(folder) / "announce.json").read_text())["pid"]
        begin, answers, stop, beaten = context.Barrier(clients + 1), context.Queue(), context.Event(), context.Queue()
        held = []
        if beats:
            asked = {"request_id": str(uuid.uuid4()), "worker": str(uuid.uuid4()), "n": BEATERS}
            held = [lease["token"] for lease in _Http(url).send("POST", "/leases", asked)["leases"]]
        processes = [
            context.Process(target=_client, args=(url, n, seconds, begin, answers), daemon=True) for n in range(clients)
        ]
        if held:
            processes.append(context.Process(target=_beater, args=(url, held, stop, beaten), daemon=True))
        for process in processes:
            process.start()
        commits, syncs, used = _commits(server), _wal_syncs(server), cpu_s(pid) + cpu_s(postgres)
        begin.wait(60)
        done = [answers.get(timeout=seconds + 300) for _ in range(clients)]
        used, syncs = cpu_s(pid) + cpu_s(postgres) - used, _wal_syncs(server) - syncs
        stop.set()
        beat = beaten.get(timeout=60) if held else []
        for process in processes:
            process.join()
        commits = _commits(server) - commits
    cycles = [latency for one in done for latency in one["cycles"]]
    asks = [latency for one in done for latency in one["asks"]]
    cell = {"cycles_per_s": sum(len(one["cycles"]) / one["seconds"] for one in done)}
    cell["wal_syncs_per_cycle"] = round(syncs / max(len(cycles), 1), 2)
    cell |= _figures(cycles, commits, used) | {"ask_p50_ms": quantile_ms(asks, 0.5), "ask_p99_ms": quantile_ms(asks, 0.99)}
    return (
        {"strategy": strategy, "rows": rows, "clients": clients}
        | cell
        | ({"heartbeat_p99_ms": quantile_ms(beat, 0.99)} if beats else {})
    )


def _figures(cycles: list[float], commits: int, used: float) -> dict[str, Any]:
    n = max(len(cycles), 1)
    return {
        "p50_ms": quantile_ms(cycles, 0.5),
        "p99_ms": quantile_ms(cycles, 0.99),
        "commits_per_cycle": round(commits / n, 2),
        "cpu_ms_per_cycle": round(1000 * used / n, 2),
    }


# ---- Optuna ------------------------------------------------------------------------------------------------------------------


def optuna(peers: Path, server: str, postgres: int, sampler: str, rows: int, clients: int, seconds: float) -> dict[str, Any]:
    """One cell of Optuna's RDB storage."""
    commits, before = _commits(server), cpu_s(postgres)
    command = [str(peers), str(PEER), "run", parse_url(server).render_as_string(False), sampler, str(clients), str(seconds)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200).stdout)
    used = cpu_s(postgres) - before + done["cpu_s"]
    cell = {"cycles_per_s": done["cycles_per_s"]} | _figures(done["latencies"], _commits(server) - commits, used)
    return {"strategy": f"optuna-{sampler}", "rows": rows, "clients": clients} | cell


# ---- the run -----------------------------------------------------------------------------------------------------------------


def run(asked: argparse.Namespace, postgres: EmbeddedPostgres) -> Iterator[dict[str, Any]]:
    """Every cell of the request, one after the other."""
    peers = asked.peers if Path(asked.peers).exists() else None
    if asked.samplers and peers is None:
        print(f"Optuna is left out: there is no {asked.peers}; make bench-service installs it", file=sys.stderr)
    assert postgres.pid
    for rows in asked.rows:
        for strategy in asked.strategies:
            _sql(postgres.url, "create database seeded")
            seeded = make_url(postgres.url).set(database="seeded").render_as_string(hide_password=False)
            migrate(seeded)
            seed(seeded, strategy, rows)
            for clients in asked.clients:
                with _copy(postgres.url, "seeded") as cell:
                    yield ours(cell, postgres.pid, strategy, rows, clients, asked.seconds, asked.heartbeats)
            _sql(postgres.url, "drop database seeded with (force)")
        if peers is None or not asked.samplers or rows > OPTUNA_MOST:
            continue
        _sql(postgres.url, "create database seeded")
        seeded = parse_url(postgres.url).set(database="seeded").render_as_string(hide_password=False)
        subprocess.run([str(peers), str(PEER), "seed", seeded, str(rows)], check=True, capture_output=True)
        _sql(seeded, "vacuum analyze")
        for sampler in asked.samplers:
            for clients in asked.clients:
                with _copy(postgres.url, "seeded") as cell:
                    yield optuna(peers, cell, postgres.pid, sampler, rows, clients, asked.seconds)
        _sql(postgres.url, "drop database seeded with (force)")


def _numbers(given: str) -> list[int]:
    return [int(float(number)) for number in given.split(",")]


def _words(given: str) -> list[str]:
    return [word for word in given.split(",") if word]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=_numbers, default=[0, 1000, 10_000], help="finished candidates (default 0,1000,10000)")
    parser.add_argument("--clients", type=_numbers, default=[1, 8, 32], help="default 1,8,32")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell")
    parser.add_argument(
        "--strategies", type=_words, default=["yolov5-2021", "hybrid"], help="ours (default yolov5-2021,hybrid)"
    )
    parser.add_argument(
        "--samplers", type=_words, default=["nsga2", "tpe"], help="Optuna's (default nsga2,tpe; '' leaves it out)"
    )
    parser.add_argument("--peers", type=Path, default=PEERS, help="a Python with optuna and psycopg2 (default %(default)s)")
    parser.add_argument("--heartbeats", action="store_true", help="eight workers beat meanwhile; their p99 is measured too")
    parser.add_argument("--folder", type=Path, help="where the database lies meanwhile (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = []
    with contextlib.ExitStack() as opened:
        folder = asked.folder or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        postgres = opened.enter_context(EmbeddedPostgres(folder / "service"))
        for cell in run(asked, postgres):
            results.append(cell)
            print(
                "  ".join(
                    f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in cell.items()
                ),
                flush=True,
            )
    print(*service_targets.lines(results), sep="\n")
    if asked.json:
        record.write(asked.json, seed=0, results=results)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
