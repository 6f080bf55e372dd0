"""Journals against rows: what was lost, what was doubled, which answers were wrong, how long leases were gone.

Written from docs/PROTOCOL.md and the tables alone. Nothing here is shared with the coordinator, so that a mistake of the
coordinator's cannot also be one of its judge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg2
import psycopg2.extras

Line = Mapping[str, Any]
Row = Mapping[str, Any]
SILENCE_S = 10.0
_CLOCK_S = 0.005  # journals and database share one machine's clock; what is read apart may differ by this much

_BY_RESULT = ("done", "late")  # outcomes of attempts that sent a result, the winner's and the others'

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


@dataclass
class Verdict:
    """What is wrong, each as one sentence. ``recovery_s`` is how long each lost lease was gone."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    illegal: list[str] = field(default_factory=list)
    budget: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.illegal or self.budget or self.slow)


def judge(
    lines: Iterable[Line],
    rows: Rows,
    *,
    planned: int,
    retries: int,
    poisoned: Callable[[int], bool],
    lease_s: float,
    outages: Sequence[tuple[float, float]] = (),
) -> Verdict:
    """Hold every line against the rows and the rows against each other."""
    found = Verdict()
    history = _History(list(lines), rows)
    found.answers = Counter(f"{line['do']} {line.get('status') or 'none'}" for line in history.lines)
    _acknowledged(history, found)
    _rows_alone(history, found)
    _budget(history, found, planned, retries, poisoned)
    for line in history.lines:
        wrong = _illegal(history, line)
        if wrong:
            found.illegal.append(f"{line['who']}: {line['do']} {line.get('token', '')[:8]} got {line['status']}: {wrong}")
    found.illegal += _one_request_one_answer(history)
    _recovery(history, found, lease_s, [*outages, *_silences(history, lease_s)])
    return found


class _History:
    """The lines and rows by the keys that the rules need."""

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


def _ok(line: Line) -> bool:
    return 200 <= (line.get("status") or 0) < 300


def _acknowledged(history: _History, found: Verdict) -> None:
    """Every acknowledged result is there as it was sent, no candidate has two, and nothing is there that nobody sent."""
    winners: defaultdict[str, set[str]] = defaultdict(set)
    acknowledged = set()
    for line in history.lines:
        if line["do"] != "result" or not _ok(line):
            continue
        token = line["token"]
        acknowledged.add(token)
        row = history.results.get(token)
        if row is None:
            found.lost.append(f"{line['who']} was told {line['status']} for {token[:8]}, but there is no such result")
        elif row["fitness"] != line["fitness"]:
            found.lost.append(f"the result of {token[:8]} is stored as {row['fitness']}, sent was {line['fitness']}")
        elif bool(line.get("counts")) != row["counts"]:
            found.lost.append(f"{line['who']} was told counts {line.get('counts')} for {token[:8]}, stored is {row['counts']}")
        if line.get("counts"):
            winners[line["candidate"]].add(token)
    found.acknowledged = len(acknowledged)
    for candidate, tokens in winners.items():
        if len(tokens) > 1:
            found.doubled.append(f"candidate {candidate} was acknowledged as counting {len(tokens)} times")
    for token, row in history.results.items():
        if not any(line["fitness"] == row["fitness"] for line in history.sent[token]):
            found.doubled.append(f"the stored result of {token[:8]} was sent by nobody")


def _rows_alone(history: _History, found: Verdict) -> None:
    """What must hold among the rows, whatever was said."""
    counting = Counter((row["candidate_id"], row["rung"]) for row in history.rows.results if row["counts"])
    found.doubled += [f"candidate {key[0]} has {n} results that count" for key, n in counting.items() if n > 1]
    numbers = Counter(row["number"] for row in history.rows.candidates)
    found.doubled += [f"number {number} was bred {n} times" for number, n in numbers.items() if n > 1]
    for row in history.rows.candidates:
        name, attempts = f"candidate {row['number']}", history.of_candidate[row["id"]]
        if (row["state"] == "done") != (row["id"] in history.counted):
            having = "has" if row["id"] in history.counted else "has not"
            found.lost.append(f"{name} is {row['state']} and {having} a result that counts")
        for before, after in pairwise(attempts):
            if before["outcome"] in _BY_RESULT:
                continue  # a result is taken from whoever sends it, also after the lease has gone to another
            if before["ended_at"] is None or before["ended_at"] > after["started_at"]:
                found.doubled.append(f"{name} was leased to two at once ({after['token'][:8]})")
        if attempts and row["finished_at"] is not None and attempts[-1]["started_at"] > row["finished_at"]:
            found.doubled.append(f"{name} was leased again after it was finished")


def _budget(history: _History, found: Verdict, planned: int, retries: int, poisoned: Callable[[int], bool]) -> None:
    rows = history.rows.candidates
    if [row["number"] for row in rows] != list(range(planned)):
        found.budget.append(f"{len(rows)} candidates stand where {planned} were planned")
    for row in rows:
        wanted = "failed" if poisoned(row["number"]) else "done"
        if row["state"] != wanted:
            found.budget.append(f"candidate {row['number']} ended {row['state']}, not {wanted}")
        elif wanted == "failed" and row["failures"] != retries + 1:
            found.budget.append(f"candidate {row['number']} was charged {row['failures']} failures, not {retries + 1}")
    found.budget += [f"lease {row['token'][:8]} is left over" for row in history.rows.leases]


def _illegal(history: _History, line: Line) -> str | None:
    """Why the protocol does not permit this answer, or None. An absent answer is always permitted."""
    status = line.get("status")
    if status is None:
        return None
    if status in (429, 503):
        return None if line["problem"] and line["retry_after"] is not None else "no problem document with Retry-After"
    if status == 408:  # it did not arrive in time, on a machine that is busy enough
        return None if line["problem"] else "no problem document"
    if status >= 400 and not line["problem"]:
        return "no problem document"
    if line["do"] == "other":
        return None if status < 500 else "a mistake of the coordinator"
    if line["do"] in ("beat", "epochs", "result", "failure", "release") and line["token"] not in history.attempts:
        return "the token stands in no row"
    return _RULES[line["do"]](history, line)


def _register(_history: _History, line: Line) -> str | None:
    return None if line["status"] == 200 else "not 200"


def _ask(history: _History, line: Line) -> str | None:
    if line["status"] == 204:
        return None
    if line["status"] != 200 or not line.get("leases"):
        return "neither leases nor 204"
    unknown = [token for _, _, token in line["leases"] if token not in history.attempts]
    return f"token {unknown[0][:8]} stands in no row" if unknown else None


def _beat(history: _History, line: Line) -> str | None:
    if line["status"] != 200:
        return "a known token must be answered"
    attempt = history.attempts[line["token"]]
    asked_at, told_at = line["at"]
    if line["current"]:
        newer = [row["token"] for row in history.later(line["token"]) if history.told.get(row["token"], told_at) < asked_at]
        if newer:
            return f"current, though {newer[0][:8]} had been leased to another before"
    if line["command"] == "cancel":
        over = history.candidates[attempt["candidate_id"]]["finished_at"]
        ended = [at for at in (over, attempt["ended_at"]) if at is not None]
        if not ended or min(ended) > told_at + _CLOCK_S:
            return "cancel, though the candidate was not over"
    elif line["command"] != "continue":
        return f"nobody asked for {line['command']}"
    return None


def _epochs(_history: _History, line: Line) -> str | None:
    return None if line["status"] == 200 else "a known token's epochs must be stored"


def _result(history: _History, line: Line) -> str | None:
    token = line["token"]
    if line["status"] == 201:
        return None if line["counts"] else "201 without counting"
    if line["status"] != 200:
        return "the result was what was asked for"
    if line["counts"]:
        return None if len(history.sent[token]) > 1 else "a repeated answer to a request sent once"
    winner = history.counted.get(history.attempts[token]["candidate_id"])
    if line.get("reason") != "already_done" or winner in (None, token):
        return "already done, by nobody else"
    return None


def _failure(history: _History, line: Line) -> str | None:
    if line["status"] == 200:
        return None if line["state"] in ("queued", "failed", "leased", "running", "done") else f"state {line['state']}"
    return _superseded(history, line)


def _release(history: _History, line: Line) -> str | None:
    return None if line["status"] == 204 else _superseded(history, line)


def _superseded(history: _History, line: Line) -> str | None:
    if line["status"] != 409:
        return "neither carried out nor 409"
    if any(row["started_at"] <= line["at"][1] + _CLOCK_S for row in history.later(line["token"])):
        return None
    return "lease lost, to nobody"


_RULES: dict[str, Callable[[_History, Line], str | None]] = {
    "register": _register,
    "ask": _ask,
    "beat": _beat,
    "epochs": _epochs,
    "result": _result,
    "failure": _failure,
    "release": _release,
}


def _one_request_one_answer(history: _History) -> list[str]:
    """The same request id gets the same leases, and no two requests get the same lease."""
    wrong = []
    by_request: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    by_token: defaultdict[str, set[str]] = defaultdict(set)
    for line in history.lines:
        if line["do"] == "ask" and line.get("leases"):
            tokens = tuple(token for _, _, token in line["leases"])
            by_request[line["request_id"]].add(tokens)
            for token in tokens:
                by_token[token].add(line["request_id"])
    wrong += [f"request {key[:8]} got {len(given)} different answers" for key, given in by_request.items() if len(given) > 1]
    wrong += [f"lease {key[:8]} went to {len(askers)} requests" for key, askers in by_token.items() if len(askers) > 1]
    return wrong


def _silences(history: _History, lease_s: float) -> list[tuple[float, float]]:
    """When nobody at all was answered for a second. After ten, one lease length more (rule 6 of docs/PROTOCOL.md)."""
    answered = sorted(line["at"][1] for line in history.lines if _ok(line))
    gaps = [(before, after) for before, after in pairwise(answered) if after - before > 1]
    return [(begin, end + (lease_s if end - begin >= SILENCE_S else 0)) for begin, end in gaps]


def _away(intervals: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Seconds between two moments that lie in any of the intervals."""
    total, reached = 0.0, since
    for begin, end in sorted(intervals):
        total += max(min(end, until) - max(begin, reached), 0.0)
        reached = max(reached, min(end, until))
    return total


def _recovery(history: _History, found: Verdict, lease_s: float, outages: Sequence[tuple[float, float]]) -> None:
    """From a lost worker's last accepted sign of life until its candidate was with another.

    A lease is slow where that took more than two lease lengths in which there was a database and anybody was answered.
    """
    heard = {row["token"]: row["started_at"] for row in history.rows.attempts}
    for line in history.lines:
        if line["do"] == "beat" and line.get("current") and line["token"] in heard:
            heard[line["token"]] = max(heard[line["token"]], line["at"][0])
    for attempts in history.of_candidate.values():
        for row, taken in pairwise(attempts):
            if row["outcome"] not in ("lost", *_BY_RESULT):
                continue
            since, back = heard[row["token"]], taken["started_at"]
            found.recovery_s.append(back - since)
            away = _away(outages, since, back)
            if back - since - away > 2 * lease_s:
                found.slow.append(
                    f"the lease {row['token'][:8]} came back after {back - since:.1f} s, {away:.1f} s of them outage"
                )
