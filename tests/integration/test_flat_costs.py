"""What a request costs does not grow with the candidates of a campaign: rows that PostgreSQL visits, by its own account."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from benchmarks.chaos.failpoints import engines_of
from benchmarks.service_rows import seed

SMALL = {"pulse", "lease"}  # rows of what is going on now
FEW, MANY = 2_500, 15_000  # more than what strategies and pages look at, and a lot more


@contextmanager
def visited(api: Any) -> Iterator[list[int]]:
    """The rows that the plans of all statements touch, also those that they throw away."""
    rows: list[int] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        asked = re.split(r"lock_timeout = '1s'; |material = off; ", statement)[-1].strip()
        if planned := re.search(r"execute (hypevolve_\w+)\(.*\)", statement, re.DOTALL):
            rows.append(_of_plan(connection.connection.cursor(), planned[1], planned[0]))
            return
        if not asked.startswith(("select", "with", "(select")) or "insert into" in asked:
            return
        with connection.connection.cursor() as other:
            other.execute("explain (analyze, format json) " + asked, parameters)
            rows.append(_rows(other.fetchone()[0][0]["Plan"]))

    engines = engines_of(api.database)
    for engine in engines:
        event.listen(engine, "after_cursor_execute", explain)
    try:
        yield rows
    finally:
        for engine in engines:
            event.remove(engine, "after_cursor_execute", explain)


def _of_plan(cursor: Any, name: str, execute: str) -> int:
    """The rows visited by a plan that a connection has made; of one that changes rows, those of the tables it would walk."""
    cursor.execute("select statement from pg_prepared_statements where name = %s", (name,))
    changes = "insert into" in cursor.fetchone()[0]
    cursor.execute("set plan_cache_mode = force_generic_plan")  # as in the transaction, which may be over
    cursor.execute(f"explain ({'' if changes else 'analyze, '}format json) {execute}")
    plan = cursor.fetchone()[0][0]["Plan"]
    cursor.execute("reset plan_cache_mode")
    return sum(MANY for table in _walked(plan) if table not in SMALL) if changes else _rows(plan)


def _rows(plan: dict[str, Any]) -> int:
    kept = plan["Actual Rows"] + sum(value for name, value in plan.items() if name.startswith("Rows Removed by"))
    own = kept * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    return int(own) + sum(_rows(inner) for inner in plan.get("Plans", []))


def _walked(plan: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end."""
    if "Scan" in plan["Node Type"] and "Relation Name" in plan and "Index Cond" not in plan:
        yield plan["Relation Name"]
    for inner in plan.get("Plans", []):
        yield from _walked(inner)


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
        lease = api.lease()
        requests = {
            "ask": lambda: api.lease(),
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
def test_plans_made_while_there_was_nothing_are_as_good_once_there_is_much(strategy: str, api: Any, database_url: str) -> None:
    """A connection keeps its plans, and PostgreSQL hears of growth only when it is told to look."""
    seed(database_url, strategy, 0)
    for _ in range(4):
        api.result(api.lease())
    costs = []
    for _ in range(2):
        lease = api.lease()
        costs.append((_cost(api, lambda: api.lease()), _cost(api, lambda lease=lease: api.result(lease))))
        _more(api, of=1, n=MANY)
    assert [(few, many) for few, many in zip(*costs, strict=True) if many > few + 100] == []


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
