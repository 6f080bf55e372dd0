"""The judge of the fault campaign must see each kind of wrong: a clean history with one thing changed at a time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.chaos.history import Rows
from benchmarks.chaos.verdict import Verdict, judge

PLANNED = 2


def history() -> tuple[list[dict[str, Any]], Rows]:
    """Candidate 0 is lost by worker a and trained by b, whose answer is dropped once; a's late result follows. Candidate 1 is
    poison: it fails twice."""

    def line(who: str, do: str, at: float, **more: Any) -> dict[str, Any]:
        return {"who": who, "do": do, "at": [at, at + 0.1], "status": 200, **more}

    def result(who: str, token: str, at: float, fitness: float, **more: Any) -> list[dict[str, Any]]:
        said = {"candidate": "10", "token": token, "fitness": fitness}
        return [line(who, "result", at, sending=True, **said), line(who, "result", at, **said, **more)]

    lines = [
        line("a", "register", 0),
        line("a", "ask", 1, request_id="r1", leases=[[10, 0, "t1"]]),
        line("a", "beat", 3, token="t1", current=True, command="continue"),
        line("b", "ask", 10, request_id="r2", leases=[[10, 0, "t2"]]),
        line("b", "epochs", 11, token="t2", current=True),
        *result("b", "t2", 12, 0.5, status=None),
        *result("b", "t2", 13, 0.5, counts=True),
        line("a", "beat", 14, token="t1", current=False, command="cancel"),
        *result("a", "t1", 15, 0.4, counts=False, reason="already_done"),
        line("a", "release", 16, token="t1", status=409, problem=True, retry_after=None),
        line("a", "ask", 17, request_id="r3", leases=[[11, 1, "t3"]]),
        line("a", "failure", 18, token="t3", state="queued"),
        line("b", "ask", 19, request_id="r4", leases=[[11, 1, "t4"]]),
        line("b", "failure", 20, token="t4", state="failed"),
        line("b", "ask", 21, request_id="r5", status=204),
        line("b", "ask", 22, request_id="r6", status=503, problem=True, retry_after="1"),
        *(line("c", "other", at / 2) for at in range(50)),
    ]
    rows = Rows(
        candidates=[
            {"id": 10, "number": 0, "state": "done", "failures": 0, "finished_at": 12.05},
            {"id": 11, "number": 1, "state": "failed", "failures": 2, "finished_at": 20.05},
        ],
        attempts=[
            {"token": "t1", "candidate_id": 10, "outcome": "lost", "started_at": 1.05, "ended_at": 10.04},
            {"token": "t2", "candidate_id": 10, "outcome": "done", "started_at": 10.05, "ended_at": 12.05},
            {"token": "t3", "candidate_id": 11, "outcome": "failed", "started_at": 17.05, "ended_at": 18.05},
            {"token": "t4", "candidate_id": 11, "outcome": "failed", "started_at": 19.05, "ended_at": 20.05},
        ],
        results=[
            {"token": "t2", "candidate_id": 10, "rung": 0, "counts": True, "fitness": 0.5},
            {"token": "t1", "candidate_id": 10, "rung": 0, "counts": False, "fitness": 0.4},
        ],
    )
    return lines, rows


def verdict(lines: list[dict[str, Any]], rows: Rows, lease_s: float = 6.0) -> Verdict:
    return judge(lines, rows, planned=PLANNED, retries=1, poisoned=lambda number: number == 1, lease_s=lease_s)


def test_a_legal_history_is_clean() -> None:
    found = verdict(*history())
    assert found.clean, found
    assert found.acknowledged == 2
    assert found.recovery_s == [pytest.approx(7.05)]
    assert found.answers["result none"] == 1


def edit(where: str, **change: Any) -> Callable[[list[dict[str, Any]], Rows], None]:
    """Change every line of a kind (``beat t1``), or the row of a table (``results t1``)."""
    kind, key = where.split(" ")

    def apply(lines: list[dict[str, Any]], rows: Rows) -> None:
        if hasattr(rows, kind):
            (found,) = [row for row in getattr(rows, kind) if key in (row.get("token"), str(row.get("id")))]
            found.update(change)
            return
        found = [line for line in lines if line["do"] == kind and key in (line.get("token"), line.get("request_id"))]
        assert found
        for line in found:
            if line["status"] is not None:
                line.update(change)

    return apply


def remove(table: str, token: str) -> Callable[[list[dict[str, Any]], Rows], None]:
    return lambda _lines, rows: getattr(rows, table).remove(
        next(row for row in getattr(rows, table) if token in (row.get("token"), str(row.get("id"))))
    )


def add(table: str, like: str, **change: Any) -> Callable[[list[dict[str, Any]], Rows], None]:
    def apply(_lines: list[dict[str, Any]], rows: Rows) -> None:
        found = next(row for row in getattr(rows, table) if like in (row.get("token"), str(row.get("id"))))
        getattr(rows, table).append({**found, **change})

    return apply


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (remove("results", "t1"), "lost"),
        (remove("results", "t2"), "lost"),
        (edit("results t2", fitness=0.51), "lost"),
        (edit("results t1", counts=True), "doubled"),
        (edit("result t1", counts=True, reason=None), "doubled"),
        (add("results", "t2", token="t9", counts=False), "doubled"),
        (add("candidates", "10", id=12), "doubled"),
        (edit("candidates 10", finished_at=9.0), "doubled"),
        (edit("attempts t3", ended_at=19.5), "doubled"),
        (remove("candidates", "11"), "budget"),
        (edit("candidates 11", failures=3), "budget"),
        (edit("candidates 10", state="running"), "budget"),
        (edit("result t2", status=500, problem=True, retry_after=None), "illegal"),
        (edit("result t2", status=409, problem=True, retry_after=None), "illegal"),
        (edit("result t1", status=201), "illegal"),
        (edit("ask r6", retry_after=None), "illegal"),
        (edit("ask r6", problem=False), "illegal"),
        (edit("ask r5", status=200), "illegal"),
        (edit("ask r2", leases=[[10, 0, "t1"]]), "illegal"),
        (edit("ask r2", request_id="r1"), "illegal"),
        (edit("ask r2", leases=[[10, 0, "t9"]]), "illegal"),
        (edit("beat t1", at=[11.0, 11.1], current=True, command="continue"), "illegal"),
        (edit("beat t1", at=[9.0, 9.1], command="cancel"), "illegal"),
        (edit("beat t1", command="drain"), "illegal"),
        (edit("beat t1", status=404, problem=True, retry_after=None), "illegal"),
        (edit("release t1", at=[9.0, 9.1]), "illegal"),
        (edit("failure t4", status=409, problem=True, retry_after=None), "illegal"),
        (edit("epochs t2", token="t9"), "illegal"),
        (edit("attempts t2", started_at=16.0), "slow"),
    ],
)
def test_each_kind_of_wrong_is_seen(wrong: Callable[[list[dict[str, Any]], Rows], None], kind: str) -> None:
    lines, rows = copy.deepcopy(history())
    wrong(lines, rows)
    assert getattr(verdict(lines, rows), kind)


def test_a_silence_of_the_service_makes_no_lease_slow() -> None:
    """Nobody at all was answered while the lease of ``t1`` was gone, for most of the time or for little of it."""
    for until, slow in ((9.9, False), (5.0, True)):
        lines, rows = history()
        heard = [line for line in lines if not (line["who"] == "c" and 3.2 < line["at"][0] < until)]
        assert bool(verdict(heard, rows, lease_s=2.0).slow) == slow


def test_what_an_outage_took_makes_no_lease_slow() -> None:
    lines, rows = history()
    assert verdict(lines, rows, lease_s=3.0).slow
    found = judge(
        lines, rows, planned=PLANNED, retries=1, poisoned=lambda number: number == 1, lease_s=3.0, outages=[(4.0, 6.0)]
    )
    assert found.slow == []
