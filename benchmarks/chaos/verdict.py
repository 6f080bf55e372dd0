"""Journals against rows: what was lost, what was doubled, which answers were wrong, how long leases were gone.

Written from docs/PROTOCOL.md and the tables alone. Nothing here is shared with the coordinator, so that a mistake of the
coordinator's cannot also be one of its judge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.chaos.answers import illegal, one_request_one_answer
from benchmarks.chaos.history import History, Line, Rows, ok

SILENCE_S = 10.0

_BY_RESULT = ("done", "late")  # outcomes of attempts that sent a result, the winner's and the others'


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
    history = History(list(lines), rows)
    found.answers = Counter(f"{line['do']} {line.get('status') or 'none'}" for line in history.lines)
    _acknowledged(history, found)
    _rows_alone(history, found)
    _budget(history, found, planned, retries, poisoned)
    for line in history.lines:
        wrong = illegal(history, line)
        if wrong:
            found.illegal.append(f"{line['who']}: {line['do']} {line.get('token', '')[:8]} got {line['status']}: {wrong}")
    found.illegal += one_request_one_answer(history)
    _recovery(history, found, lease_s, [*outages, *_silences(history, lease_s)])
    return found


def _acknowledged(history: History, found: Verdict) -> None:
    """Every acknowledged result is there as it was sent, no candidate has two, and nothing is there that nobody sent."""
    winners: defaultdict[str, set[str]] = defaultdict(set)
    acknowledged = set()
    for line in history.lines:
        if line["do"] != "result" or not ok(line):
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


def _rows_alone(history: History, found: Verdict) -> None:
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


def _budget(history: History, found: Verdict, planned: int, retries: int, poisoned: Callable[[int], bool]) -> None:
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


def _silences(history: History, lease_s: float) -> list[tuple[float, float]]:
    """When nobody at all was answered for a second. After ten, one lease length more (rule 6 of docs/PROTOCOL.md)."""
    answered = sorted(line["at"][1] for line in history.lines if ok(line))
    gaps = [(before, after) for before, after in pairwise(answered) if after - before > 1]
    return [(begin, end + (lease_s if end - begin >= SILENCE_S else 0)) for begin, end in gaps]


def _away(intervals: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Seconds between two moments that lie in any of the intervals."""
    total, reached = 0.0, since
    for begin, end in sorted(intervals):
        total += max(min(end, until) - max(begin, reached), 0.0)
        reached = max(reached, min(end, until))
    return total


def _recovery(history: History, found: Verdict, lease_s: float, outages: Sequence[tuple[float, float]]) -> None:
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
