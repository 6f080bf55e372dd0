"""What the next child of a campaign is bred from: the rows that its strategy needs to see, as they are now.

Campaign documents and hyp sets are remembered by what they never change under: a revision, a candidate's id.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from evolution.campaign import Campaign
from evolution.space import Coding, Space
from evolution.strategy import MOST_PENDING, Candidate, History, Needs, Row, Strategy
from server.strategies import create
from server.transaction import Statement, fetch

REMEMBERED = 20_000  # hyp sets
DOCUMENTS = 64


class Plan(NamedTuple):
    """A campaign's document, parsed. ``revision`` changes with its space and its fitness."""

    revision: int
    document: Mapping[str, Any]
    campaign: Campaign
    strategy: Strategy

    @property
    def quick(self) -> bool:
        """Whether a child is bred in less time than a message to the database takes: a mutation of the fittest."""
        return self.strategy.needs == Needs(fittest=self.strategy.needs.fittest) and ":" not in self.campaign.strategy


class Snapshot(NamedTuple):
    campaign_id: int
    plan: Plan
    history: History
    left: int  # of the budget

    @property
    def number(self) -> int:
        return self.history.number


class Memory:
    """Documents and hyp sets that one coordinator has read, those used last."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[int, int], Plan] = OrderedDict()
        self._hyps: OrderedDict[tuple[int, Coding], dict[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def plan(self, connection: Connection, campaign_id: int, revision: int) -> Plan | None:
        """The campaign's plan; None where that revision is over."""
        with self._lock:
            if plan := self._plans.get((campaign_id, revision)):
                return plan
        row = connection.execute(_DOCUMENT, {"id": campaign_id}).one()
        if row.revision != revision:
            return None
        plan = parse(row.document, revision)
        with self._lock:
            self._plans[campaign_id, revision] = plan
            while len(self._plans) > DOCUMENTS:
                self._plans.popitem(last=False)
        return plan

    def hyps(self, connection: Connection, ids: Sequence[int], space: Space) -> dict[int, dict[str, float]]:
        """Hyp sets of candidates by their ids, as strategies see them."""
        coding = space.coding
        with self._lock:
            found = {id: self._hyps[id, coding] for id in ids if (id, coding) in self._hyps}
        missing = [id for id in ids if id not in found]
        if missing:
            found |= {row.id: space.encode(row.hyp) for row in fetch(connection, _HYPS, ids=missing)}
        with self._lock:
            for id in ids:
                self._hyps[id, coding] = found[id]
                self._hyps.move_to_end((id, coding))
            while len(self._hyps) > REMEMBERED:
                self._hyps.popitem(last=False)
        return found


_DOCUMENT = text("select document::text as document, revision from campaign where id = :id")
_HYPS = Statement("hyps", "select id, hyp from candidate where id = any(%(ids)s)", ids="bigint[]")
_NOW = Statement("campaign", "select revision, bred, candidates - bred as left from campaign where id = %(id)s", id="bigint")


def parse(document: str, revision: int = 0) -> Plan:
    loaded = json.loads(document)
    campaign = Campaign.from_document(loaded)
    return Plan(revision, loaded, campaign, create(campaign.strategy, campaign.options))


def take(connection: Connection, campaign_id: int, memory: Memory) -> Snapshot | None:
    """The snapshot of this moment; None where the budget is given out."""
    row = fetch(connection, _NOW, id=campaign_id).one()
    plan = memory.plan(connection, campaign_id, row.revision) if row.left > 0 else None
    if plan is None:
        return None
    return Snapshot(campaign_id, plan, read_history(connection, campaign_id, row.bred, plan, memory), row.left)


# What a strategy may need to see, each a walk along one index that ends at its limit. A confirmation is no new point.
PARTS = {
    "fittest": "state = 'done' and origin <> 'confirm' order by fitness desc, number",
    "newest": "state = 'done' and origin <> 'confirm' order by number desc",
    "failed": "state = 'failed' and origin <> 'confirm' order by number desc",
    "pending": "state in ('queued', 'leased', 'running') and origin <> 'confirm' order by number desc",
}


@lru_cache(maxsize=64)
def history_of(needs: Needs) -> Statement:
    """What a strategy has to be shown of campaign ``id``: rows of part, id, number and fitness."""
    limits = {"fittest": needs.fittest, "newest": needs.newest, "failed": needs.failed}
    limits["pending"] = MOST_PENDING if needs.pending else 0
    walks = [
        f"(select '{part}' as part, id, number, fitness from candidate"
        f" where campaign_id = %(id)s and {PARTS[part]} limit {limit})"
        for part, limit in limits.items()
        if limit or part == "fittest"
    ]
    return Statement("history", " union all ".join(walks), id="bigint")


def read_history(connection: Connection, campaign_id: int, number: int, plan: Plan, memory: Memory) -> History:
    """What candidate ``number`` may be bred from."""
    rows = fetch(connection, history_of(plan.strategy.needs), id=campaign_id).mappings()
    return known_history(connection, [dict(row) for row in rows], number, plan, memory)


def known_history(
    connection: Connection, rows: Sequence[Mapping[str, Any]], number: int, plan: Plan, memory: Memory
) -> History:
    """The history of rows that have been read already."""
    known = memory.hyps(connection, list({row["id"] for row in rows}), plan.campaign.space)
    parts: dict[str, list[tuple[int, dict[str, float], Any]]] = {part: [] for part in PARTS}
    for row in rows:
        parts[row["part"]].append((row["number"], known[row["id"]], row["fitness"]))
    return as_history(number, parts)


def as_history(number: int, parts: Mapping[str, Sequence[tuple[int, dict[str, float], Any]]]) -> History:
    return History(
        number=number,
        fittest=tuple(Row(*seen) for seen in parts["fittest"]),
        newest=tuple(Row(*seen) for seen in parts["newest"]),
        failed=tuple(Candidate(*seen[:2]) for seen in parts["failed"]),
        pending=tuple(Candidate(*seen[:2]) for seen in parts["pending"]),
    )
