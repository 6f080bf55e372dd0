"""One ask for work, in the protocol's order: what this request already got, what came back, what nobody bred yet."""

from __future__ import annotations

from sqlalchemy import Connection

from hypevolve import messages
from server import leases
from server.breeding import Breeder
from server.database import Database


def ask(database: Database, breeder: Breeder, request: messages.Ask) -> list[messages.Lease]:
    """The leases for a request; empty where there is no work now."""

    def repeat_or_take(connection: Connection) -> tuple[list[messages.Lease], int]:
        found = leases.look(connection, request)
        if not found.seen:
            leases.see_worker(connection, request.worker, request.devices)
        if found.repeated:
            return leases.granted(connection, request.request_id), 0
        return [], leases.take(connection, request, range(request.n)) if found.work else 0

    before, taken = database.run(repeat_or_take)
    if before:
        return before
    bred = breeder.breed(request, range(taken, request.n))
    return database.run(lambda connection: leases.granted(connection, request.request_id)) if taken and not bred else bred
