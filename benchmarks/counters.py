"""What a measurement costs, in figures that other load on the machine hardly moves: processor time, commits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor seconds of a process, of the children it has now and of those it has reaped (Linux)."""
    total = sum(_times(pid)[:4])
    return (total + sum(sum(_times(child)[:2]) for child in _children(pid))) / _TICKS


def _children(pid: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            yield int(process.name)


def _times(pid: int) -> list[int]:
    """utime, stime, cutime, cstime in clock ticks; nothing of a process that has just ended."""
    try:
        return [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    except OSError:
        return [0, 0, 0, 0]


def quantile_ms(seconds: list[float], q: float) -> float:
    """In milliseconds, rounded to a hundredth; 0 of nothing."""
    ordered = sorted(seconds)
    return round(1000 * ordered[min(int(q * len(ordered)), len(ordered) - 1)], 2) if ordered else 0.0
