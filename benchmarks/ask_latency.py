"""What a proposal of ``hybrid`` costs: processor time of asks in a row, at sizes from a young campaign to a million rows.

    export OMP_NUM_THREADS=1
    python -m benchmarks.ask_latency --json OUT

Each size is asked 64 times, the number moving on by one, so that the kernel is refitted at its usual rate. A million rows are
shown as the coordinator shows them: the parts that the strategy needs, cut at its limits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.landscapes import Landscape
from evolution.cube import Cube
from evolution.strategy import Candidate, History, Row, candidate_rng, create

ASKS = 64


def measure(rows: int, workers: int, strategy_name: str = "hybrid") -> dict[str, Any]:
    """Milliseconds of an ask at ``rows`` finished candidates with ``workers`` in training."""
    landscape, strategy, rng = Landscape(0), create(strategy_name, {}), np.random.default_rng(0)
    space, cube = landscape.free, Cube(landscape.free)

    def hyp() -> dict[str, float]:
        return cube.hyp(np.clip(cube.start + 0.1 * rng.standard_normal(len(cube)), 0, 1))

    kept = min(rows, 1000)
    done = [Row(number, one, landscape.value(one)) for number in range(rows - kept, rows) for one in [hyp()]]
    pending = [Candidate(rows + index, hyp()) for index in range(workers - 1)]
    taken = []
    for number in range(rows + workers, rows + workers + ASKS):
        history = History.select(number, strategy.needs, done, (), pending)
        began = time.process_time()
        strategy.propose(space, history, candidate_rng(0, number))
        taken.append(1000 * (time.process_time() - began))
        finished, new = hyp(), hyp()
        oldest = pending.pop(0).number if pending else number
        done.append(Row(oldest, finished, landscape.value(finished)))
        if workers > 1:
            pending.append(Candidate(number, new))
    quantiles = {name: round(float(np.quantile(taken, q)), 1) for name, q in (("median", 0.5), ("p95", 0.95), ("most", 1.0))}
    return {"strategy": strategy_name, "rows": rows, "workers": workers, "mean": round(float(np.mean(taken)), 1), **quantiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [measure(rows, workers) for rows in (30, 100, 300, 1_000_000) for workers in (1, 64)]
    for one in results:
        print(" ".join(f"{name} {value}" for name, value in one.items()))
    if arguments.json:
        record.write(arguments.json, seed=0, results=results)


if __name__ == "__main__":
    main()
