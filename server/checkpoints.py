"""Which checkpoint a candidate goes on from: who may write one, which counts, what is removed. The bytes lie in the store.

An upload is announced by a row before its object exists and made current by one update after it is complete, under the row lock
of its candidate. The token rule is stricter than that of results: only the newest token may write, and only while its attempt
lives, so that no checkpoint of a silent node ever replaces that of its successor.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, Row, text

from hypevolve import messages
from server.artifacts import ArtifactStore
from server.database import Database
from server.errors import Conflict, NotFound
from server.leases import OVER, held

COLLECT_EVERY_S = 30.0
_BATCH = 200

# What nobody will read again: replaced or refused uploads, those whose sender died, checkpoints of candidates that have ended.
_GARBAGE = """
    select a.name from artifact a join candidate k on k.id = a.candidate_id
    where a.state = 'obsolete' or (a.state = 'writing' and a.created_at < clock_timestamp() - interval '6 h')
       or (a.state = 'current' and k.state in ('done', 'failed', 'cancelled'))
    limit :limit
"""


def announce(connection: Connection, token: str, sha256: str, epoch: int) -> str | messages.Checkpoint:
    """The name under which an upload is to be stored; what was answered before, where this very content is current already.

    Raises:
        NotFound: the token was never issued.
        Conflict: it is not the newest token of its candidate, or its attempt has ended.
    """
    row = _writer(connection, token)
    current = connection.execute(
        text("select sha256, token, bytes, epoch from artifact where candidate_id = :id and state = 'current'"), {"id": row.id}
    ).first()
    if current is not None and (current.sha256, current.token) == (sha256, token):
        return messages.Checkpoint(sha256=sha256, bytes=current.bytes, epoch=current.epoch)
    name = f"checkpoints/{row.id}/{uuid.uuid4().hex}"
    connection.execute(
        text(
            """
            insert into artifact (name, candidate_id, token, sha256, epoch) values (:name, :candidate, :token, :sha256, :epoch)
            """
        ),
        {"name": name, "candidate": row.id, "token": token, "sha256": sha256, "epoch": epoch},
    )
    return name


def complete(connection: Connection, token: str, name: str, size: int) -> None:
    """The object is whole: from now on the candidate goes on from it.

    Raises:
        Conflict: the token has been superseded while it was sending.
    """
    row = _writer(connection, token)
    connection.execute(
        text("update artifact set state = 'obsolete' where candidate_id = :id and state = 'current'"), {"id": row.id}
    )
    connection.execute(
        text("update artifact set state = 'current', bytes = :size where name = :name"), {"name": name, "size": size}
    )


def abandon(connection: Connection, name: str) -> None:
    """An upload came to nothing: its object, if there is one, is garbage."""
    connection.execute(text("update artifact set state = 'obsolete' where name = :name"), {"name": name})


def discard(connection: Connection, candidate: int) -> None:
    """After a failure the candidate starts anew: what failed may lie in the checkpoint."""
    connection.execute(
        text("update artifact set state = 'obsolete' where candidate_id = :id and state = 'current'"), {"id": candidate}
    )


def current(connection: Connection, candidate: int) -> tuple[str, messages.Checkpoint]:
    """The name of a candidate's checkpoint and what is known of it.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(
        text("select name, sha256, bytes, epoch from artifact where candidate_id = :id and state = 'current'"),
        {"id": candidate},
    ).first()
    if row is None:
        raise NotFound("no-checkpoint", f"candidate {candidate} has no checkpoint; start its training from the beginning")
    return row.name, messages.Checkpoint(sha256=row.sha256, bytes=row.bytes, epoch=row.epoch)


def collect(database: Database, store: ArtifactStore) -> int:
    """Remove what nobody will read again, a bounded number at once; how many objects went.

    Any number of replicas may do so at the same time: removing an object twice is no error, and its row goes last.

    Raises:
        Unavailable: the store or the database cannot answer now; the next call goes on.
    """
    names = database.run(lambda c: list(c.execute(text(_GARBAGE), {"limit": _BATCH}).scalars()))
    for name in names:
        store.delete(name)
    if names:
        database.run(lambda c: c.execute(text("delete from artifact where name = any(:names)"), {"names": names}).rowcount)
    return len(names)


def _writer(connection: Connection, token: str) -> Row[Any]:
    row = held(connection, token, lock=True)
    if row.current_token != token or row.outcome is not None or row.state in OVER:
        raise Conflict(
            "lease-lost",
            f"candidate {row.number} of {row.campaign} is no longer this worker's, so its checkpoint stays as it is",
        )
    return row
