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
        leases.see_worker(connection, request.worker, request.devices)
        before = leases.granted(connection, request.request_id)
        return before, 0 if before else leases.take(connection, request, range(request.n))

    before, taken = database.run(repeat_or_take)
    if before:
        return before
    if taken + breeder.breed(request, range(taken, request.n)) == 0:
        return []
    return database.run(lambda connection: leases.granted(connection, request.request_id))
