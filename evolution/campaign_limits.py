"""What a campaign may use and who may train it: the sections ``budget`` and ``lease`` of a campaign file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from evolution.problems import finite, shown
from evolution.sections import Section

MOST_CANDIDATES = 1_000_000
MOST_DEVICES = 64
DEVICES = ("cpu", "cuda", "mps")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Requires:
    """What a worker must have: every one of ``labels``, ``devices`` devices for one candidate, of kind ``device`` where that is
    given, each with ``gpu_memory`` GB or more."""

    labels: tuple[str, ...] = ()
    device: str | None = None
    devices: int = 1
    gpu_memory: float | None = None

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}


ANYBODY = Requires()


def read_budget(top: Section) -> dict[str, Any]:
    """``candidates``, and the limits of which the first that is reached ends a campaign early: each None where absent."""
    budget = top.section("budget")
    fields: dict[str, Any] = {"candidates": budget.whole("candidates", 300, 1, MOST_CANDIDATES)}
    fields["gpu_hours"] = _positive(budget, "gpu_hours", 1e9)
    fields["deadline"] = _moment(budget)
    patience = budget.whole("patience", 0, 1, MOST_CANDIDATES) if "patience" in budget else budget.take("patience")
    fields["patience"] = patience or None
    budget.close()
    return fields


def read_lease(top: Section) -> dict[str, Any]:
    section = top.section("lease")
    heartbeat = section.duration("heartbeat", 15.0, 0.01, 3600.0)
    expire = section.duration("expire", 60.0, 0.02, 86400.0)
    fields: dict[str, Any] = {"heartbeat_s": heartbeat, "expire_s": expire}
    fields["checkpoint_s"] = section.duration("checkpoint", 300.0, 0.0, 86400.0)
    fields["priority"] = section.whole("priority", 0, -1000, 1000)
    fields["share"] = _positive(section, "share", 1e6) or 1.0
    fields["requires"] = _requires(section.section("requires"))
    section.close()
    if expire < 2 * heartbeat:
        section.fault(
            "expire", f"{expire:g}s is less than two heartbeats of {heartbeat:g}s", f"write {4 * heartbeat:g}s or more"
        )
    return fields


def _requires(section: Section) -> Requires:
    labels = section.take("labels", [])
    labels = [labels] if isinstance(labels, str) else labels
    if not isinstance(labels, list | tuple) or not all(isinstance(v, str) and _LABEL.fullmatch(v) for v in labels):
        section.fault("labels", f"is {shown(labels)}", "write a list of names such as [a100]; workers have them by --label")
        labels = []
    device = section.text("device", DEVICES[0], DEVICES) if "device" in section else section.take("device")
    devices = section.whole("devices", 1, 1, MOST_DEVICES)
    memory = _positive(section, "gpu_memory", 1e5)
    section.close()
    return Requires(tuple(sorted(set(labels))), device, devices, memory)


def _positive(section: Section, key: str, most: float) -> float | None:
    value = section.take(key)
    if value is None:
        return None
    number = finite(value)
    if number is None or not 0 < number <= most:
        section.fault(key, f"is {shown(value)}", f"write a number above 0, at most {most:g}")
        return None
    return number


def _moment(section: Section) -> str | None:
    """A moment as ISO 8601 with its offset from UTC: without one nobody knows which moment it is."""
    value = section.take("deadline")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.isoformat()
    except (TypeError, ValueError):
        pass
    section.fault("deadline", f"is {shown(value)}", "write a moment with its offset from UTC, such as 2026-12-24T18:00+01:00")
    return None
