"""What workers say of a future that this database has lost: it was restored from a backup, or to a point in time.

A lease given out after the backup is unknown here, but its training was real. A result for a candidate that is still known,
with the hyp set that was asked for, counts like any other; one for a candidate bred later is kept for audit and refused.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, text

from hypevolve import messages
from server import events
from server.transaction import later

WORKER = uuid.UUID(int=0)  # stands for whoever was granted a lease that is lost
REFUSAL = "the coordinator's database was restored to a time before this candidate was bred"


def speaks(connection: Connection, token: str) -> bool:
    """Whether ``token``, refused as unknown, may have been issued after the moment to which the database went back."""
    asked = text(
        """
        select exists (select 1 from restoration) and not exists (select 1 from attempt where token = :token)
        """
    )
    return bool(connection.execute(asked, {"token": token}).scalar_one())


def adopt(connection: Connection, candidate: int, token: str, body: messages.Result) -> bool:
    """Make a token of the lost future known again; False where its candidate is not the one that was trained."""
    found = connection.execute(
        text("select 1 from candidate where id = :id and hyp_hash = :hash for no key update"),
        {"id": candidate, "hash": body.hyp_hash},
    ).first()
    if found is None:
        detail: dict[str, Any] = {
            "candidate": candidate,
            "hyp_hash": body.hyp_hash,
            "metrics": body.metrics,
            "fitness": body.fitness,
        }
        events.record(connection, None, "result of a lost future", token=token[:8], **detail)
        return False
    later(
        connection, "insert into worker (id, name) values (%(id)s, 'before a restore') on conflict do nothing", id=str(WORKER)
    )
    later(
        connection,
        """
        insert into attempt (token, candidate_id, worker_id, request_id, request_slot)
        values (%(token)s, %(candidate)s, %(worker)s, %(request)s, 0)
        """,
        token=token,
        candidate=candidate,
        worker=str(WORKER),
        request=str(uuid.uuid5(WORKER, token)),
    )
    return True
