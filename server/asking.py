"""One ask for work: what this request already got; else, campaign by campaign in fair order, what came back or a new child."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection

from hypevolve import messages
from server import fair, fleet, leases
from server.breeding import Breeder
from server.database import Database


class Answer(NamedTuple):
    """The leases for a request, none where there is no work now; and how its worker stands."""

    leases: list[messages.Lease]
    standing: fleet.Standing


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
