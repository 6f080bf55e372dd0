"""The next candidates: rows -> strategy -> hyp sets -> rows. The only caller of strategies.

A child is computed from a snapshot of the rows that its strategy needs (``server.snapshots``), while nothing is locked; then
one statement locks the campaign's row for what must be exact, budget, number and duplicates, and grants the child. Its
randomness comes from (campaign seed, number), its parents from the rows named in ``bred_from``, so that any replica finds the
same hyp set again. Whoever lost the race for a number breeds again for the next one.

Asks that meet in one coordinator are bred for together: one snapshot, one lock and one COMMIT for all of them, each child
shown those before it as candidates in training.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, Row

from evolution.strategy import MOST_PENDING, Candidate, History, Needs, Proposal, Wait, candidate_rng
from hypevolve import messages
from hypevolve.hashes import hyp_hash
from server import leases, snapshots
from server.budget import OPEN
from server.caller import Caller, acting
from server.database import Database
from server.fair import Waiting, Work
from server.snapshots import Memory, Plan, Snapshot
from server.strategies import create
from server.transaction import Statement, fetch

NOTHING = Needs(fittest=0)
MAX_DRAWS = 100  # for a child nobody has trained; a space with fewer points than candidates must repeat some in the end
STUBBORN = 4  # draws of the strategy's own; one that climbs to the best point it knows may find a trained one again and again
TOGETHER = 32  # asks that are bred for at once


class _Child(NamedTuple):
    """A hyp set that is not yet a row, and what it was bred from."""

    history: History
    proposal: Proposal
    draws: int

    @property
    def number(self) -> int:
        return self.history.number


@dataclass
class Wish:
    """One slot of a request that wants a candidate."""

    ask: messages.Ask
    slot: int
    caller: Caller = field(default_factory=acting.get)  # asks of several are bred for together
    granted: list[messages.Lease] = field(default_factory=list)  # of the whole request so far; none where there is no work
    over: bool = False
    error: BaseException | None = None


class _Stopped(Exception):
    """People or a limit ended the campaign while a child was computed for it."""


class Seen(NamedTuple):
    """A campaign whose history was read before anybody knew that it would be needed: that of the last quick one."""

    campaign_id: int = 0
    needs: Needs = NOTHING
    rows: Sequence[Mapping[str, Any]] = ()


class _Turn:
    """Of one campaign in this process: whoever holds the lock breeds for all that wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wishes: list[Wish] = []


class Breeder:
    """Breeds for the campaigns of one coordinator. It remembers what never changes, and nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.waiting = Waiting()
        self._turns: defaultdict[int, _Turn] = defaultdict(_Turn)
        self._memory = Memory()
        self.next_time = Seen()

    def at_once(self, connection: Connection, work: Work, wishes: Sequence[Wish], seen: Seen) -> bool:
        """Breed for wishes in the transaction that chose the campaign; False where its strategy is not quick.

        What is not granted then, and why, is for ``breed`` to find out.
        """
        plan = self._memory.plan(connection, work.id, work.edition)
        if plan is None or not plan.quick:
            return False
        if (seen.campaign_id, seen.needs) == (work.id, plan.strategy.needs):
            history = snapshots.known_history(connection, seen.rows, work.bred, plan, self._memory)
        else:
            history = snapshots.read_history(connection, work.id, work.bred, plan, self._memory)
        self.next_time = Seen(work.id, plan.strategy.needs)
        snapshot = Snapshot(work.id, plan, history, work.unbred)
        children = _children(snapshot, candidate_rng(plan.campaign.seed, work.bred), 1, len(wishes))
        if children:
            with contextlib.suppress(_Stopped):
                _insert(connection, snapshot, children, wishes)
        return True

    def breed(self, work: Work, ask: messages.Ask, slot: int) -> list[messages.Lease]:
        """Breed a candidate for a campaign and grant it to a slot of a request.

        The leases of the request, with those it had before; none where the campaign's numbers are given out, its strategy waits
        for results, or it was stopped meanwhile.
        """
        return self._fulfil(work, Wish(ask, slot)).granted

    def _fulfil(self, work: Work, wish: Wish) -> Wish:
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

    def _breed(self, work: Work, wishes: Sequence[Wish]) -> None:
        wishes = list(wishes)
        while wishes:
            # A copy of a request that came at the same moment finds in the next round what the first was given.
            first = list({(wish.ask.request_id, wish.slot): wish for wish in reversed(wishes)}.values())[::-1]
            snapshot = self._database.run(lambda connection: snapshots.take(connection, work.id, self._memory))
            if snapshot is None:
                return
            rng = candidate_rng(snapshot.plan.campaign.seed, snapshot.number)
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


def _children(snapshot: Snapshot, rng: np.random.Generator, draws: int, most: int) -> list[_Child]:
    """The next ``most`` children, or as many as the budget and the strategy give; ``rng`` is the first one's."""
    children: list[_Child] = []
    history, space = snapshot.history, snapshot.plan.campaign.space
    while len(children) < min(most, snapshot.left):
        proposal = draw(snapshot.plan, history, rng, draws)
        if isinstance(proposal, Wait):
            break
        children.append(_Child(history, proposal, draws))
        pending = history.pending
        if snapshot.plan.strategy.needs.pending:
            pending = (Candidate(history.number, space.encode(space.decode(proposal.hyp))), *pending)[:MOST_PENDING]
        history = replace(history, number=history.number + 1, pending=pending)
        rng, draws = candidate_rng(snapshot.plan.campaign.seed, history.number), 1
    return children


def draw(plan: Plan, history: History, rng: np.random.Generator, draws: int) -> Proposal | Wait:
    """The ``draws``-th draw of a child; a strategy that only repeats what was trained is helped out by mutations."""
    space = plan.campaign.space
    if history.number == 0:
        return Proposal(space.start, ())
    strategy = plan.strategy if draws <= STUBBORN else create("yolov5-2021", {})
    return strategy.propose(space, history, rng)


# What must be exact when numbers are given out, under the campaign's lock. ``bred`` and ``revision`` are those of the locked
# row; all else is as old as the statement, but whoever bred a candidate since then has changed ``bred`` too. Children are taken
# up to the first that somebody has trained already.
_INSERT = Statement(
    "insert_children",
    f"""
    with c as (
      select c.*, {OPEN} as open from campaign c where c.id = %(id)s for no key update
    ), r as (
      select * from json_to_recordset(%(rows)s) as r (
        number int, hyp json, hash text, origin text, parents json, bred_from jsonb, again boolean,
        token text, request uuid, slot int, worker uuid, devices int, who text)
    ), met as (
      select c.*,
             exists (select 1 from r where (  -- each looked up by itself
               select true from attempt a where a.request_id = r.request and a.request_slot = r.slot limit 1)) as repeated,
             (select min(r.number) from r where r.again and (
               select true from candidate k where k.campaign_id = %(id)s and k.hyp_hash = r.hash limit 1)) as twin
      from c
    ), good as (
      select r.* from r, met where met.open and met.revision = %(revision)s and not met.repeated
        and met.bred = (select min(number) from r) and met.bred + (select count(*) from r) <= met.candidates
        and (met.twin is null or r.number < met.twin)
    ), counted as (
      update campaign set bred = bred + (select count(*) from good) where id = %(id)s and exists (select 1 from good)
    ), new as (
      insert into candidate (campaign_id, number, hyp, hyp_hash, origin, parents, bred_from, state, token, attempts)
      select %(id)s, number, hyp, hash, origin, array(select json_array_elements_text(parents)::int), bred_from, 'leased',
             token, 1
      from good order by number returning id, number
    ), tried as (
      insert into attempt (token, candidate_id, worker_id, request_id, request_slot, devices)
      select token, id, worker, request, slot, devices from good join new using (number)
      returning token, candidate_id, worker_id, started_at
    ), held as (
      insert into lease (candidate_id, campaign_id, worker_id, token, lease_s, expires_at, beat_at)
      select candidate_id, %(id)s, worker_id, token, lease_s, started_at + make_interval(secs => lease_s), started_at
      from tried, met
    ), told as (
      insert into event (campaign_id, number, kind, detail, who)
      select %(id)s, number, kind, case kind when 'bred' then jsonb_build_object('parents', parents)
                                   else jsonb_build_object('worker', worker) end, who
      from good, (values ('bred'), ('leased')) as happened (kind) order by number, kind
    )
    select open, revision, repeated, bred, candidates, name, seed, same_seed, lease_s, beat_s, data_hash,
           coalesce((select json_object_agg(number, id) from new), '{{}}') as ids
    from met
    """,
    id="bigint",
    revision="int",
    rows="json",
)


def _insert(connection: Connection, snapshot: Snapshot, children: Sequence[_Child], wishes: Sequence[Wish]) -> int | None:
    """Give numbers to children, grant them, and say how many; 0 where the first has to be drawn again, None where overtaken.

    Raises:
        _Stopped: nothing may be given out any more.
    """
    hyps = [snapshot.plan.campaign.space.decode(child.proposal.hyp) for child in children]
    rows: list[dict[str, Any]] = []
    for child, hyp, wish in zip(children, hyps, wishes, strict=False):
        digest, again = hyp_hash(hyp), child.number > 0 and child.draws < MAX_DRAWS
        if again and any(row["hash"] == digest for row in rows):
            break  # the next round draws it again
        rows.append(
            {
                "number": child.number,
                "hyp": hyp,
                "hash": digest,
                "again": again,
                "origin": "bred" if child.number else "initial",
                "parents": child.proposal.parents,
                "bred_from": {part: [seen.number for seen in getattr(child.history, part)] for part in snapshots.PARTS}
                | {"draws": child.draws},
                "token": leases.new_token(),
                "request": str(wish.ask.request_id),
                "slot": wish.slot,
                "worker": str(wish.ask.worker),
                "devices": max(len(wish.ask.devices), 1),
                "who": wish.caller.name,
            }
        )
    values = {"id": snapshot.campaign_id, "revision": snapshot.plan.revision, "rows": json.dumps(rows)}
    met = fetch(connection, _INSERT, **values).one()
    if not met.repeated and (not met.open or met.bred >= met.candidates):
        raise _Stopped
    overtaken = met.bred != snapshot.number or met.revision != snapshot.plan.revision
    if met.repeated or overtaken or met.bred + len(rows) > met.candidates:
        return None
    for wish, row in zip(wishes, rows, strict=False):
        id = met.ids.get(str(row["number"]))
        if id is not None and wish.slot == 0:
            wish.granted = [_lease(met, snapshot.plan.document, id, row)]
    if any(wish.slot for wish in wishes):
        _find_granted(connection, [wish for wish in wishes if wish.slot])
    return len(met.ids)


def _lease(met: Row[Any], document: Mapping[str, Any], id: int, row: Mapping[str, Any]) -> messages.Lease:
    return leases.lease(
        met, document, candidate=id, campaign=met.name, number=row["number"], rung=0, token=row["token"], hyp=row["hyp"],
        hyp_hash=row["hash"],
    )  # fmt: skip


def _find_granted(connection: Connection, wishes: Sequence[Wish]) -> None:
    """Give each wish what its request has been granted."""
    granted = leases.granted_to(connection, [wish.ask.request_id for wish in wishes])
    for wish in wishes:
        found = granted.get(wish.ask.request_id, [])
        wish.granted = [lease for _, lease in found] if wish.slot in [slot for slot, _ in found] else []
