"""What everybody was told, and what the database holds afterwards, by the keys that the judge's rules need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extras

Line = Mapping[str, Any]
Row = Mapping[str, Any]
CLOCK_S = 0.005  # journals and database share one machine's clock; what is read apart may differ by this much

_ROWS = {
    "candidates": """
        select id, number, state, failures, extract(epoch from finished_at)::float8 as finished_at from candidate k
        where campaign_id = (select id from campaign where name = %(name)s) and number >= 0 order by number
    """,
    "attempts": """
        select a.token, candidate_id, outcome, extract(epoch from started_at)::float8 as started_at,
               extract(epoch from ended_at)::float8 as ended_at
        from attempt a join candidate k on k.id = candidate_id
        where k.campaign_id = (select id from campaign where name = %(name)s) order by started_at
    """,
    "results": """
        select r.token, candidate_id, r.rung, counts, r.fitness from result r join candidate k on k.id = candidate_id
        where k.campaign_id = (select id from campaign where name = %(name)s)
    """,
    "leases": """
        select l.token from lease l join candidate k on k.id = l.candidate_id
        where k.campaign_id = (select id from campaign where name = %(name)s)
    """,
}


@dataclass(frozen=True)
class Rows:
    """What the database holds of one campaign. Times are seconds since 1970."""

    candidates: Sequence[Row]
    attempts: Sequence[Row]  # by start
    results: Sequence[Row]
    leases: Sequence[Row] = ()


def read(dsn: str, name: str) -> Rows:
    """The rows of campaign ``name``."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            found = {}
            for table, query in _ROWS.items():
                cursor.execute(query, {"name": name})
                found[table] = cursor.fetchall()
    finally:
        connection.close()
    return Rows(**found)


class History:
    """``lines`` are answers; ``sent`` are results as they left, by token."""

    def __init__(self, lines: list[Line], rows: Rows) -> None:
        self.rows = rows
        self.lines = [line for line in lines if not line.get("sending")]
        self.sent: defaultdict[str, list[Line]] = defaultdict(list)
        for line in lines:
            if line.get("sending"):
                self.sent[line["token"]].append(line)
        self.results = {row["token"]: row for row in rows.results}
        self.attempts = {row["token"]: row for row in rows.attempts}
        self.candidates = {row["id"]: row for row in rows.candidates}
        self.of_candidate: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows.attempts:
            self.of_candidate[row["candidate_id"]].append(row)
        self.counted = {row["candidate_id"]: row["token"] for row in rows.results if row["counts"]}
        self.told: dict[str, float] = {}  # when the grant of a token was answered, the earliest
        for line in self.lines:
            for _, _, token in line.get("leases", ()):
                self.told[token] = min(self.told.get(token, line["at"][1]), line["at"][1])

    def later(self, token: str) -> list[Row]:
        """Attempts at the same candidate that began after this one."""
        row = self.attempts[token]
        return [other for other in self.of_candidate[row["candidate_id"]] if other["started_at"] > row["started_at"]]


def ok(line: Line) -> bool:
    return 200 <= (line.get("status") or 0) < 300
