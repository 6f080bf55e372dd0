"""Broken input for every parser, guided by coverage: ``python -m benchmarks.fuzz_parsers [NAME …] --seconds 20 --json OUT``.

atheris (libFuzzer) changes the seeds of ``benchmarks.parsers`` where that reaches new lines of ours. Each parser has a process
of its own, which ends at the first exception that is no refusal, after 10 s with one input, or with 2 GB; the input then lies
in ``--folder``, and ``--input FILE NAME`` feeds it again. Exits 1 where anything was found. Needs the extra ``fuzz``.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.parsers import LONGEST, PARSERS

OURS = ["evolution", "hypevolve", "detector", "worker", "server"]
ONE_INPUT_S = 10
MOST_MB = 2048


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_parsers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(PARSERS)}")
    parser.add_argument("--seconds", type=int, default=20, help="for each parser (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"), help="for inputs that were found and for corpora")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--input", type=Path, help="feed this file to the one parser named, and nothing else")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    names = asked.names or list(PARSERS)
    if unknown := sorted(set(names) - set(PARSERS)):
        parser.error(f"no parser {', '.join(unknown)}; there are {', '.join(PARSERS)}")
    if asked.input:
        PARSERS[names[0]]().feed(asked.input.read_bytes())
        return 0
    if asked.guided:
        _guided(names[0], asked.seconds, asked.seed, asked.folder)
    figures = {name: _one(name, asked.seconds, asked.seed, asked.folder) for name in names}
    if asked.json:
        record.write(asked.json, seed=asked.seed, results={"seconds": asked.seconds, "parsers": figures})
    return 1 if any(figure["found"] for figure in figures.values()) else 0


def _one(name: str, seconds: int, seed: int, folder: Path) -> dict[str, Any]:
    """In a process of its own: libFuzzer ends the process that it runs in."""
    command = [sys.executable, "-m", "benchmarks.fuzz_parsers", name, "--guided", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--seed", str(seed)], cwd=record.ROOT, capture_output=True, text=True
    )
    inputs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if inputs is None and not done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    figure = {"inputs": int(inputs[1]) if inputs else 0, "found": done.returncode != 0}
    print(f"{name:<20} {figure['inputs']:>9} inputs  {'FOUND' if figure['found'] else 'nothing found'}", flush=True)
    if figure["found"]:
        print(done.stdout[-2000:] + done.stderr[-1000:])  # the traceback, and where the input lies
    return figure


def _guided(name: str, seconds: int, seed: int, folder: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=OURS):
        parser = PARSERS[name]()
    corpus = folder / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as seeds:
        for data in parser.seeds:
            Path(seeds, hashlib.sha256(data).hexdigest()).write_bytes(data)
        options = {
            "max_total_time": seconds,
            "seed": seed,
            "max_len": LONGEST,
            "timeout": ONE_INPUT_S,
            "rss_limit_mb": MOST_MB,
            "print_final_stats": 1,
            "artifact_prefix": f"{folder}/{name.replace(' ', '-')}-",
        }
        atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus), seeds], parser.feed)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
