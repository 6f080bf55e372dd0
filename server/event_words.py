"""Events as sentences. Those that only say that all goes its way (bred, leased, running) are left to the tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from evolution.fitness import formula
from hypevolve.messages import Answer
from server import events
from server.page_words import count, fitness, last_line

SHOWN = 12
_BUDGET = ("candidates", "gpu_hours", "deadline", "patience", "priority", "share")
LOOKED_AT = 120  # a done candidate leaves four events, three of them quiet
QUIET = ("bred", "leased", "running")


class EventLine(Answer):
    kind: str
    number: int | None
    words: str
    who: str  # the token's name, or what stands for none (``server.caller``)
    at: datetime


def latest(connection: Connection, campaign_id: int) -> list[EventLine]:
    """The newest events that are worth a line, the newest first."""
    found = [row for row in events.latest(connection, campaign_id, LOOKED_AT) if row["kind"] not in QUIET][:SHOWN]
    ids = [row["detail"]["worker"] for row in found if "worker" in row["detail"]]
    names = connection.execute(
        text("select id::text as id, name from worker where id = any(cast(:ids as uuid[]))"), {"ids": ids}
    )
    known = {row.id: row.name for row in names}
    return [
        EventLine(
            kind=row["kind"],
            number=row["number"],
            words=sentence(row["kind"], row["detail"], known),
            who=row["who"],
            at=row["at"],
        )
        for row in found
    ]


def sentence(kind: str, detail: Mapping[str, Any], workers: Mapping[str, str]) -> str:
    """What happened, without the candidate's number; an event of a kind unknown here is named as it is."""
    worker = workers.get(str(detail.get("worker")), "a worker")
    match kind:
        case "created":
            return f"campaign created with a budget of {_count(detail.get('candidates'), 'candidate')}"
        case "imported":
            return f"{_count(detail.get('rows'), 'earlier result')} imported as parents"
        case "budget":
            return _changed(detail)
        case "done":
            return f"done, fitness {fitness(detail.get('fitness'))}"
        case "lost":
            return f"lost: {worker} fell silent, another worker continues"
        case "released":
            return f"handed back: {detail.get('reason')}"
        case "refused":
            return f"result refused: {detail.get('reason')}"
        case "failed" | "retried":
            again = "; it will be tried again" if kind == "retried" else ""
            why = last_line(str(detail.get("detail") or ""))[:160]
            return f"failed ({detail.get('failure')}){again}" + (f": {why}" if why else "")
        case "campaign cancelled":
            return f"campaign cancelled, and with it {_count(detail.get('candidates'), 'candidate')}"
        case "resumed" | "paused" | "draining":
            return {"resumed": "campaign resumed", "paused": "campaign paused", "draining": "campaign draining"}[kind]
        case "edited":
            return f"bounds changed: {', '.join(map(str, detail.get('genes') or ()))}"
        case "reweighed":
            before, after = (formula(detail.get(key) or {}) for key in ("before", "after"))
            return f"fitness was {before} and is {after}: {_count(detail.get('candidates'), 'candidate')} judged anew"
        case "confirming":
            numbers = ", ".join(f"#{number}" for number in detail.get("numbers") or ())
            return f"{_count(detail.get('queued'), 'training')} queued to confirm {numbers}"
        case "enqueued":
            return f"enqueued by hand: {', '.join(f'#{number}' for number in detail.get('numbers') or ())}"
        case "retried all":
            return f"{_count(detail.get('candidates'), 'failed candidate')} offered again"
        case _:
            return kind


def _changed(detail: Mapping[str, Any]) -> str:
    """``budget changed: candidates 10 to 20, patience none to 50``."""
    before = detail.get("before")
    was = before if isinstance(before, Mapping) else {"candidates": before}
    parts = [f"{key} {_plain(was.get(key))} to {_plain(detail.get(key))}" for key in _BUDGET if key in was]
    return f"budget changed: {', '.join(parts)}"


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _count(n: Any, word: str) -> str:
    return count(int(n or 0), word)
