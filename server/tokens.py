"""Access tokens in the database: made, looked up, listed, revoked.

A token is ``hyp_ID_SECRET``: 48 bits by which its row is found, 256 random bits that nobody can guess. It is shown once; its
SHA-256 is what is stored, and compared in constant time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
from typing import Any

from sqlalchemy import Connection, Row, text

from hypevolve import messages
from server import events, leases
from server.caller import INCLUDES, Caller, acting
from server.errors import Conflict, NotFound
from server.tables import token as token_table

PATTERN = re.compile(r"hyp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_VALID = "(revoked_at is null and (expires_at is null or expires_at > clock_timestamp()))"


def fresh() -> str:
    """A new token, not yet stored."""
    return f"hyp_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def create(connection: Connection, wanted: messages.CreateToken) -> messages.NewToken:
    """Make a token. This answer is the only place where it can be read.

    Raises:
        Conflict: there is, or was, a token of this name: names stay unique, so that events name one token for ever.
    """
    secret, first = fresh(), not any_made(connection)
    row = store(connection, secret, wanted)
    return messages.NewToken(token=secret, first=first, **_public(row).model_dump())


def store(connection: Connection, secret: str, wanted: messages.CreateToken) -> Row[Any]:
    """Let ``secret`` in as the token that ``wanted`` describes.

    Raises:
        Conflict: there is, or was, a token of this name.
    """
    connection.execute(text("select pg_advisory_xact_lock(hashtext('token'), hashtext(:name))"), {"name": wanted.name})
    if find(connection, wanted.name) is not None:
        raise Conflict(
            "token-exists", f"there is or was a token called '{wanted.name}', and events name it; choose another name"
        )
    lifetime = None if wanted.expires_s is None else text("clock_timestamp() + make_interval(secs => :s)")
    if lifetime is not None:
        lifetime = lifetime.bindparams(s=wanted.expires_s)
    connection.execute(
        token_table.insert().values(
            id=_id(secret),
            name=wanted.name,
            sha256=_digest(secret),
            scopes=sorted(set(wanted.scopes)),
            campaigns=None if wanted.campaigns is None else sorted(set(wanted.campaigns)),
            created_by=acting.get().name,
            expires_at=lifetime,
        )
    )
    detail = wanted.model_dump(mode="json", exclude_none=True, exclude={"name"})
    events.record(connection, None, "token created", token=wanted.name, **detail)
    row = find(connection, wanted.name)
    assert row is not None
    return row


def look_up(connection: Connection, secret: str) -> Caller | None:
    """Whose token it is; None where it is none, was revoked or has expired."""
    row = connection.execute(
        text(f"select id, name, sha256, scopes, campaigns, last_used_at from token where id = :id and {_VALID}"),
        {"id": _id(secret)},
    ).first()
    if not hmac.compare_digest(row.sha256 if row else "", _digest(secret)) or row is None:
        return None
    connection.execute(
        text(
            """
            update token set last_used_at = clock_timestamp()
            where id = :id and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute')
            """
        ),
        {"id": row.id},
    )
    scopes = frozenset(scope for held in row.scopes for scope in INCLUDES[held])
    return Caller(row.name, scopes, None if row.campaigns is None else frozenset(row.campaigns))


def any_made(connection: Connection) -> bool:
    """Whether a token was ever made; revoked ones count, so that revoking the last one opens no door."""
    return bool(connection.execute(text("select exists (select 1 from token)")).scalar_one())


def listed(connection: Connection) -> list[messages.Token]:
    """Every token, the newest first."""
    return [
        _public(row) for row in connection.execute(text(f"select *, {_VALID} as valid from token order by created_at desc"))
    ]


def revoke(connection: Connection, name: str) -> messages.Token:
    """End a token. What its workers hold is offered to others at once. Repeating it changes nothing.

    Raises:
        NotFound: no such token.
    """
    ended = connection.execute(
        text("update token set revoked_at = clock_timestamp() where name = :name and revoked_at is null"), {"name": name}
    ).rowcount
    row = find(connection, name)
    if row is None:
        raise NotFound("unknown-token", f"no token is called '{name}'; `hypevolve token ls` lists them")
    if ended:
        # Their attempts end here: another coordinator may still let a heartbeat in for a few seconds, which must renew nothing.
        held = text(
            "select l.token from lease l join worker w on w.id = l.worker_id where w.who = :name order by l.candidate_id"
        )
        for lease in connection.execute(held, {"name": name}).scalars().all():
            with contextlib.suppress(Conflict):  # another worker has just taken it
                leases.release(connection, lease, "its token was revoked")
        events.record(connection, None, "token revoked", token=name)
    return _public(row)


def find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(text(f"select *, {_VALID} as valid from token where name = :name"), {"name": name}).first()


def known(connection: Connection, secret: str) -> bool:
    """Whether this very token is stored and valid."""
    row = connection.execute(text(f"select sha256 from token where id = :id and {_VALID}"), {"id": _id(secret)}).first()
    return row is not None and hmac.compare_digest(row.sha256, _digest(secret))


def _public(row: Row[Any]) -> messages.Token:
    return messages.Token.model_validate({key: value for key, value in row._mapping.items() if key not in ("id", "sha256")})


def _id(secret: str) -> str:
    form = PATTERN.fullmatch(secret)
    return form[1] if form else ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
