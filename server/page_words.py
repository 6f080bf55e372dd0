"""How the pages say numbers, spans of time and states. One vocabulary for every page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple


class StateWord(NamedTuple):
    word: str
    icon: str


# The order in which counts add up to the budget. Icon and word go together: colour alone says nothing.
STATES: Mapping[str, StateWord] = {
    "done": StateWord("done", "✓"),
    "running": StateWord("running", "▶"),
    "leased": StateWord("starting", "◐"),
    "queued": StateWord("queued", "○"),
    "failed": StateWord("failed", "✕"),
    "cancelled": StateWord("cancelled", "■"),
    "unbred": StateWord("not bred yet", "·"),
}

# Icons of what is no candidate's state: campaigns and workers.
ICONS: Mapping[str, str] = {
    "finished": "✓", "halted": "!", "paused": "‖", "draining": "◑",
    "silent": "!", "training": "▶", "idle": "○", "gone": "·", "quarantined": "!", "leaving": "◑",
}  # fmt: skip

METRICS: Mapping[str, str] = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}

NONE = "–"


def number(value: float | bool | str | None) -> str:
    """Four significant digits; a choice of a gene as it is written in files."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str):
        return value or NONE
    return f"{value:.4g}"


def fitness(value: float | None) -> str:
    """Four decimals, and below 0.1 four significant digits, so that a small fitness is told from none."""
    if value is None:
        return NONE
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.1 else f"{value:#.4g}"


def signed(value: float | None) -> str:
    """A difference with its sign: four decimals, and three significant digits where those would hide it."""
    if value is None:
        return NONE
    words = f"{value:+.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:+.3g}"
    return f"−{words[1:]}" if words.startswith("-") else words


def count(n: int, word: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def last_line(detail: str) -> str:
    """What a traceback or a log comes down to."""
    lines = detail.strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:+.1f} %".replace("-", "−")


def share(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")


def span(seconds: float | None) -> str:
    """A duration in its two largest units: ``2 h 05 min``."""
    if seconds is None:
        return NONE
    whole = max(round(seconds), 0)
    if whole < 1:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole < 600 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(then: datetime | None, now: datetime) -> str:
    if then is None:
        return NONE
    seconds = (now - then).total_seconds()
    return "just now" if seconds < 1 else f"{brief(seconds)} ago"


def brief(seconds: float) -> str:
    """A duration in its largest unit alone, as the age of something: below a second does not matter."""
    return " ".join(span(float(int(seconds))).split()[:2])


def stamp(then: datetime) -> str:
    return then.strftime("%Y-%m-%d %H:%M:%S %Z")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "number": number,
    "count": count,
    "shell": shlex.quote,
    "last_line": last_line,
    "fitness": fitness,
    "signed": signed,
    "percent": percent,
    "share": share,
    "span": span,
    "brief": brief,
    "ago": ago,
    "stamp": stamp,
}
