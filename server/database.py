"""The one door to PostgreSQL: engines, transactions with bounded retries, migrations.

Two pools: heartbeats, results and releases never wait behind asks and pages. Every transaction is short and has time limits set
with SET LOCAL, which also works through pgbouncer in transaction mode. A whole transaction is retried where PostgreSQL says
that trying again can help; everything else that the database cannot answer becomes ``Unavailable`` (503).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from server.errors import Unavailable
from server.transaction import before_execute, transaction

T = TypeVar("T")

# What PostgreSQL's codes (Appendix A of its manual) mean for a transaction, by class where a whole class means the same.
# "Try it again": rolled back for the sake of others, such as a serialization failure or a deadlock; a lock not had in time.
_TRY_AGAIN = ("40", "55P03")
# "Not now": connections; read-only; a session or transaction ended for its age; no memory, disk or connection left; an
# operator's hand, a crash, a start, a statement cut off; the disk's own errors; a broken configuration.
_NOT_NOW = ("08", "25006", "25P03", "25P04", "53", "57", "58", "F0")
# No such table, column or function: a mistake, unless the schema is older than this program, which a migration will mend.
_NOT_THERE = ("42P01", "42703", "42883")
# "Again, otherwise": the plan is not known, since something between us, such as pgbouncer, gave the session to somebody else.
_OTHER_SESSION = ("26000", "42P05")
_TRIES = 5

_UNIQUE_VIOLATION = "23505"
_NO_RIGHT = "42501"

_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
_MIGRATION_LOCK = 7_290_451
STARTING_S = 30.0  # a database that says it is starting up is waited for
TURN_S = 3  # a migration waits for a lock
LOCKED_S = 60.0  # a migration tries again for so long where others hold locks


def parse_url(url: str) -> URL:
    """``url`` for SQLAlchemy with psycopg2; accepts postgres:// and postgresql:// as people write them.

    Raises:
        ValueError: one line that says what a good URL looks like.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(
            f"database URL '{_without_password(url)}' is not of the form postgresql://user:password@host:5432/name"
        )
    return parsed.set(drivername="postgresql+psycopg2")


def _without_password(url: str) -> str:
    _, at, tail = url.rpartition("@")
    return f"…@{tail}" if at else url


class Database:
    """The pools of one coordinator process.

    Args:
        url: of any PostgreSQL >= 14.
        essential: connections kept for heartbeats, results and releases.
        ordinary: connections for everything else.
    """

    def __init__(self, url: str, *, essential: int = 5, ordinary: int = 9) -> None:
        self.url = parse_url(url)
        self._essential = _engine(self.url, essential)
        self._ordinary = _engine(self.url, ordinary)
        self._plans_stay = True  # in the session of a connection

    def run(self, work: Callable[[Connection], T], *, essential: bool = False) -> T:
        """``work`` in one transaction, committed when it returns; repeated as a whole where PostgreSQL asks for it.

        Raises:
            Unavailable: the database could not answer; nothing was committed, or the outcome of COMMIT is unknown (every
                mutation is idempotent, so repeating the request settles it).
        """
        engine = self._essential if essential else self._ordinary
        for tries_left in reversed(range(_TRIES)):
            try:
                with engine.connect() as connection:
                    return transaction(connection, work, self._plans_stay)
            except IntegrityError as error:
                # Two requests raced for one key: the loser looks again and finds the winner's row.
                if getattr(error.orig, "pgcode", None) != _UNIQUE_VIOLATION:
                    raise
                if tries_left == 0:
                    raise Unavailable("contended", "the same rows are being written by others; repeat the request") from error
            except DBAPIError as error:
                code = getattr(error.orig, "pgcode", None)
                if _is(code, _OTHER_SESSION):
                    self._plans_stay = False
                again = _is(code, _TRY_AGAIN + _OTHER_SESSION) or error.connection_invalidated
                if _is(code, _NOT_THERE) and self._schema_is_older():
                    raise Unavailable(
                        "schema", "the schema is older than this program; start a coordinator as its owner"
                    ) from error
                if not again and code is not None and not _is(code, _NOT_NOW):
                    raise  # a mistake of the program or of the schema
                if not again or tries_left == 0:
                    raise Unavailable(
                        "store", f"the database cannot answer now ({_reason(error)}); repeat the request"
                    ) from error
            except PoolTimeout as error:
                raise Unavailable("busy", "all database connections are in use; repeat the request") from error
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _schema_is_older(self) -> bool:
        try:
            with self._ordinary.connect() as connection:
                return _is_older(connection, ScriptDirectory.from_config(alembic_config()))
        except (DBAPIError, PoolTimeout):
            return False

    def close(self) -> None:
        self._essential.dispose()
        self._ordinary.dispose()


def _engine(url: URL, size: int) -> Engine:
    """A pool of connections whose transactions ``_transaction`` begins and ends.

    Connections are not tried before use: the first statement of a transaction finds a dead one just as well, and the
    transaction is repeated on another.
    """
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": 3,
            "application_name": "hypevolve",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        },
    )
    event.listen(engine, "handle_error", _leave_a_demoted_server)
    event.listen(engine, "before_cursor_execute", before_execute, retval=True)
    return engine


def _leave_a_demoted_server(context: ExceptionContext) -> None:
    """A server that has become read-only keeps its connections; only new ones find the server that took over."""
    if getattr(context.original_exception, "pgcode", None) == "25006":
        context.is_disconnect = True


def _is(code: str | None, classes: tuple[str, ...]) -> bool:
    return code is not None and code.startswith(classes)


def _reason(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0].strip() if lines else type(error.orig).__name__


def migrate(url: str, *, wait_s: float = 0.0) -> None:
    """Bring the schema to the newest revision; any number of coordinators may do so at once (advisory lock).

    A role without the right to change the schema is enough where there is nothing to change. A schema newer than this program,
    of a coordinator that has been updated already, is left as it is: revisions only add what older programs ignore.

    Args:
        url: of the database.
        wait_s: how long a database that cannot be reached is waited for.

    Raises:
        Unavailable: the database cannot be reached or refuses; names the reason and the remedy.
        ValueError: the URL is no PostgreSQL URL.
    """
    engine = create_engine(parse_url(url), poolclass=NullPool, connect_args={"connect_timeout": 3})
    began = time.monotonic()
    try:
        while True:
            try:
                _upgrade(engine)
                return
            except DBAPIError as error:
                reason = getattr(error.orig, "pgcode", None)
                waited = time.monotonic() - began
                # Both are started together often enough, and after a crash PostgreSQL recovers first.
                starting = "the database system is" in str(error.orig) and waited < STARTING_S
                locked = _is(reason, _TRY_AGAIN) and waited < LOCKED_S
                absent = reason is None and waited < wait_s
                if not (starting or locked or absent):
                    raise Unavailable("store", _why_not(url, error)) from error
            time.sleep(0.2)
    finally:
        engine.dispose()


def _why_not(url: str, error: DBAPIError) -> str:
    code, where = getattr(error.orig, "pgcode", None), _without_password(url)
    if code == _NO_RIGHT:
        return f"the schema at {where} is older than this program and this role may not change it; start once as its owner"
    if _is(code, _TRY_AGAIN):
        return f"the schema at {where} cannot be changed, something holds locks ({_reason(error)}); end it, and start again"
    return f"cannot use the database at {where}: {_reason(error)}; check --db or HYPEVOLVE_DATABASE_URL"


def _upgrade(engine: Engine) -> None:
    config = alembic_config()
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        if not _is_older(connection, script):
            return
        # Whoever waits for a lock on a table makes everybody else wait behind it: so not for long, and again a little later.
        connection.execute(text(f"set local lock_timeout = '{TURN_S}s'"))
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _is_older(connection: Connection, script: ScriptDirectory) -> bool:
    """Whether the schema lacks a revision; one that this program does not know is newer."""
    there = MigrationContext.configure(connection).get_current_revision()
    return there is None or (there != script.get_current_head() and there in {r.revision for r in script.walk_revisions()})


def alembic_config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
