"""Asks for work: what this request already got; else, campaign by campaign in fair order, what came back or a new child.

Asks that meet are served together where all that each of them needs is a new child of a quick strategy (``together``): one
transaction of a few statements. Every other ask goes alone (``ask``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from evolution.strategy import Needs
from hypevolve import messages
from server import fair, fleet, leases
from server.breeding import Breeder, Wish
from server.caller import Caller, speaking_for
from server.database import Database
from server.snapshots import history_of
from server.transaction import Statement, fetch


class Answer(NamedTuple):
    """The leases for a request, none where there is no work now; and how its worker stands."""

    leases: list[messages.Lease]
    standing: fleet.Standing


class Asked(NamedTuple):
    ask: messages.Ask
    caller: Caller


@lru_cache(maxsize=64)
def _look(needs: Needs) -> Statement:
    """All that most asks need to know, in one message."""
    return Statement.of("look", standings=fleet.STANDINGS, works=fair.WORKS, history=history_of(needs))


class Chosen(NamedTuple):
    """A campaign for whose next candidate an ask has to wait while it is computed; ``bred`` goes on."""

    standing: fleet.Standing
    work: fair.Work


def together(connection: Connection, breeder: Breeder, asked: Sequence[Asked]) -> list[Answer | Chosen | None]:
    """The answers to several asks of callers who may see every campaign; None for those that have to go alone."""
    seen, values = breeder.next_time, fleet.values_of([one.ask for one in asked], [one.caller for one in asked])
    look = fetch(connection, _look(seen.needs), id=seen.campaign_id, names=None, **values).one()
    standings = [fleet.as_standing(row, one.ask) for row, one in zip(look.standings, asked, strict=True)]
    works = {work.id: work for work in breeder.waiting.without(fair.Work(**row) for row in look.works)}
    seen = seen._replace(rows=look.history)
    left = dict(works)
    answers: list[Answer | Chosen | None] = [None] * len(asked)
    chosen: defaultdict[int, list[tuple[int, Wish]]] = defaultdict(list)
    requests: set[UUID] = set()
    for place, ((ask, caller), standing) in enumerate(zip(asked, standings, strict=True)):
        if standing.repeated or standing.revoked or ask.n > 1 or ask.request_id in requests:
            continue
        requests.add(ask.request_id)
        if not standing.seen:
            with speaking_for(caller):
                leases.see_worker(connection, ask.worker, ask.devices)
        suited = [work for work in left.values() if work.returned + work.unbred and work.suits(standing.offer, ask.campaigns)]
        if standing.command is not None or not suited:
            answers[place] = Answer([], standing)
            continue
        work = min(suited, key=lambda work: work.order)
        left[work.id] = work.given()
        if not work.returned:
            chosen[work.id].append((place, Wish(ask, 0, caller)))
    for id, wishes in chosen.items():
        quick = breeder.at_once(connection, works[id], [wish for _, wish in wishes], seen)
        for place, wish in wishes:
            if wish.granted:
                answers[place] = Answer(wish.granted, standings[place])
            else:
                answers[place] = None if quick else Chosen(standings[place], works[id])
    return answers


def bred(database: Database, breeder: Breeder, request: messages.Ask, chosen: Chosen) -> Answer:
    """Serve an ask from a campaign that was chosen for it, or else as if none had been."""
    granted = breeder.breed(chosen.work, request, 0)
    return Answer(granted, chosen.standing) if granted else ask(database, breeder, request)


def ask(database: Database, breeder: Breeder, request: messages.Ask) -> Answer:
    """Serve one ask. A worker that is draining or in quarantine gets only what the same request got before."""

    def begin(connection: Connection) -> tuple[list[messages.Lease], fleet.Standing, int, fair.Work | None]:
        standing = fleet.standing(connection, request)
        if not standing.seen:
            leases.see_worker(connection, request.worker, request.devices)
        if standing.repeated:
            return leases.granted(connection, request.request_id), standing, 0, None
        if standing.command is not None:
            return [], standing, 0, None
        return [], standing, *_returned(connection, breeder, request, standing.offer, 0, set())

    before, standing, taken, work = database.run(begin)
    if before or standing.command is not None:
        return Answer(before, standing)

    def more(connection: Connection) -> tuple[int, fair.Work | None]:
        """Go on after what this request has been granted by now, also through a copy of it that is served at the same time."""
        filled = leases.slots(connection, request.request_id)
        granted, work = _returned(connection, breeder, request, standing.offer, filled, barren)
        return filled + granted, work

    barren: set[int] = set()  # given out meanwhile, or waiting for results
    granted: list[messages.Lease] = []
    while work is not None and taken < request.n:
        bred = breeder.breed(work, request, taken)
        if bred:
            granted, taken = bred, taken + 1
        else:
            barren.add(work.id)
        if taken < request.n:
            taken, work = database.run(more)
    if taken > len(granted) or barren:  # the last ones had come back, or a copy of this request was quicker
        granted = database.run(lambda connection: leases.granted(connection, request.request_id))
    return Answer(granted, standing)


def _returned(
    connection: Connection, breeder: Breeder, request: messages.Ask, offer: fair.Offer, slot: int, barren: set[int]
) -> tuple[int, fair.Work | None]:
    """Take what came back as long as the fair order says so: how many were granted, and the campaign to breed for next."""
    taken = 0
    passed: set[int] = set()  # its returned candidates were taken by others
    while slot + taken < request.n:
        works = breeder.waiting.without(fair.works(connection, request.campaigns))
        works = [work for work in works if work.suits(offer, request.campaigns)]
        work = next((w for w in works if (w.returned and w.id not in passed) or (w.unbred and w.id not in barren)), None)
        if work is None:
            break
        if not work.returned or work.id in passed:
            return taken, work
        if leases.take(connection, request, work.id, slot + taken):
            taken += 1
        else:
            passed.add(work.id)
    return taken, None
