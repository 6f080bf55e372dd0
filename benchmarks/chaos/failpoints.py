"""Fail-points around every statement and COMMIT of a coordinator, put in from outside: the product has no hook for them.

``python -m benchmarks.chaos.failpoints lie:0.05 --port 0 --db URL`` is ``python -m server`` with a planted defect: of the
transactions that store a result, this share is rolled back and acknowledged all the same. The campaign must see that.
"""

from __future__ import annotations

import random
import re
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import Engine

# Called with the kind of a point ("before", "after", "before commit", "after commit") and the statement; what it raises is
# raised there. "lie", returned before a commit, rolls back instead and lets everybody believe in a commit. A COMMIT may be the
# driver's or the last word of a message.
Act = Callable[[str, str], str | None]


def engines_of(thing: object) -> set[Engine]:
    """The engines that an object holds, such as those of one coordinator's ``Database``."""
    return {value for value in vars(thing).values() if isinstance(value, Engine)}


class Failpoints:
    """While used as a context: ``act`` at every point of the given engines, of all engines where none are given."""

    def __init__(self, act: Act, engines: Collection[Engine] | None = None) -> None:
        self._act = act
        self._dialects = None if engines is None else {id(engine.dialect) for engine in engines}

    def __enter__(self) -> Self:
        event.listen(Engine, "before_cursor_execute", self._before, retval=True)
        event.listen(Engine, "after_cursor_execute", self._after)
        self._commit = PGDialect_psycopg2.do_commit
        points = self

        def do_commit(dialect: PGDialect_psycopg2, connection: Any) -> None:
            if not points._ours(dialect):
                return points._commit(dialect, connection)
            if points._act("before commit", "commit") == "lie":
                return dialect.do_rollback(connection)
            points._commit(dialect, connection)
            points._act("after commit", "commit")

        PGDialect_psycopg2.do_commit = do_commit  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        PGDialect_psycopg2.do_commit = self._commit  # type: ignore[method-assign]
        event.remove(Engine, "before_cursor_execute", self._before)
        event.remove(Engine, "after_cursor_execute", self._after)

    def _ours(self, dialect: Any) -> bool:
        return self._dialects is None or id(dialect) in self._dialects

    def _before(self, connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if self._ours(connection.dialect):
            lie = self._act(f"before{_commits(statement)}", statement) == "lie"
            if lie and _commits(statement):
                statement = statement.rstrip().removesuffix("commit") + "rollback"
        return statement, parameters

    def _after(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self._ours(connection.dialect):
            self._act(f"after{_commits(statement)}", statement)


_STORES = re.compile("insert into result|execute hypevolve_store_results", re.IGNORECASE)


def _commits(message: str) -> str:
    return " commit" if message.rstrip().endswith("commit") else ""


class _Liar:
    """Lies about a share of the commits that store a result."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._chance = random.Random(0)
        self._thread = threading.local()  # a transaction is one thread's

    def __call__(self, point: str, statement: str) -> str | None:
        if point.startswith("before") and _STORES.search(statement):
            self._thread.storing = True
        if point == "before commit" and getattr(self._thread, "storing", False):
            self._thread.storing = False
            return "lie" if self._chance.random() < self._share else None
        return None


def main(arguments: list[str]) -> int:
    from server.__main__ import main as serve

    defect, _, share = arguments[0].partition(":")
    if defect != "lie":
        raise SystemExit(f"unknown defect {defect}; known: lie:SHARE")
    with Failpoints(_Liar(float(share))):
        return serve(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
