"""What people decide about campaigns and candidates in flight: pause, resume, drain, cancel, try again. Each may be repeated.

A campaign's state is what people decided; that it is finished or halted is read off its numbers. Paused and draining give out
nothing, and what trains is finished; a draining campaign is then finished, a paused one goes on when it is resumed. Cancelled
is final: what was open is cancelled with it, and workers hear of it at their next heartbeat.

Locks are taken as everywhere: campaign, then candidates, then leases.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, text

from server import candidates, events
from server.campaigns import find, locked, open_row
from server.errors import Conflict

Decision = Literal["running", "paused", "draining"]


def decide(connection: Connection, name: str, state: Decision) -> None:
    """Pause, resume or drain.

    Raises:
        NotFound: no such campaign.
        Conflict: it was cancelled.
    """
    row = open_row(connection, name)
    if row.state != state:
        connection.execute(text("update campaign set state = :state where id = :id"), {"state": state, "id": row.id})
        events.record(connection, row.id, {"running": "resumed", "paused": "paused", "draining": "draining"}[state])


def cancel(connection: Connection, name: str) -> int:
    """End a campaign: nothing is given out any more, and what is queued or trains is cancelled; how many candidates.

    Raises:
        NotFound: no such campaign.
    """
    row = locked(connection, name)
    if row.state == "cancelled":
        return 0
    connection.execute(text("update campaign set state = 'cancelled' where id = :id"), {"id": row.id})
    cancelled = _cancel(connection, "campaign_id = :id and state in ('queued', 'leased', 'running')", id=row.id)
    events.record(connection, row.id, "campaign cancelled", candidates=cancelled)
    return cancelled


def cancel_candidate(connection: Connection, name: str, number: int) -> None:
    """End one candidate; its place in the budget stays used.

    Raises:
        NotFound: no such campaign or candidate.
        Conflict: it has ended already.
    """
    row = find(connection, name)
    found = candidates.find(connection, row, number)
    if found.state == "cancelled":
        return
    where = "campaign_id = :id and number = :number and state in ('queued', 'leased', 'running')"
    if not _cancel(connection, where, id=row.id, number=number):
        state = candidates.find(connection, row, number).state
        if state != "cancelled":
            raise Conflict("ended", f"candidate {number} of {name} is {state}, so there is nothing to cancel")
        return
    events.record(connection, row.id, "cancelled", number)


def retry_candidate(connection: Connection, name: str, number: int) -> None:
    """Offer a failed or cancelled candidate again, as if it had never been tried.

    Raises:
        NotFound: no such campaign or candidate.
        Conflict: it is done, or the campaign was cancelled.
    """
    row = open_row(connection, name)
    found = candidates.find(connection, row, number)
    if found.state == "done":
        raise Conflict("ended", f"candidate {number} of {name} is done; a result never changes")
    again = connection.execute(
        text(
            """
            update candidate set state = 'queued', attempts = 0, failures = 0, failure = null, finished_at = null
            where campaign_id = :id and number = :number and state in ('failed', 'cancelled')
            """
        ),
        {"id": row.id, "number": number},
    ).rowcount
    if again:
        events.record(connection, row.id, "offered again", number)


def _cancel(connection: Connection, where: str, **values: Any) -> int:
    ended = connection.execute(
        text(
            f"""
            update candidate set state = 'cancelled', finished_at = clock_timestamp() where {where} returning id, token
            """
        ),
        values,
    ).all()
    connection.execute(text("delete from lease where candidate_id = any(:ids)"), {"ids": [row.id for row in ended]})
    connection.execute(
        text(
            """
            update attempt set outcome = 'cancelled', ended_at = clock_timestamp()
            where token = any(:tokens) and outcome is null
            """
        ),
        {"tokens": [row.token for row in ended if row.token is not None]},
    )
    return len(ended)
