"""The numbers of a campaign without counting its rows.

Each change of a candidate's state appends a row of deltas to ``tally``, by triggers and so in the same transaction, whoever
makes the change. A campaign's numbers are the sum of its few rows. Coordinators fold them every few seconds into one; nobody
waits for that, since no row is ever updated: there is no counter that every result must lock.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from server.tables import tally
from server.transaction import later

FOLD_FROM = 50  # rows of one campaign

_COLUMNS = [column.name for column in tally.columns if column.name not in ("id", "campaign_id")]
_SUMS = ", ".join(f"sum({name}) as {name}" for name in _COLUMNS)


class Tally(NamedTuple):
    """Candidates of the budget by state; ``imported`` rows; how often one was ``lost``; ``seconds`` of counted trainings.

    ``device_s`` are the seconds in which attempts that have ended held devices, times the devices held.
    """

    queued: int = 0
    leased: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    imported: int = 0
    lost: int = 0
    seconds: float = 0.0
    device_s: float = 0.0


def of(connection: Connection, campaign_id: int) -> Tally:
    """The numbers of one campaign, exactly as its rows are in this snapshot."""
    row = connection.execute(text(f"select {_SUMS} from tally where campaign_id = :id"), {"id": campaign_id}).one()
    return Tally(**{name: value for name, value in row._mapping.items() if value is not None})


def add(connection: Connection, campaign_id: int, **deltas: float) -> None:
    """Add to numbers that no trigger keeps: ``lost``, ``seconds``."""
    names = ", ".join(deltas)
    values = ", ".join(f"%({name})s" for name in deltas)
    later(
        connection, f"insert into tally (campaign_id, {names}) values (%(campaign)s, {values})", campaign=campaign_id, **deltas
    )


def fold(connection: Connection) -> None:
    """Add up the rows of every campaign that has many. Any number of coordinators may do so at once."""
    many = connection.execute(
        text("select campaign_id from tally group by campaign_id having count(*) >= :many"), {"many": FOLD_FROM}
    )
    for (campaign_id,) in many.all():
        connection.execute(
            text(
                f"""
                with folded as (
                  delete from tally where id in (
                    select id from tally where campaign_id = :id for update skip locked) returning *)
                insert into tally (campaign_id, {", ".join(_COLUMNS)})
                select campaign_id, {_SUMS} from folded group by campaign_id
                """
            ),
            {"id": campaign_id},
        )
