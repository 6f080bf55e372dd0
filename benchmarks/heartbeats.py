"""Heartbeat latency of one coordinator while asks wait: ``python -m benchmarks.heartbeats --waiting 500 --beats 500``.

The coordinator is a real process on an embedded PostgreSQL. The asks wait for a campaign that does not exist, so that they stay
waiting; eight workers beat meanwhile, each with one beat in flight, as workers do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks import record

BEATERS = 8


@contextmanager
def coordinator(folder: Path, *options: str) -> Iterator[str]:
    """The address of a coordinator process, stopped afterwards."""
    announce = folder / "announce.json"
    command = [sys.executable, "-m", "server", "--port", "0", "--folder", str(folder), "--announce", str(announce), *options]
    with subprocess.Popen(command, cwd=record.ROOT, stderr=(folder / "server.log").open("wb")) as process:
        try:
            deadline = time.monotonic() + 60
            while not announce.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "server.log").read_text()[-2000:])
                time.sleep(0.05)
            yield json.loads(announce.read_text())["url"]
        finally:
            process.terminate()


async def measure(url: str, waiting: int, beats: int) -> dict[str, float]:
    """Latencies in milliseconds of ``beats`` heartbeats while ``waiting`` asks wait."""
    limits = httpx.Limits(max_connections=waiting + BEATERS + 2)
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", limits=limits, timeout=60) as http:
        leases = await _leases(http)
        asks = [asyncio.create_task(_wait(http)) for _ in range(waiting)]
        await asyncio.sleep(2)  # until the asks have arrived; they wait for 30 s
        latencies: list[float] = []

        async def beat(token: str, n: int) -> None:
            for _ in range(n):
                begin = time.perf_counter()
                answer = await http.put(f"/leases/{token}", json={"epoch": 1, "progress": 0.5})
                latencies.append((time.perf_counter() - begin) * 1000)
                answer.raise_for_status()
                await asyncio.sleep(0.02)

        await asyncio.gather(*(beat(token, beats // BEATERS) for token in leases))
        still = sum(not ask.done() for ask in asks)
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
    cuts = statistics.quantiles(latencies, n=100)
    return {"waiting": still, "beats": len(latencies), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(latencies)}


async def _leases(http: httpx.AsyncClient) -> list[str]:
    campaign = {
        "name": "beats",
        "base": {"epochs": 1},
        "trainer": {"python": "toy:train"},
        "hyp": {"x": 0.5},
        "space": {"x": {"gain": 1, "min": 0.01, "max": 1}},
        "budget": {"candidates": BEATERS},
    }
    (await http.post("/campaigns", json=campaign)).raise_for_status()
    answer = await http.post("/leases", json=_ask(n=BEATERS))
    return [lease["token"] for lease in answer.json()["leases"]]


async def _wait(http: httpx.AsyncClient) -> None:
    await http.post("/leases", json=_ask(campaigns=["nothing"]), headers={"Prefer": "wait=30"})


def _ask(**body: Any) -> dict[str, Any]:
    return {"request_id": str(uuid.uuid4()), "worker": str(uuid.uuid4()), **body}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--waiting", type=int, default=500)
    parser.add_argument("--beats", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder)) as url:
        figures = asyncio.run(measure(url, asked.waiting, asked.beats))
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if asked.json:
        record.write(asked.json, seed=None, results=figures)


if __name__ == "__main__":
    main()
