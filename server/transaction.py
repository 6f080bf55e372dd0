"""One transaction on one connection: what is sent to PostgreSQL, and in how few messages.

A transaction costs one message for each statement whose answer is needed, and one more. It begins in the message of its first
statement; statements that nobody waits for (``later``) go with the next one or with COMMIT. SET LOCAL leaves nothing behind in
the session, which pgbouncer may give to somebody else.

What every ask and result executes is a ``Statement``, planned once by each connection: planning cost more than executing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import psycopg2
from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

PLAN_S = 5.0  # a plan is made again: it is as good as the tables were large, and PostgreSQL itself looks but every minute

_BEGIN = "begin; set local statement_timeout = '5s'; set local lock_timeout = '1s'; "
# A plan is made for any values, maybe of tables that are still empty: it is to walk indexes, as it would in large ones.
_BEGIN_PLANNED = (
    _BEGIN
    + "set local plan_cache_mode = force_generic_plan; "
    + "".join(
        f"set local enable_{way} = off; " for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort", "material")
    )
)
_BEGINS, _LATER = "hypevolve.begins", "hypevolve.later"
_PLANS_STAY, _PLANNED, _NAMES = "hypevolve.plans_stay", "hypevolve.planned", "hypevolve.names"
_AS_IT_IS = {"no_parameters": True}


class Statement:
    """A statement that each connection plans once, if its session lasts; else it is planned each time.

    Args:
        name: a word, for those who read PostgreSQL's logs.
        text: with values as psycopg2 writes them, ``%(name)s``.
        types: PostgreSQL's type of each value, by name.
    """

    def __init__(self, name: str, text: str, /, **types: str) -> None:
        self.text, self._types = text, types
        self._name = f"hypevolve_{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        numbered = text % {name: f"${n}" for n, name in enumerate(types, 1)}
        self._prepare = f"prepare %s ({', '.join(types.values())}) as {numbered}; "
        casts = {name: f"cast(%({name})s as {type})" for name, type in types.items()}
        self._values = f"({', '.join(casts.values())})" if types else ""
        self._plain = text % casts

    @classmethod
    def of(cls, name: str, /, **parts: Self) -> Self:
        """Several queries in one: a row with a column for each, a list of its rows as JSON objects."""
        columns = [
            f"(select coalesce(json_agg(row_to_json(one_row)), '[]') from ({one.text}) one_row) as {column}"
            for column, one in parts.items()
        ]
        types = {name: type for one in parts.values() for name, type in one._types.items()}
        return cls(name, f"select {', '.join(columns)}", **types)

    def message(self, connection: Connection, values: dict[str, Any]) -> str:
        """What has to be sent to execute it."""
        cursor, info = _cursor(connection), connection.info
        if not info[_PLANS_STAY]:
            return str(cursor.mogrify(self._plain, values).decode())
        planned: dict[str, tuple[str, float]] = info.setdefault(_PLANNED, {})
        (name, made_at), now, prepare = planned.get(self._name, ("", 0.0)), time.monotonic(), ""
        if not name or now - made_at > PLAN_S:
            prepare = f"deallocate {name}; " if name else ""
            info[_NAMES] = info.get(_NAMES, 0) + 1  # a plan that was forgotten is not in the way of the next
            name = f"{self._name}_{info[_NAMES]}"
            planned[self._name] = name, now
            prepare += self._prepare % name
        return f"{prepare}execute {name}{cursor.mogrify(self._values, values).decode()}"


def fetch(connection: Connection, statement: Statement, **values: Any) -> CursorResult[Any]:
    """Execute a statement now.

    Args:
        connection: that of ``Database.run``.
    """
    asked = statement.message(connection, values)
    begin = _BEGIN_PLANNED if connection.info.pop(_BEGINS, False) else ""
    return connection.exec_driver_sql(begin + _queued(connection) + asked, execution_options=_AS_IT_IS)


def later(connection: Connection, statement: str | Statement, **values: Any) -> None:
    """Execute a statement whose answer nobody needs, together with the next one that is waited for, or with COMMIT.

    Args:
        connection: that of ``Database.run``.
        statement: with values as psycopg2 writes them, ``%(name)s``.
    """
    if isinstance(statement, Statement):
        connection.info[_LATER].append(statement.message(connection, values))
    else:
        connection.info[_LATER].append(_cursor(connection).mogrify(statement, values).decode())


def copy(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Append many rows to a table in one statement, COPY. The transaction has begun already; None is written as null.

    Args:
        connection: that of ``Database.run``.
        table: its name.
        columns: whose values each row has, as PostgreSQL reads them.
        rows: the values.
    """
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    text.seek(0)
    statement = f"copy {table} ({', '.join(columns)}) from stdin (format csv)"
    cursor = _cursor(connection)
    try:
        cursor.copy_expert(statement, text)
    except psycopg2.Error as error:
        raise DBAPIError.instance(
            statement, None, error, psycopg2.Error, connection_invalidated=bool(cursor.connection.closed)
        ) from error


def _cursor(connection: Connection) -> Any:
    return connection.connection.cursor()


def transaction(connection: Connection, work: Callable[[Connection], T], plans_stay: bool) -> T:
    connection.info.update({_BEGINS: True, _LATER: [], _PLANS_STAY: plans_stay})
    try:
        done = work(connection)
        queued, begins = _queued(connection), connection.info.pop(_BEGINS, False)
        if queued or not begins:
            connection.exec_driver_sql((_BEGIN if begins else "") + queued + "commit", execution_options=_AS_IT_IS)
        return done
    except BaseException:
        if not connection.invalidated:  # also where COMMIT itself failed
            connection.info[_LATER].clear()
            connection.info.get(_PLANNED, {}).clear()  # whether those of this transaction were made is not known
            if not connection.info.pop(_BEGINS, False):
                _roll_back(connection)
        raise


def _roll_back(connection: Connection) -> None:
    """A connection that cannot even do this is of no use to anybody."""
    try:
        connection.exec_driver_sql("rollback")
    except DBAPIError:
        connection.invalidate()


def _queued(connection: Connection) -> str:
    queued = connection.info.get(_LATER)
    if not queued:
        return ""
    statements = "; ".join(queued) + "; "
    queued.clear()
    return statements


def before_execute(
    connection: Connection, cursor: Any, statement: str, parameters: object, context: object, many: bool
) -> tuple[str, object]:
    """Put in front of a statement what has to go before it."""
    begin = _BEGIN if connection.info.pop(_BEGINS, False) else ""
    queued = _queued(connection)
    if queued or (begin and many):
        try:
            cursor.execute(begin + queued)  # its own message: it holds values, and the statement's are not yet put in
        except psycopg2.Error as error:
            raise DBAPIError.instance(
                queued, None, error, psycopg2.Error, connection_invalidated=bool(cursor.connection.closed)
            ) from error
        begin = ""
    return begin + statement, parameters
