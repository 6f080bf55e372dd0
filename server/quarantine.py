"""A worker that fails everything is kept from candidates, not candidates from their budget.

Three different candidates failed in a row, results refused for the node's own data, or a candidate handed back because the node
lacks what it needs: then the worker gets nothing until it has passed its self-test. The first test may come at once; after each
further quarantine without a result in between it may come later, up to an hour. A worker that is started again under the same
name on the same host is the same worker here, so that a restart policy cannot use up a candidate's attempts.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from hypevolve import messages
from server.caller import VISIBLE
from server.transaction import later

IN_A_ROW = 3
FIRST_S = 5.0  # until the self-test, from the second quarantine on; doubled each time
LONGEST_S = 3600.0

# Reasons of a release that speak of the node, not of the candidate: its attempt is not counted.
NODE_FAULTS = ("not_installed", "no_data", "other_data", "disk")

# Why a worker w is in quarantine, as the caller may be told; its parameters are ``visible()``.
WHY = f"""
    case when w.quarantine_campaign is null
           or exists (select 1 from campaign c where c.id = w.quarantine_campaign and {VISIBLE}) then w.quarantine
         when w.quarantine is not null then 'candidates of a campaign that this token may not see failed here' end
"""

_BACK_OFF = f"""
    clock_timestamp() + make_interval(secs => case quarantines when 0 then 0
        else least({FIRST_S} * power(2, least(quarantines, 30) - 1), {LONGEST_S}) end)
"""


def succeeded(connection: Connection, worker: UUID) -> None:
    """A result of the worker counts: whatever it was suspected of is over."""
    later(
        connection,
        """
        update worker set failed_in_a_row = '{}', quarantines = 0
        where id = %(worker)s and (failed_in_a_row <> '{}' or quarantines > 0)
        """,
        worker=str(worker),
    )


def failed(connection: Connection, worker: UUID, candidate: int, why: str, campaign: int) -> None:
    """A training of the worker failed; the third different candidate in a row is enough."""
    row = connection.execute(
        text(
            """
            update worker set failed_in_a_row = array_append(array_remove(failed_in_a_row, :candidate), :candidate)
            where id = :worker returning cardinality(failed_in_a_row) as failures
            """
        ),
        {"worker": worker, "candidate": candidate},
    ).first()
    if row is not None and row.failures >= IN_A_ROW:
        close(connection, worker, f"{row.failures} different candidates failed here in a row, the last: {why}", campaign)


def close(connection: Connection, worker: UUID, why: str, campaign: int) -> None:
    """Nothing more for this worker until it passes its self-test; its other devices that find the same add nothing to that.

    ``campaign`` is the one that the reason names: whoever may not see it is not told the reason.
    """
    _close(connection, worker, why, campaign, "quarantine is null")


def _close(connection: Connection, worker: UUID, why: str, campaign: int | None, where: str) -> None:
    connection.execute(
        text(
            f"""
            update worker set quarantine = :why, quarantine_campaign = :campaign, quarantined_until = {_BACK_OFF},
                              quarantines = quarantines + 1, failed_in_a_row = '{{}}'
            where id = :worker and {where}
            """
        ),
        {"worker": worker, "why": why[:500], "campaign": campaign},
    )


def tested(connection: Connection, worker: UUID, test: messages.SelfTest) -> None:
    """A self-test that passed after the back-off ends the quarantine; one that did not prolongs it."""
    if not test.passed:
        _close(connection, worker, f"its self-test failed: {test.detail}", None, "true")
        return
    connection.execute(
        text(
            """
            update worker set quarantine = null, quarantine_campaign = null, quarantined_until = null, failed_in_a_row = '{}'
            where id = :worker and quarantine is not null and quarantined_until <= clock_timestamp()
            """
        ),
        {"worker": worker},
    )


def inherit(connection: Connection, worker: UUID, name: str, host: str) -> None:
    """What was held against the worker of that name on that host before this start of its process."""
    connection.execute(
        text(
            """
            update worker w set failed_in_a_row = b.failed_in_a_row, quarantines = b.quarantines,
                                quarantine = b.quarantine, quarantine_campaign = b.quarantine_campaign,
                                quarantined_until = b.quarantined_until
            from (select * from worker where name = :name and host = :host and id <> :worker
                  order by registered_at desc limit 1) b
            where w.id = :worker
            """
        ),
        {"worker": worker, "name": name, "host": host},
    )
