"""What a stranger types first, timed: ``python -m benchmarks.fresh_clone --json OUT`` clones HEAD into an empty 0700 folder
with an empty HOME, runs ``make demo`` there and, unless told otherwise, ``make test``.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record

KEPT = ("PATH", "LANG", "PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE")


def measure(home: Path, *, test: bool) -> dict[str, Any]:
    """Seconds and outcome of the two commands in a clone under ``home``."""
    clone = home / "clone"
    subprocess.run(["git", "clone", "--quiet", str(record.ROOT), str(clone)], check=True)
    environment = {key: os.environ[key] for key in KEPT if key in os.environ} | {"HOME": str(home)}
    began = time.monotonic()
    _make("demo", clone, environment)
    whole = time.monotonic() - began
    summary = json.loads((clone / "runs/demo/summary.json").read_text())
    figures = {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "install_s": round(whole - summary["seconds"], 1),
        "demo_s": round(summary["seconds"], 1),
        "candidates": summary["counts"]["done"],
        "failed": summary["counts"]["failed"],
        "lost": summary["counts"]["lost"],
        "default_fitness": summary["default"]["fitness"],
        "best_fitness": summary["best"]["fitness"],
    }
    if test:
        began = time.monotonic()
        said = _make("test", clone, environment)
        figures |= {"test_s": round(time.monotonic() - began, 1), "tests": re.findall(r"\d+ (?:passed|failed|skipped)", said)}
    return figures


def _make(target: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["make", target], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"make {target} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Time make demo and make test in a fresh clone.")
    parser.add_argument("--no-test", action="store_true", help="make demo alone")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:  # 0700 by construction
        figures = measure(Path(home), test=not asked.no_test)
    print("  ".join(f"{name} {value}" for name, value in figures.items()))
    if asked.json:
        record.write(asked.json, seed=0, results=figures)


if __name__ == "__main__":
    main()
