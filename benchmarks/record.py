"""A measurement's JSON: what was run, on which commit and machine, and what came out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def write(path: Path, *, seed: int | None, results: Any, command: str | None = None) -> None:
    """Write ``results`` with what a reader needs to measure again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": command or " ".join(["python", *_as_module(sys.argv)]),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        "machine": machine(),
        "results": results,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def _as_module(argv: list[str]) -> list[str]:
    script = Path(argv[0]).resolve()
    if script.is_relative_to(ROOT):
        return ["-m", ".".join(script.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"), *argv[1:]]
    return [script.name, *argv[1:]]


def commit() -> str:
    """The short commit, with ``+`` where the tree has changes other than in results."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    status = ["git", "status", "--porcelain", "-uno", "--", ".", ":!docs/results"]
    changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return (head or "none") + ("+" if changed else "")


def machine() -> str:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line), "")
    return f"{os.cpu_count()} cores {model or platform.machine()}, Python {platform.python_version()}"
