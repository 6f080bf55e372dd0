"""The log of every change: written in the same transaction as the change, with who made it, read in its final order.

The order is (transaction, id). Ids are drawn before COMMIT, so an event is shown only once no transaction as old as its own is
still running: who has read up to a place has read everything before it, for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, text

from hypevolve import messages
from server.caller import acting
from server.errors import Invalid
from server.transaction import later

START = "0-0"
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,18})")
_FINAL = "e.xid < pg_snapshot_xmin(pg_current_snapshot())"


def record(connection: Connection, campaign_id: int | None, kind: str, number: int | None = None, **detail: Any) -> None:
    """Write down that the present caller changed something; ``campaign_id`` is None for changes of the service itself."""
    later(
        connection,
        """
        insert into event (campaign_id, number, kind, detail, who)
        values (%(campaign)s, %(number)s, %(kind)s, %(detail)s, %(who)s)
        """,
        campaign=campaign_id,
        number=number,
        kind=kind,
        detail=json.dumps(detail),
        who=acting.get().name,
    )


def latest(connection: Connection, campaign_id: int, limit: int) -> list[dict[str, Any]]:
    """The newest events first."""
    rows = connection.execute(
        text(
            "select e.id, e.number, e.kind, e.who, e.detail, e.at from event e"
            f" where e.campaign_id = :campaign and {_FINAL} order by e.xid desc, e.id desc limit :limit"
        ),
        {"campaign": campaign_id, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


Place = tuple[int, int]  # transaction and id: where an event stands in the final order


def read_place(cursor: str) -> Place:
    """Raises Invalid: the cursor is not one of ours."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise Invalid("cursor", "after: is no cursor of this list; leave it out to start at the first event")
    return int(found[1]), int(found[2])


def write_place(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


def after(connection: Connection, campaign_id: int | None, place: Place, limit: int) -> list[tuple[Place, messages.Event]]:
    """The events beyond a place, the oldest first; those of the service itself where ``campaign_id`` is None."""
    which = "e.campaign_id is null" if campaign_id is None else "e.campaign_id = :campaign"
    rows = connection.execute(
        text(
            f"""
            select e.id, c.name as campaign, e.number, e.kind, e.who, e.detail, e.at, e.xid::text as xid
            from event e left join campaign c on c.id = e.campaign_id
            where {which} and {_FINAL} and (e.xid, e.id) > (cast(:xid as xid8), :id) order by e.xid, e.id limit :limit
            """
        ),
        {"campaign": campaign_id, "xid": str(place[0]), "id": place[1], "limit": limit},
    )
    return [((int(row.xid), row.id), messages.Event.model_validate(row._mapping)) for row in rows]


def newest(connection: Connection, campaigns: Collection[int]) -> dict[int, Place]:
    """Where each of these campaigns stands: the place of its newest event."""
    rows = connection.execute(
        text(
            f"""
            select c.id as campaign, n.xid::text as xid, n.id from unnest(cast(:campaigns as bigint[])) as c (id)
            cross join lateral (select e.xid, e.id from event e where e.campaign_id = c.id and {_FINAL}
                                order by e.xid desc, e.id desc limit 1) n
            """
        ),
        {"campaigns": list(campaigns)},
    )
    return {row.campaign: (int(row.xid), row.id) for row in rows}


def page(connection: Connection, campaign_id: int | None, *, cursor: str, limit: int) -> messages.EventPage:
    """The events after a cursor, the oldest first; those of the service itself where ``campaign_id`` is None.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    found = after(connection, campaign_id, read_place(cursor), limit)
    return messages.EventPage(items=[event for _, event in found], next=write_place(found[-1][0]) if found else cursor)
