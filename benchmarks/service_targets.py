"""The goals of the coordinator's speed, and which of them a run of ``benchmarks.service`` met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

QUICK, DEFAULT = "yolov5-2021", "hybrid"
FLAT = 1.5  # how much more a cycle may cost among the most rows than among the fewest


class Target(NamedTuple):
    """A figure of one cell and its bound; ``least`` where the figure has to be at least that."""

    strategy: str
    clients: int
    figure: str
    bound: float
    least: bool = False


# One client, because more of them in a closed loop measure the queue that they make.
TARGETS = (
    Target(QUICK, 1, "commits_per_cycle", 3),
    Target(QUICK, 1, "wal_syncs_per_cycle", 2.5),
    *(Target(QUICK, clients, "cpu_ms_per_cycle", 3) for clients in (1, 8, 32)),
    *(Target(QUICK, clients, "p99_ms", 120) for clients in (1, 8, 32)),
    Target(QUICK, 8, "cycles_per_s", 300, least=True),
    Target(QUICK, 32, "cycles_per_s", 500, least=True),
    *(Target(DEFAULT, clients, "cpu_ms_per_cycle", 40) for clients in (1, 8)),  # 25 asks a second and core
    Target(DEFAULT, 1, "ask_p50_ms", 30),
    Target(DEFAULT, 1, "ask_p99_ms", 300),
    *(Target(DEFAULT, clients, "heartbeat_p99_ms", 100) for clients in (1, 8, 32)),
)


def lines(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each goal that these cells can speak of: the figure that is furthest from it among all numbers of rows."""
    for target in TARGETS:
        found = [
            (cell[target.figure], cell["rows"])
            for cell in cells
            if (cell["strategy"], cell["clients"]) == target[:2] and target.figure in cell
        ]
        if found:
            value, rows = min(found) if target.least else max(found)
            met = value >= target.bound if target.least else value <= target.bound
            sign = ">=" if target.least else "<="
            yield (
                f"{'met   ' if met else 'MISSED'}  {target.strategy}, {target.clients} clients: {target.figure} {value:.4g}"
                f" (goal {sign} {target.bound:g}), at {rows} rows"
            )
    for clients in sorted({cell["clients"] for cell in cells}):
        costs = {
            cell["rows"]: cell["cpu_ms_per_cycle"] for cell in cells if (cell["strategy"], cell["clients"]) == (QUICK, clients)
        }
        if len(costs) > 1:
            ratio = costs[max(costs)] / costs[min(costs)]
            yield (
                f"{'met   ' if ratio <= FLAT else 'MISSED'}  {QUICK}, {clients} clients: a cycle at {max(costs)} rows costs"
                f" {ratio:.2f} times one at {min(costs)} (goal <= {FLAT:g})"
            )
