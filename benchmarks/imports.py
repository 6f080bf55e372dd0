"""How long results of earlier evolutions take to import: ``python -m benchmarks.imports --rows 100000 --json OUT``.

A file of that many rows with the 29 genes of yolov5 goes into a campaign of a real coordinator through the client that
``hypevolve import`` uses, while another client asks that coordinator for its campaigns.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import record
from benchmarks.heartbeats import coordinator
from evolution.earlier_results import read_result_file
from evolution.hyperparameters import lineage_space
from evolution.result_files import ResultRow, evolve_csv
from hypevolve.client import Client

SEED = 0
METRICS = {"precision": 0.5, "recall": 0.5, "map50": 0.4, "map50_95": 0.2, "val_box": 0.05, "val_obj": 0.06, "val_cls": 0.01}


def measure(rows: int) -> dict[str, float]:
    """Seconds of reading and of sending, the client's processor seconds, and how long others waited meanwhile."""
    space, chance = lineage_space(), np.random.default_rng(SEED)
    draws = chance.random((rows, len(space)))
    made = (
        ResultRow(n, {g.name: g.lower + x * (g.upper - g.lower) for g, x in zip(space, line, strict=True)}, METRICS, 0.22)
        for n, line in enumerate(draws.tolist())
    )
    text = "".join(evolve_csv(space, made))
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder)) as url, Client(url) as client:
        client.create_campaign({"name": "taker", "base": {"data": "d.yaml", "epochs": 3}, "evolve": {"strategy": "hybrid"}})
        over, waits = threading.Event(), []

        def ask() -> None:
            with Client(url) as other:
                while not over.is_set():
                    began = time.perf_counter()
                    other.campaign("taker")
                    waits.append(time.perf_counter() - began)
                    time.sleep(0.1)

        asking = threading.Thread(target=ask)
        asking.start()
        began, cpu = time.perf_counter(), time.process_time()
        found = read_result_file("evolve.csv", text, space)
        read = time.perf_counter()
        answer = client.import_rows("taker", [{"hyp": row.hyp, "metrics": row.metrics} for row in found])
        done = time.perf_counter()
        over.set()
        asking.join()
        assert (answer.imported, answer.known) == (rows, 0)
        return {
            "rows": rows,
            "file_mb": round(len(text) / 1e6, 1),
            "read_s": round(read - began, 2),
            "import_s": round(done - read, 2),
            "rows_per_s": round(rows / (done - began)),
            "client_cpu_s": round(time.process_time() - cpu, 2),
            "client_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "others_wait_p50_ms": round(1000 * float(np.quantile(waits, 0.5)), 1),
            "others_wait_max_ms": round(1000 * max(waits), 1),
            "load": round(os.getloadavg()[0], 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    found = measure(asked.rows)
    record.write(asked.json, seed=SEED, results=found)
    print(found)


if __name__ == "__main__":
    main()
