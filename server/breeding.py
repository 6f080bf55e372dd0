"""The next candidate: rows -> strategy -> hyp set -> row. The only caller of strategies.

A child is computed outside any lock from a snapshot of the rows that its strategy needs, then the campaign's row is locked for
what must be exact: budget, number and duplicates. Its randomness comes from (campaign seed, number), its parents from the rows
named in ``bred_from``, so that any replica finds the same hyp set again. Whoever lost the race for a number breeds again for
the next one.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from evolution.campaign import Campaign
from evolution.space import Space, Value
from evolution.strategy import MOST_PENDING, Candidate, History, Proposal, Row, Strategy, Wait, candidate_rng, create
from hypevolve import messages
from hypevolve.hashes import hyp_hash
from server import events, leases
from server.campaigns import HALTED
from server.database import Database
from server.tables import candidate

MAX_DRAWS = 100  # for a child nobody has trained; a space with fewer points than candidates must repeat some in the end


class _Snapshot(NamedTuple):
    campaign_id: int
    campaign: Campaign
    strategy: Strategy
    history: History

    @property
    def number(self) -> int:
        return self.history.number


class Breeder:
    """Breeds for the campaigns of one coordinator.

    Within a process one child of a campaign is bred at a time: a second one would only lose the race for the number.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def breed(self, ask: messages.Ask, slots: range) -> int:
        """Breed and grant candidates for the slots of a request, from the least busy campaigns first; how many."""
        bred = 0
        barren: list[int] = []  # given out meanwhile, or waiting for results
        while bred < len(slots):
            campaign = self._database.run(partial(_hungriest, ask=ask, barren=barren))
            if campaign is None:
                break
            with self._turn[campaign]:
                if self._breed_one(campaign, ask, slots[bred]):
                    bred += 1
                else:
                    barren.append(campaign)
        return bred

    def _breed_one(self, campaign_id: int, ask: messages.Ask, slot: int) -> bool:
        while True:
            snapshot = self._database.run(lambda connection: _snapshot(connection, campaign_id))
            if snapshot is None:
                return False
            rng = candidate_rng(snapshot.campaign.seed, snapshot.number)
            for draws in range(1, MAX_DRAWS + 1):
                child = _child(snapshot, rng)
                if isinstance(child, Wait):
                    return False  # the next result wakes the ask
                insert = self._database.run(partial(_insert, snapshot=snapshot, child=child, draws=draws, ask=ask, slot=slot))
                if insert == "inserted":
                    return True
                if insert == "overtaken":
                    break


def _hungriest(connection: Connection, ask: messages.Ask, barren: list[int]) -> int | None:
    """The campaign with numbers left that has the fewest candidates in training."""
    row = connection.execute(
        text(
            f"""
            select c.id from campaign c
            where c.bred < c.candidates and (cast(:campaigns as text[]) is null or c.name = any(:campaigns))
              and not c.id = any(:barren) and not {HALTED}
            order by (select count(*) from lease l where l.campaign_id = c.id), c.id limit 1
            """
        ),
        {"campaigns": ask.campaigns, "barren": barren},
    ).first()
    return None if row is None else int(row.id)


def _snapshot(connection: Connection, campaign_id: int) -> _Snapshot | None:
    """What the next child is bred from; None where the budget is given out."""
    row = connection.execute(
        text("select document::text as document, bred, candidates from campaign where id = :id"), {"id": campaign_id}
    ).one()
    if row.bred >= row.candidates:
        return None
    campaign, strategy = _parsed(row.document)
    return _Snapshot(campaign_id, campaign, strategy, _history(connection, campaign_id, row.bred, strategy, campaign.space))


# What a strategy may need to see, each a walk along one index that ends at its limit.
_PARTS = {
    "fittest": "state = 'done' order by fitness desc, number limit :n",
    "newest": "state = 'done' order by number desc limit :n",
    "failed": "state = 'failed' order by number desc limit :n",
    "pending": "state in ('queued', 'leased', 'running') order by number desc limit :n",
}


def _history(connection: Connection, campaign_id: int, number: int, strategy: Strategy, space: Space) -> History:
    needs = strategy.needs
    limits = {"fittest": needs.fittest, "newest": needs.newest, "failed": needs.failed}
    limits["pending"] = MOST_PENDING if needs.pending else 0
    rows = {
        part: connection.execute(
            text(f"select number, hyp, fitness from candidate where campaign_id = :id and {_PARTS[part]}"),
            {"id": campaign_id, "n": limit},
        ).all()
        if limit
        else []
        for part, limit in limits.items()
    }
    return _as_history(number, rows, space)


def _as_history(number: int, rows: Mapping[str, Sequence[Any]], space: Space) -> History:
    """The history as strategies see it: choices as numbers."""
    return History(
        number=number,
        fittest=tuple(Row(r.number, space.encode(r.hyp), r.fitness) for r in rows["fittest"]),
        newest=tuple(Row(r.number, space.encode(r.hyp), r.fitness) for r in rows["newest"]),
        failed=tuple(Candidate(r.number, space.encode(r.hyp)) for r in rows["failed"]),
        pending=tuple(Candidate(r.number, space.encode(r.hyp)) for r in rows["pending"]),
    )


@lru_cache(maxsize=64)
def _parsed(document: str) -> tuple[Campaign, Strategy]:
    campaign = Campaign.from_document(json.loads(document))
    return campaign, create(campaign.strategy, campaign.options)


def _child(snapshot: _Snapshot, rng: np.random.Generator) -> Proposal | Wait:
    if snapshot.number == 0:
        return Proposal(snapshot.campaign.space.start, ())
    return snapshot.strategy.propose(snapshot.campaign.space, snapshot.history, rng)


def _insert(connection: Connection, snapshot: _Snapshot, child: Proposal, draws: int, ask: messages.Ask, slot: int) -> str:
    """``inserted``, ``overtaken`` (another took this number) or ``duplicate`` (draw again)."""
    bred = connection.execute(
        text("select bred from campaign where id = :id for no key update"), {"id": snapshot.campaign_id}
    ).scalar_one()
    if bred != snapshot.number:
        return "overtaken"
    hyp = snapshot.campaign.space.decode(child.hyp)
    digest = hyp_hash(hyp)
    twin = connection.execute(
        text("select number from candidate where campaign_id = :id and hyp_hash = :hash limit 1"),
        {"id": snapshot.campaign_id, "hash": digest},
    ).first()
    if twin is not None and snapshot.number > 0 and draws < MAX_DRAWS:
        return "duplicate"
    row = connection.execute(
        candidate.insert()
        .values(
            campaign_id=snapshot.campaign_id,
            number=snapshot.number,
            hyp=hyp,
            hyp_hash=digest,
            origin="bred" if snapshot.number else "initial",
            parents=list(child.parents),
            bred_from={part: [seen.number for seen in getattr(snapshot.history, part)] for part in _PARTS} | {"draws": draws},
        )
        .returning(candidate.c.id)
    ).one()
    connection.execute(text("update campaign set bred = bred + 1 where id = :id"), {"id": snapshot.campaign_id})
    events.record(connection, snapshot.campaign_id, "bred", snapshot.number, parents=list(child.parents))
    leases.grant(connection, row.id, snapshot.campaign_id, snapshot.number, ask, slot)
    return "inserted"


def replay(connection: Connection, campaign: str, number: int) -> dict[str, Value]:
    """The hyp set of a bred candidate computed anew from the snapshot it was bred from, to audit a campaign."""
    row = connection.execute(
        text(
            """
            select c.id, c.document::text as document, k.bred_from from campaign c
            join candidate k on k.campaign_id = c.id where c.name = :campaign and k.number = :number
            """
        ),
        {"campaign": campaign, "number": number},
    ).one()
    parsed, strategy = _parsed(row.document)
    seen = {number for part in _PARTS for number in row.bred_from[part]}
    there = connection.execute(
        text("select number, hyp, fitness from candidate where campaign_id = :id and number = any(:numbers)"),
        {"id": row.id, "numbers": list(seen)},
    )
    rows = {r.number: r for r in there}
    history = _as_history(number, {part: [rows[seen] for seen in row.bred_from[part]] for part in _PARTS}, parsed.space)
    snapshot = _Snapshot(row.id, parsed, strategy, history)
    rng = candidate_rng(parsed.seed, number)
    child = _child(snapshot, rng)
    for _ in range(row.bred_from["draws"] - 1):
        child = _child(snapshot, rng)
    assert isinstance(child, Proposal)
    return parsed.space.decode(child.hyp)
