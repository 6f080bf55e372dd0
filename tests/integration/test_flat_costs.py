"""What a request costs does not grow with the candidates of a campaign: rows that PostgreSQL visits, by its own account."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from benchmarks.chaos.failpoints import engines_of
from benchmarks.service_rows import seed
from server import transaction

WORKER = uuid.UUID(int=1)
FEW, MANY = 2_500, 15_000  # more than what strategies and pages look at, and a lot more


@contextmanager
def visited(api: Any) -> Iterator[list[int]]:
    """The rows that the plans of all statements touch, also those that they throw away."""
    rows: list[int] = []

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        asked = re.split(r"lock_timeout = '1s'; |material = off; ", statement)[-1].strip()
        if asked.startswith(("select", "with", "(select")) and "insert into" not in asked and "execute hypevolve_" not in asked:
            with connection.connection.cursor() as other:
                other.execute("explain (analyze, format json) " + asked, parameters)
                rows.append(_rows(other.fetchone()[0][0]["Plan"]))

    def look_at_plan(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        """Before it is executed, while it meets what it is about to change; a plan that is not made yet is made here too."""
        planned = re.search(r"(prepare .*; )?execute (hypevolve_\w+)\(.*\)", statement, re.DOTALL)
        if planned is None:
            return
        with connection.connection.cursor() as other:
            begins = "begin; " if statement.startswith("begin; ") else "savepoint looked; "
            made = (planned[1] or "").replace(planned[2], "looked")
            other.execute(f"{begins}set local plan_cache_mode = force_generic_plan; {made}")
            execute = planned[0].removeprefix(planned[1] or "").replace(planned[2], "looked" if made else planned[2])
            other.execute(f"explain (analyze, format json) {execute}")
            rows.append(_rows(other.fetchone()[0][0]["Plan"]))
            other.execute(
                ("deallocate looked; " if made else "") + ("rollback" if begins == "begin; " else "rollback to looked")
            )

    engines = engines_of(api.database)
    for engine in engines:
        event.listen(engine, "after_cursor_execute", look)
        event.listen(engine, "before_cursor_execute", look_at_plan)
    try:
        yield rows
    finally:
        for engine in engines:
            event.remove(engine, "after_cursor_execute", look)
            event.remove(engine, "before_cursor_execute", look_at_plan)


def _rows(plan: dict[str, Any]) -> int:
    kept = plan["Actual Rows"] + sum(value for name, value in plan.items() if name.startswith("Rows Removed by"))
    own = kept * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    return int(own) + sum(_rows(inner) for inner in plan.get("Plans", []))


def _cost(api: Any, request: Any) -> int:
    with visited(api) as rows:
        request()
    assert rows
    return sum(rows)


@pytest.mark.parametrize("strategy", ["yolov5-2021", "hybrid"])
def test_requests_visit_as_many_rows_among_many_candidates_as_among_few(strategy: str, api: Any, database_url: str) -> None:
    costs: dict[int, dict[str, int]] = {}
    seed(database_url, strategy, FEW)
    for size in (FEW, MANY):
        if size == MANY:
            _more(api, of=2000, n=MANY - FEW)
            for table in ("candidate", "result", "attempt", "event", "tally"):
                api.sql(f"analyze {table}")
        assert api.counts("bench")["done"] >= size
        lease = api.lease(WORKER)
        requests = {
            "ask": lambda: api.lease(WORKER),
            "result": lambda lease=lease: api.result(lease),
            "show": lambda: api.counts("bench"),
            "best": lambda: api.http.get("/api/v1/campaigns/bench/best?n=5"),
            "candidates": lambda: api.http.get("/api/v1/campaigns/bench/candidates?limit=20"),
            "page": lambda: api.http.get("/c/bench"),
            "candidate page": lambda: api.http.get("/c/bench/candidates/1"),
            "list of campaigns": lambda: api.http.get("/"),
        }
        costs[size] = {name: _cost(api, request) for name, request in requests.items()}
    grown = {name: (costs[FEW][name], costs[MANY][name]) for name in costs[FEW]}
    assert {name: pair for name, pair in grown.items() if pair[1] > 1.3 * pair[0] + 50} == {}


@pytest.mark.parametrize("strategy", ["yolov5-2021", "hybrid"])
def test_plans_made_while_there_was_nothing_are_made_again(
    strategy: str, api: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection keeps its plans for a while; PostgreSQL would hear of growth only when it looks, once in a minute."""
    seed(database_url, strategy, 0)
    for _ in range(2):
        api.result(api.lease(WORKER))
    _more(api, of=1, n=MANY)
    api.result(api.lease(WORKER))
    monkeypatch.setattr(transaction, "PLAN_S", 0.0)
    api.result(api.lease(WORKER))
    monkeypatch.undo()
    lease = api.lease(WORKER)
    for request in (lambda: api.lease(WORKER), lambda: api.result(lease)):
        assert _cost(api, request) < MANY / 10


def _more(api: Any, of: int, n: int) -> None:
    """The campaign grows by ``n`` copies of its first ``of`` candidates."""
    api.sql(
        """
        insert into candidate (campaign_id, number, hyp, hyp_hash, origin, parents, state, attempts, fitness, finished_at)
        select k.campaign_id, c.bred + g, k.hyp, md5(g::text), 'bred', k.parents, 'done', 1, k.fitness, k.finished_at
        from generate_series(0, :n - 1) g join candidate k on k.number = g % :of join campaign c on c.id = k.campaign_id
        """,
        n=n,
        of=of,
    )
    api.sql("update campaign set bred = bred + :n", n=n)
