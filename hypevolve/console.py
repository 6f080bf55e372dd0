"""What a command says and where: data to stdout, everything else to stderr, and numbers that look the same everywhere.

A terminal gets tables, a pipe gets tab-separated lines, ``--json`` exactly one document.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hypevolve.errors import HypevolveError


class CommandFailed(HypevolveError):
    """A command cannot go on. Its text is for people and may have several lines, one for each fault."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.args = (message,)  # the lines of a list of faults stay lines
        self.exit_code = exit_code


@dataclass(frozen=True)
class Output:
    """How this call answers. ``json`` and ``verbose`` are the options of that name, ``url`` and ``token`` the coordinator's."""

    json: bool = False
    verbose: bool = False
    url: str = ""
    token: str | None = field(default=None, repr=False)

    def document(self, value: Any) -> None:
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))

    def line(self, text: str) -> None:
        """One line of data."""
        print(text)

    def say(self, text: str) -> None:
        """One line that is no data."""
        print(text, file=sys.stderr, flush=True)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """``rows`` as a table, or as tab-separated lines with a header."""
        if not sys.stdout.isatty():
            print(*columns, sep="\t")
            for row in rows:
                print(*(cell(row.get(name)) for name in columns), sep="\t")
            return
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            numeric = any(isinstance(row.get(name), int | float) for row in rows)
            shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(Text(cell(row.get(name))) for name in columns))
        Console().print(shown)


def cell(value: Any) -> str:
    """A value as tables show it: floats with 4 significant digits, nothing as nothing, and never a tab or a line end."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(cell(item) for item in value)
    return " ".join(str(value).split())


def number(value: float) -> str:
    """4 significant digits."""
    return f"{value:.4g}"


def signed(value: float) -> str:
    return f"{value:+.4g}"


def change(now: float | None, before: float | None) -> str:
    """``+0.0313 (+11.1 %)``, the difference alone where ``before`` is 0, nothing where one of the two is missing."""
    if now is None or before is None:
        return ""
    if not before or not math.isfinite(percent := 100 * (now - before) / abs(before)):
        return signed(now - before)
    return f"{signed(now - before)} ({percent:+.1f} %)"


def duration(seconds: float) -> str:
    """``7 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 2 h``."""
    whole = max(round(seconds), 0)
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"
