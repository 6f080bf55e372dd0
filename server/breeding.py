"""The next candidates: rows -> strategy -> hyp sets -> rows. The only caller of strategies.

A child is computed outside any lock from a snapshot of the rows that its strategy needs, then the campaign's row is locked for
what must be exact: budget, number and duplicates. Its randomness comes from (campaign seed, number), its parents from the rows
named in ``bred_from``, so that any replica finds the same hyp set again. Whoever lost the race for a number breeds again for
the next one.

Asks that meet in one coordinator are bred for together: one snapshot, one lock and one COMMIT for all of them, each child
shown those before it as candidates in training.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from evolution.campaign import Campaign
from evolution.space import Coding, Space
from evolution.strategy import (
    MOST_PENDING,
    Candidate,
    History,
    Needs,
    Proposal,
    Row,
    Strategy,
    Wait,
    candidate_rng,
)
from hypevolve import messages
from hypevolve.hashes import hyp_hash
from server import events, leases
from server.budget import OPEN
from server.caller import Caller, acting, speaking_for
from server.database import Database
from server.fair import Waiting, Work
from server.strategies import create

MAX_DRAWS = 100  # for a child nobody has trained; a space with fewer points than candidates must repeat some in the end
STUBBORN = 4  # draws of the strategy's own; one that climbs to the best point it knows may find a trained one again and again
TOGETHER = 32  # asks that are bred for at once
REMEMBERED = 20_000  # hyp sets


class _Snapshot(NamedTuple):
    campaign_id: int
    campaign: Campaign
    strategy: Strategy
    history: History
    left: int  # of the budget
    revision: int  # of space and fitness

    @property
    def number(self) -> int:
        return self.history.number


class _Child(NamedTuple):
    """A hyp set that is not yet a row, and what it was bred from."""

    history: History
    proposal: Proposal
    draws: int

    @property
    def number(self) -> int:
        return self.history.number


@dataclass
class _Wish:
    """One slot of a request that wants a candidate."""

    ask: messages.Ask
    slot: int
    over: bool = False
    granted: list[messages.Lease] = field(default_factory=list)  # of the whole request so far; none where there is no work
    error: BaseException | None = None
    caller: Caller = field(default_factory=acting.get)  # asks of several are bred for together


class _Stopped(Exception):
    """People or a limit ended the campaign while a child was computed for it."""


class _Turn:
    """Of one campaign in this process: whoever holds the lock breeds for all that wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wishes: list[_Wish] = []


class Breeder:
    """Breeds for the campaigns of one coordinator. It remembers hyp sets, which never change, and nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.waiting = Waiting()
        self._turns: defaultdict[int, _Turn] = defaultdict(_Turn)
        self._hyps = _Hyps()

    def breed(self, work: Work, ask: messages.Ask, slot: int) -> list[messages.Lease]:
        """Breed a candidate for a campaign and grant it to a slot of a request.

        The leases of the request, with those it had before; none where the campaign's numbers are given out, its strategy waits
        for results, or it was stopped meanwhile.
        """
        return self._fulfil(work, _Wish(ask, slot)).granted

    def _fulfil(self, work: Work, wish: _Wish) -> _Wish:
        turn = self._turns[work.id]
        turn.wishes.append(wish)
        with turn.lock:
            while not wish.over:
                wishes = [turn.wishes.pop(0) for _ in range(min(len(turn.wishes), TOGETHER))]
                try:
                    self._breed(work, wishes)
                except BaseException as error:
                    for one in wishes:
                        one.error = error
                    raise
                finally:
                    for one in wishes:
                        one.over = True
        if wish.error is not None:
            raise wish.error
        return wish

    def _breed(self, work: Work, wishes: Sequence[_Wish]) -> None:
        wishes = list(wishes)
        while wishes:
            # A copy of a request that came at the same moment finds in the next round what the first was given.
            first = list({(wish.ask.request_id, wish.slot): wish for wish in reversed(wishes)}.values())[::-1]
            snapshot = self._database.run(lambda connection: _snapshot(connection, work.id, self._hyps))
            if snapshot is None:
                return
            rng = candidate_rng(snapshot.campaign.seed, snapshot.number)
            for draws in range(1, MAX_DRAWS + 1):
                children = _children(snapshot, rng, draws, len(first) if draws == 1 else 1)
                if not children:
                    self.waiting.note(work)  # the next result wakes the asks
                    return
                try:
                    inserted = self._database.run(partial(_insert, snapshot=snapshot, children=children, wishes=first))
                except _Stopped:
                    return
                if inserted is None:  # overtaken: another replica took the number, or our own COMMIT whose answer was lost
                    self._database.run(partial(_find_granted, wishes=wishes))
                if inserted != 0:
                    wishes = [wish for wish in wishes if not wish.granted]
                    break


class _Hyps:
    """Hyp sets of candidates by their ids, as strategies see them; those used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, Coding], dict[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, connection: Connection, ids: Sequence[int], space: Space) -> dict[int, dict[str, float]]:
        coding = space.coding
        with self._lock:
            found = {id: self._known[id, coding] for id in ids if (id, coding) in self._known}
        missing = [id for id in ids if id not in found]
        if missing:
            rows = connection.execute(_HYPS, {"ids": missing})
            found |= {row.id: space.encode(row.hyp) for row in rows}
        with self._lock:
            for id in ids:
                self._known[id, coding] = found[id]
                self._known.move_to_end((id, coding))
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found


_HYPS = text("select id, hyp from candidate where id = any(:ids)")


_CAMPAIGN = text("select document::text as document, bred, candidates, revision from campaign where id = :id")


def _snapshot(connection: Connection, campaign_id: int, hyps: _Hyps) -> _Snapshot | None:
    """What the next child is bred from; None where the budget is given out."""
    row = connection.execute(_CAMPAIGN, {"id": campaign_id}).one()
    if row.bred >= row.candidates:
        return None
    campaign, strategy = _parsed(row.document)
    history = _history(connection, campaign_id, row.bred, strategy.needs, campaign.space, hyps)
    return _Snapshot(campaign_id, campaign, strategy, history, row.candidates - row.bred, row.revision)


# What a strategy may need to see, each a walk along one index that ends at its limit. A confirmation is no new point.
_PARTS = {
    "fittest": "state = 'done' and origin <> 'confirm' order by fitness desc, number",
    "newest": "state = 'done' and origin <> 'confirm' order by number desc",
    "failed": "state = 'failed' and origin <> 'confirm' order by number desc",
    "pending": "state in ('queued', 'leased', 'running') and origin <> 'confirm' order by number desc",
}


@lru_cache(maxsize=64)
def _parts(needs: Needs) -> Any:
    """One statement for all parts that are needed."""
    limits = {"fittest": needs.fittest, "newest": needs.newest, "failed": needs.failed}
    limits["pending"] = MOST_PENDING if needs.pending else 0
    walks = [
        f"(select '{part}' as part, id, number, fitness from candidate"
        f" where campaign_id = :id and {_PARTS[part]} limit {limit})"
        for part, limit in limits.items()
        if limit
    ]
    return text(" union all ".join(walks)) if walks else None


def _history(connection: Connection, campaign_id: int, number: int, needs: Needs, space: Space, hyps: _Hyps) -> History:
    statement = _parts(needs)
    rows = [] if statement is None else connection.execute(statement, {"id": campaign_id}).all()
    known = hyps.of(connection, list({row.id for row in rows}), space) if rows else {}
    return _as_history(
        number, {part: [(row.number, known[row.id], row.fitness) for row in rows if row.part == part] for part in _PARTS}
    )


def _as_history(number: int, parts: Mapping[str, Sequence[tuple[int, dict[str, float], Any]]]) -> History:
    return History(
        number=number,
        fittest=tuple(Row(*seen) for seen in parts["fittest"]),
        newest=tuple(Row(*seen) for seen in parts["newest"]),
        failed=tuple(Candidate(*seen[:2]) for seen in parts["failed"]),
        pending=tuple(Candidate(*seen[:2]) for seen in parts["pending"]),
    )


@lru_cache(maxsize=64)
def _parsed(document: str) -> tuple[Campaign, Strategy]:
    campaign = Campaign.from_document(json.loads(document))
    return campaign, create(campaign.strategy, campaign.options)


def _children(snapshot: _Snapshot, rng: np.random.Generator, draws: int, most: int) -> list[_Child]:
    """The next ``most`` children, or as many as the budget and the strategy give; ``rng`` is the first one's."""
    children: list[_Child] = []
    history, space = snapshot.history, snapshot.campaign.space
    while len(children) < min(most, snapshot.left):
        proposal = _child(snapshot, history, rng, draws)
        if isinstance(proposal, Wait):
            break
        children.append(_Child(history, proposal, draws))
        pending = history.pending
        if snapshot.strategy.needs.pending:
            pending = (Candidate(history.number, space.encode(space.decode(proposal.hyp))), *pending)[:MOST_PENDING]
        history = replace(history, number=history.number + 1, pending=pending)
        rng, draws = candidate_rng(snapshot.campaign.seed, history.number), 1
    return children


def _child(snapshot: _Snapshot, history: History, rng: np.random.Generator, draws: int) -> Proposal | Wait:
    """The ``draws``-th draw of a child; a strategy that only repeats what was trained is helped out by mutations."""
    if history.number == 0:
        return Proposal(snapshot.campaign.space.start, ())
    strategy = snapshot.strategy if draws <= STUBBORN else create("yolov5-2021", {})
    return strategy.propose(snapshot.campaign.space, history, rng)


# What must be exact when numbers are given out, under the campaign's lock and in one message. ``bred`` is that of the
# locked row; the twins are as old as the statement, but whoever bred a candidate since then has changed ``bred`` too.
_LOCK = text(
    f"""
    select c.bred, c.candidates, c.revision, {OPEN} as open,
           array(select hyp_hash from candidate where campaign_id = :id and hyp_hash = any(:hashes)) as twins,
           exists (select 1 from attempt a join unnest(cast(:requests as uuid[]), cast(:slots as int[])) as w (request, slot)
                   on a.request_id = w.request and a.request_slot = w.slot) as repeated
    from campaign c where c.id = :id for no key update
    """
)
_NEW = text(
    """
    with counted as (update campaign set bred = bred + :n where id = :id)
    insert into candidate (campaign_id, number, hyp, hyp_hash, origin, parents, bred_from, state, token, attempts)
    select :id, r.number, r.hyp, r.hash, r.origin, array(select json_array_elements_text(r.parents)::int), r.bred_from,
           'leased', r.token, 1
    from json_to_recordset(:rows)
      as r (number int, hyp json, hash text, origin text, parents json, bred_from jsonb, token text)
    returning id, number
    """
)


def _insert(connection: Connection, snapshot: _Snapshot, children: Sequence[_Child], wishes: Sequence[_Wish]) -> int | None:
    """Give numbers to children, grant them, and say how many; 0 where the first has to be drawn again, None where overtaken.

    Raises:
        _Stopped: nothing may be given out any more.
    """
    hyps = [snapshot.campaign.space.decode(child.proposal.hyp) for child in children]
    hashes = [hyp_hash(hyp) for hyp in hyps]
    asked = {"requests": [wish.ask.request_id for wish in wishes], "slots": [wish.slot for wish in wishes]}
    row = connection.execute(_LOCK, {"id": snapshot.campaign_id, "hashes": hashes, **asked}).one()
    if not row.repeated and (not row.open or row.bred >= row.candidates):
        raise _Stopped
    overtaken = row.bred != snapshot.number or row.revision != snapshot.revision
    if row.repeated or overtaken or row.bred + len(children) > row.candidates:
        return None
    taken: set[str] = set(row.twins)
    new: list[dict[str, Any]] = []
    for child, hyp, digest in zip(children, hyps, hashes, strict=True):
        if digest in taken and child.number > 0 and child.draws < MAX_DRAWS:
            break  # the next round draws it again
        taken.add(digest)
        new.append(
            {
                "number": child.number,
                "hyp": hyp,
                "hash": digest,
                "origin": "bred" if child.number else "initial",
                "parents": child.proposal.parents,
                "bred_from": {part: [seen.number for seen in getattr(child.history, part)] for part in _PARTS}
                | {"draws": child.draws},
                "token": leases.new_token(),
            }
        )
    if not new:
        return 0
    values = {"id": snapshot.campaign_id, "n": len(new), "rows": json.dumps(new)}
    ids = {r.number: r.id for r in connection.execute(_NEW, values)}
    for wish, one in zip(wishes, new, strict=False):
        number = one["number"]
        with speaking_for(wish.caller):
            events.record(connection, snapshot.campaign_id, "bred", number, parents=list(one["parents"]))
            leases.begin_attempt(connection, ids[number], snapshot.campaign_id, number, wish.ask, wish.slot, one["token"])
    _find_granted(connection, wishes[: len(new)])
    return len(new)


def _find_granted(connection: Connection, wishes: Sequence[_Wish]) -> None:
    """Give each wish what its request has been granted."""
    granted = leases.granted_to(connection, [wish.ask.request_id for wish in wishes])
    for wish in wishes:
        found = granted.get(wish.ask.request_id, [])
        wish.granted = [lease for _, lease in found] if wish.slot in [slot for slot, _ in found] else []
