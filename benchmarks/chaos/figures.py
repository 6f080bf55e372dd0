"""The figures of a fault campaign, as JSON and as the table that people read.

``python -m benchmarks.chaos.figures`` puts the table of docs/results/chaos.json into docs/RELIABILITY.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks import record
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.verdict import Verdict

WORST = ("coordinator ended badly", "coordinator died by itself")


def figures(
    plan: Plan, faults: Mapping[str, int], network: Mapping[str, int], found: Verdict, finished: bool, seconds: float
) -> dict[str, Any]:
    """``clean`` is False where anything was lost, doubled, illegal, slow or left undone."""
    recovery = sorted(found.recovery_s)
    wrong = {name: getattr(found, name) for name in ("lost", "doubled", "illegal", "budget", "slow")}
    return {
        "plan": asdict(plan),
        "faults": dict(faults),
        "network": dict(network),
        "finished": finished,
        "seconds": round(seconds, 1),
        "acknowledged": found.acknowledged,
        "answers": dict(sorted(found.answers.items())),
        **{name: len(said) for name, said in wrong.items()},
        "leases_lost": len(recovery),
        "recovery_p50_s": round(_quantile(recovery, 0.5), 2),
        "recovery_p99_s": round(_quantile(recovery, 0.99), 2),
        "recovery_max_s": round(_quantile(recovery, 1.0), 2),
        "clean": finished and found.clean and not any(faults.get(fault) for fault in WORST),
        "wrong": [f"{name}: {line}" for name, said in wrong.items() for line in said[:20]],
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def table(figures: dict[str, Any], seed: int | None) -> str:
    """The figures as the Markdown table of docs/RELIABILITY.md."""
    plan, faults, network = figures["plan"], figures["faults"], figures["network"]
    recovery = " / ".join(f"{figures[f'recovery_{part}_s']}" for part in ("p50", "p99", "max"))
    rows = [
        ("candidates × workers", f"{plan['candidates']} × {plan['clients'] + plan['workers']} ({plan['workers']} real)"),
        ("worker kills / frozen / preemption storms", _counts(faults, "worker killed", "worker frozen", "preemption storm")),
        ("coordinator kills / database crashes", _counts(faults, "coordinator killed", "database crashed")),
        ("requests cut / unanswered / late / doubled", _counts(network, "cut", ("drop", "mute"), "hold", "twice")),
        ("results acknowledged", figures["acknowledged"]),
        ("**lost / doubled / illegal answers**", f"**{figures['lost']} / {figures['doubled']} / {figures['illegal']}**"),
        ("budget errors / leases back after more than two lease lengths", f"{figures['budget']} / {figures['slow']}"),
        (
            f"leases of silent workers taken over; p50 / p99 / max (lease {plan['lease_s']:g} s)",
            f"{figures['leases_lost']}; {recovery} s",
        ),
        ("seconds", figures["seconds"]),
    ]
    return "\n".join([f"| seed {seed} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _counts(of: dict[str, int], *names: str | tuple[str, ...]) -> str:
    return " / ".join(str(sum(of.get(one, 0) for one in ((name,) if isinstance(name, str) else name))) for name in names)


def main() -> None:
    page = record.ROOT / "docs/RELIABILITY.md"
    measured = json.loads((record.ROOT / "docs/results/chaos.json").read_text())
    fresh = table(measured["results"], measured["seed"])
    text = re.sub(
        r"(<!-- table: \S+ -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{fresh}\n{found[2]}",
        page.read_text(),
        flags=re.S,
    )
    page.write_text(text)


if __name__ == "__main__":
    main()
