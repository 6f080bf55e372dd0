"""The service's own heartbeat, so that an outage of ours is never taken for the death of a worker.

While the database or every coordinator is away no worker can be heard. Each coordinator writes the pulse every ``INTERVAL_S``;
whoever finds it older than ``SILENCE_S`` knows of such an outage and lets no lease expire for one lease length, in which living
workers beat again.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

INTERVAL_S = 2.0
SILENCE_S = 10.0


def beat(connection: Connection) -> None:
    """Write the pulse; after a silence, open a grace period as long as the longest lease."""
    connection.execute(
        text(
            """
            update pulse set
              grace_until = case when beat_at < clock_timestamp() - make_interval(secs => :silence)
                then clock_timestamp() + make_interval(secs => coalesce((select max(lease_s) from lease), 0))
                else grace_until end,
              beat_at = clock_timestamp()
            where beat_at < clock_timestamp() - make_interval(secs => :interval / 2)
            """
        ),
        {"silence": SILENCE_S, "interval": INTERVAL_S},
    )


# True while leases may expire: the pulse is fresh and no grace period is open. Part of the queries that look for expired
# leases.
LEASES_MAY_EXPIRE = f"""
    exists (select 1 from pulse
            where grace_until < clock_timestamp() and beat_at > clock_timestamp() - make_interval(secs => {SILENCE_S}))
"""
