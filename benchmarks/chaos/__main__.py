"""``python -m benchmarks.chaos --short|--long --seed N [--folder DIR] [--json OUT]``: the fault campaign and its table.

Exits 1 where a result was lost or doubled, an answer was illegal, a lease came back too late or the budget is not exact. With
``--folder`` everything is kept, and the same command goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from benchmarks import record
from benchmarks.chaos.campaign import Campaign
from benchmarks.chaos.figures import table
from benchmarks.chaos.plan import LONG, SHORT


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description="Kill everything, then count.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="1 000 candidates (default)")
    size.add_argument("--long", action="store_true", help="10 000 candidates, 200 workers")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep everything here; the same command goes on where it was broken off")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="give up after so long")
    for fault in ("candidates", "clients", "workers", "coordinators"):
        parser.add_argument(f"--{fault}", type=int, metavar="N", help="in place of the size's own number")
    asked = parser.parse_args(arguments)
    given = {name: getattr(asked, name) for name in ("candidates", "clients", "workers", "coordinators")}
    given["limit_s"] = asked.limit
    plan = dataclasses.replace(LONG if asked.long else SHORT, **{k: v for k, v in given.items() if v is not None})
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        with Campaign(folder, plan, asked.seed, say=lambda line: print(line, file=sys.stderr, flush=True)) as campaign:
            figures = campaign.run()
    print(table(figures, asked.seed))
    for line in figures["wrong"]:
        print(line)
    if asked.json:
        record.write(asked.json, seed=asked.seed, results=figures)
    if not figures["clean"]:
        print(f"NOT clean: {json.dumps({k: figures[k] for k in ('finished', 'lost', 'doubled', 'illegal', 'budget', 'slow')})}")
    return 0 if figures["clean"] else 1


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
