"""Other weights of fitness after the fact: all is judged anew, nothing is trained again, and history can be bred again."""

import json
import math
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from evolution.fitness import METRICS, fitness
from server import judging, replaying
from server.database import Database, parse_url

F1 = {"f1": 1.0}


def _metrics(hyp: dict[str, float]) -> dict[str, float]:
    """Two ends of x: what map50 likes, f1 does not."""
    x, y = hyp["x"], hyp["y"]
    return {"precision": y, "recall": 0.5, "f1": 1 - x + y / 100, "map50": x, "map50_95": x * 0.7 + y / 10}


def _train(api: Any, n: int, weights: dict[str, float] | None = None) -> None:
    for _ in range(n):
        lease = api.lease()
        assert weights is None or lease["weights"] == weights
        metrics = _metrics(lease["hyp"])
        answer = api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"]))
        assert answer.status_code == 201, answer.text


def _reweigh(api: Any, weights: dict[str, Any]) -> Any:
    return api.http.put("/api/v1/campaigns/toy/fitness", json={"weights": weights})


def _walked(api: Any) -> list[tuple[int, float]]:
    best, steps = -math.inf, []
    for number, value in api.sql("select number, fitness from candidate where state = 'done' and number >= 0 order by number"):
        if value > best:
            best = value
            steps.append((number, value))
    return steps


def test_every_row_is_judged_anew_and_the_strategy_sees_it_at_once(api: Any) -> None:
    imported = [
        {"hyp": {"x": 0.02 + 0.1 * n, "y": 0.2}, "metrics": _metrics({"x": 0.02 + 0.1 * n, "y": 0.2})} for n in range(4)
    ]
    api.create(candidates=40, imported=imported)
    _train(api, 12)
    counts, before = api.counts(), {n: api.candidate(n) for n in range(12)}
    answer = _reweigh(api, F1)
    assert (answer.status_code, answer.json()["weights"]) == (200, F1)
    for number in range(-4, 12):
        found = api.candidate(number)
        metrics = _metrics(found["hyp"])
        assert found["fitness"] == fitness(metrics, F1)  # to the last bit
        if number >= 0:
            assert found["metrics"] == before[number]["metrics"]
    assert api.counts() == counts
    assert [tuple(row) for row in api.sql("select number, fitness from jump order by number")] == _walked(api)
    fittest = api.sql("select number from candidate where state = 'done' order by fitness desc, number limit 5")
    _train(api, 1, F1)
    (bred_from,) = api.sql("select bred_from from candidate where number = 12")[0]
    assert bred_from["fittest"] == [number for (number,) in fittest]
    assert bred_from["fittest"][0] < 0  # an imported row, judged anew like the others
    (event,) = [e for e in api.http.get("/api/v1/campaigns/toy/events").json()["items"] if e["kind"] == "reweighed"]
    assert (event["who"], event["detail"]["before"], event["detail"]["after"]) == (
        "anyone",
        {"map50": 0.1, "map50_95": 0.9},
        F1,
    )
    assert "fitness was 0.1*map50 + 0.9*map50_95 and is 1*f1: 16 candidates judged anew" in api.http.get("/c/toy").text
    again = _reweigh(api, F1)
    assert (again.status_code, len(api.sql("select 1 from event where kind = 'reweighed'"))) == (200, 1)


def test_candidates_bred_before_can_still_be_bred_again(api: Any) -> None:
    api.create(candidates=30, evolve={"strategy": "hybrid", "seed": 4}, imported=[
        {"hyp": {"x": 0.9, "y": 0.9}, "metrics": _metrics({"x": 0.9, "y": 0.9})}])  # fmt: skip
    _train(api, 9)
    _reweigh(api, F1)
    _train(api, 9)
    api.http.patch("/api/v1/campaigns/toy/space", json={"space": {"x": {"min": 0.2, "max": 0.6}}})
    _reweigh(api, {"map50": 1})
    _train(api, 6)
    for number in range(24):
        again = api.database.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"], number


def test_a_training_of_the_weights_before_counts_and_is_judged_by_the_new_ones(api: Any) -> None:
    api.create()
    lease = api.lease()
    _reweigh(api, F1)
    _reweigh(api, {"map50": 1})
    metrics = _metrics(lease["hyp"])
    wrong = api.result(lease, metrics=metrics, fitness=0.123)
    assert (wrong.status_code, "disagrees" in wrong.text) == (409, True)
    lease = api.lease()
    _reweigh(api, F1)
    assert api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"])).status_code == 201
    assert api.candidate(lease["number"])["fitness"] == fitness(metrics, F1)
    assert api.sql("select fitness from result where counts")[0][0] == fitness(metrics, {"map50": 1})  # what was said stays


def test_one_may_rank_and_export_by_other_weights_and_change_nothing(api: Any) -> None:
    api.create(candidates=12)
    _train(api, 12)
    before = api.http.get("/api/v1/campaigns/toy").json()
    ranked = api.http.get("/api/v1/campaigns/toy/best?n=12&fitness=f1%3D0.5%2Cprecision%3D0.5").json()
    expected = {n: fitness(api.candidate(n)["metrics"], {"f1": 0.5, "precision": 0.5}) for n in range(12)}
    assert [one["number"] for one in ranked] == sorted(expected, key=lambda n: (-expected[n], n))
    assert {one["number"]: one["fitness"] for one in ranked} == expected
    hyp = api.http.get("/api/v1/campaigns/toy/hyp_evolved.yaml?fitness=f1%3D1").text
    best = max(range(12), key=lambda n: api.candidate(n)["metrics"]["f1"])
    assert f"x: {api.candidate(best)['hyp']['x']}\n" in hyp
    assert "1*f1" in hyp
    plain, judged = (api.http.get(f"/api/v1/campaigns/toy/evolve.txt{query}").text for query in ("", "?fitness=f1%3D1"))
    assert plain.splitlines() != judged.splitlines()
    assert sorted(plain.splitlines()) == sorted(judged.splitlines())
    assert api.http.get("/api/v1/campaigns/toy/evolve.png?fitness=f1%3D1").headers["content-type"] == "image/png"
    assert api.http.get("/api/v1/campaigns/toy").json() == before


def test_one_may_ask_what_was_learned_by_other_weights(api: Any) -> None:
    """Of map50 and f1, which are opposed here, x goes with one as it goes against the other."""
    api.create(candidates=34, evolve={"strategy": "random", "seed": 1})
    _train(api, 34)

    def rank(query: str) -> float:
        told = api.http.get(f"/api/v1/campaigns/toy/insight{query}").json()
        return next(gene["rank"] for gene in told["importance"] if gene["name"] == "x")

    assert rank("") > 0.9
    assert rank("?fitness=f1%3D1") < -0.9
    page = api.http.get("/c/toy/insight?fitness=f1%3D1").text
    assert "1*f1, not the campaign" in page
    best = max(range(34), key=lambda n: api.candidate(n)["metrics"]["f1"])
    assert api.http.get("/c/toy/insight.json?fitness=f1%3D1").json()["insight"]["story"][-1]["number"] == best
    assert "not the campaign" not in api.http.get("/c/toy/insight?fitness=").text
    assert api.http.get("/c/toy/insight?fitness=f1").status_code == 422


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("map50", "fitness: 'map50' is no weight; write METRIC=WEIGHT"),
        ("map50=much", "fitness: 'map50=much' is no weight"),
        ("map75=1", "unknown key"),
        ("map50=0", "the weights add up to 0"),
        ("map50=nan", "map50"),
        ("map50=-1", "weight -1; write a number from 0 to 1e6"),
    ],
)
def test_weights_that_are_none(api: Any, written: str, said: str) -> None:
    api.create()
    answer = api.http.get("/api/v1/campaigns/toy/best", params={"fitness": written})
    assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_results_that_lack_a_metric_are_named_and_nothing_changes(api: Any) -> None:
    api.create()
    _train(api, 2)
    lease = api.lease()
    metrics = {"map50": 0.5, "map50_95": 0.2}
    assert api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"])).status_code == 201
    said = "1 done candidates, such as #2, have no usable f1, so 1*f1 cannot judge them; give f1 the weight 0"
    for answer in (_reweigh(api, F1), api.http.get("/api/v1/campaigns/toy/best?fitness=f1%3D1")):
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
    assert api.http.get("/api/v1/campaigns/toy").json()["weights"] == {"map50": 0.1, "map50_95": 0.9}


def test_patience_counts_from_the_new_best(api: Any) -> None:
    api.create(candidates=30, budget={"candidates": 30, "patience": 5})
    for x in (0.9, 0.1, 0.2, 0.3, 0.1, 0.2, 0.2):
        if not (leased := api.ask()):
            break
        metrics = {**_metrics({"x": x, "y": 0.1}), "f1": len(api.sql("select 1 from candidate where state = 'done'")) / 10}
        api.result(leased[0], metrics=metrics, fitness=fitness(metrics, leased[0]["weights"]))
    assert api.http.get("/api/v1/campaigns/toy").json()["state"] == "finished"
    answer = _reweigh(api, F1).json()  # by f1 the last one is the best
    assert (answer["state"], answer["budget"]["since_best"]) == ("running", 0)
    assert len(api.ask()) == 1


def test_a_result_is_never_judged_by_weights_that_are_gone(api: Any, database_url: str) -> None:
    """While weights change results are told to come again; a change waits for a result that is being stored."""
    api.create(candidates=40)
    _train(api, 2)
    lease = api.lease()
    metrics = _metrics(lease["hyp"])
    engine = create_engine(parse_url(database_url))
    with engine.connect() as other, other.begin():
        other.execute(text(f"select {judging.ALONE}"), {"id": api.sql("select id from campaign")[0][0]})
        answer = api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"]))
        assert (answer.status_code, "judged by other weights" in answer.text) == (503, True)
        assert answer.headers["Retry-After"]
    assert api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"])).status_code == 201

    leases, stop, replica = api.ask(n=30), threading.Event(), Database(database_url)

    def post() -> None:
        for lease in leases:
            metrics = _metrics(lease["hyp"])
            while api.result(lease, metrics=metrics, fitness=fitness(metrics, lease["weights"])).status_code == 503:
                time.sleep(0.01)
        stop.set()

    poster = threading.Thread(target=post)
    poster.start()
    turn = 0
    while not stop.is_set():
        turn += 1
        _reweigh(api, {"map50": 1 + turn % 3, "f1": turn % 2})
    poster.join()
    replica.close()
    weights = api.http.get("/api/v1/campaigns/toy").json()["weights"]
    assert turn > 3
    for hyp, value in api.sql("select hyp, fitness from candidate where state = 'done'"):
        assert value == fitness(_metrics(hyp), weights)
    jumps = [tuple(row) for row in api.sql("select number, fitness from jump order by number")]
    assert [jump for i, jump in enumerate(jumps) if all(jump[1] > earlier[1] for earlier in jumps[:i])] == _walked(api)


_NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-300)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries(dict.fromkeys(METRICS, _NUMBERS)),
            st.dictionaries(st.sampled_from(METRICS), st.one_of(st.just(0.0), st.floats(1e-9, 1e6)), min_size=1),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_database_judges_as_we_do_to_the_last_bit(fresh_connection: Any, cases: list[Any]) -> None:
    expression = judging.judged("w", "m")
    for metrics, weights in cases:
        found = fresh_connection.execute(
            text(f"select {expression} from (select cast(:w as json) as w, cast(:m as jsonb) as m) one"),
            {"w": json.dumps(weights), "m": json.dumps(metrics)},
        ).scalar_one()
        assert found == fitness(metrics, weights)


@pytest.fixture(scope="module")
def fresh_connection(postgres_url: str) -> Any:
    engine = create_engine(parse_url(postgres_url))
    with engine.connect() as connection:
        yield connection
    engine.dispose()
