"""The log of everything that changed state: written in the same transaction as the change, read in order."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from server.tables import event


def record(connection: Connection, campaign_id: int, kind: str, number: int | None = None, **detail: Any) -> None:
    connection.execute(event.insert().values(campaign_id=campaign_id, number=number, kind=kind, detail=detail))


def latest(connection: Connection, campaign_id: int, limit: int) -> list[dict[str, Any]]:
    """The newest events first.

    An event is shown only once no older transaction is still running: ids are drawn before COMMIT, so that without this a
    reader who has seen event 7 could later find a 6 he never saw.
    """
    rows = connection.execute(
        text(
            "select id, number, kind, detail, at from event"
            " where campaign_id = :campaign and xid < pg_snapshot_xmin(pg_current_snapshot()) order by id desc limit :limit"
        ),
        {"campaign": campaign_id, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]
