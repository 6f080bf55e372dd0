"""How rows become the next candidate: exact numbers, no duplicates, the same child on any replica."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from evolution.strategy import NAMES
from hypevolve import messages
from server import asking, breeding, replaying
from server.database import Database


def _run(api: Any, n: int) -> None:
    for _ in range(n):
        lease = api.lease()
        api.result(lease, map50=1 - abs(lease["hyp"]["x"] - 0.8))


def test_a_child_can_be_bred_again_from_its_snapshot(api: Any, database_url: str) -> None:
    api.create(candidates=12)
    _run(api, 12)
    replica = Database(database_url)
    for number in range(12):
        again = replica.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"]
    replica.close()


def test_the_same_campaign_and_results_give_the_same_children(api: Any) -> None:
    api.create("one", candidates=8)
    api.create("two", candidates=8)
    for name in ("one", "two"):
        for _ in range(8):
            (lease,) = api.ask(campaigns=[name])
            api.result(lease, map50=lease["hyp"]["x"] / 2)
    one, two = ([api.candidate(n, name)["hyp"] for n in range(8)] for name in ("one", "two"))
    assert one == two


def test_another_seed_gives_other_children(api: Any) -> None:
    api.create("one", candidates=2)
    api.create("two", candidates=2, evolve={"strategy": "yolov5-2021", "seed": 8})
    for name in ("one", "two"):
        api.ask(campaigns=[name], n=2)
    assert api.candidate(1, "one")["hyp"] != api.candidate(1, "two")["hyp"]


def test_parents_are_the_fittest(api: Any) -> None:
    api.create(candidates=30)
    _run(api, 29)
    fittest = api.sql("select number from candidate where state = 'done' order by fitness desc, number limit 5")
    api.lease()
    (bred_from,) = api.sql("select bred_from from candidate where number = 29")[0]
    assert bred_from["fittest"] == [number for (number,) in fittest]
    assert api.candidate(29)["parents"][0] in bred_from["fittest"]


def test_no_hyp_set_is_trained_twice(api: Any) -> None:
    # Bounds so near that most children end on one of them: the rule alone would repeat itself, the store draws again.
    near = {"gain": 1, "min": 0.49, "max": 0.51}
    api.create(candidates=20, hyp={"x": 0.5, "y": 0.3}, space={"x": near, "y": {"gain": 0, "min": 0, "max": 1}})
    seen = [lease["hyp"]["x"] for lease in api.ask(n=20)]
    assert len(set(seen)) == 20
    draws = [row[0]["draws"] for row in api.sql("select bred_from from candidate")]
    assert max(draws) > 1


def test_the_budget_may_grow_and_not_fall_below_what_is_bred(api: Any) -> None:
    api.create(candidates=2)
    api.ask(n=2)
    assert api.ask() == []
    answer = api.http.patch("/api/v1/campaigns/toy", json={"candidates": 3})
    assert (answer.status_code, answer.json()["counts"]["unbred"]) == (200, 1)
    assert len(api.ask(n=5)) == 1
    assert api.http.patch("/api/v1/campaigns/toy", json={"candidates": 2}).status_code == 409


STRATEGIES = [*(name for name in NAMES if name != "yolov5-2024"), "optuna:tpe"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_breeds_a_campaign_and_each_child_again(api: Any, strategy: str) -> None:
    if strategy.startswith("optuna"):
        pytest.importorskip("optuna", reason="NO OPTUNA: install the extra hypevolve[optuna]")
    api.create(candidates=12, evolve={"strategy": strategy, "seed": 3}, retries=0)
    first = api.ask(n=3)  # some are in training, one fails, results come out of order
    api.fail(first[1])
    api.result(first[2], map50=0.4)
    api.result(first[0], map50=0.3)
    _run(api, 9)
    assert api.counts()["done"] == 11
    for number in range(12):
        again = api.database.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"]


def test_a_rule_with_a_population_lets_the_asks_wait(api: Any) -> None:
    api.create(candidates=60, evolve={"strategy": "yolov5-2024", "seed": 3, "population": 8})
    first = api.ask(n=20)
    assert len(first) < 20
    assert api.ask() == []  # nothing can be bred before the generation is finished
    for lease in first:
        api.result(lease, map50=lease["hyp"]["x"])
    assert len(api.ask(n=3)) == 3


CHOICES = {
    "hyp": {"x": 0.5, "y": 0.3, "optimizer": "AdamW", "layers": 3, "flip": True},
    "space": {
        "x": {"gain": 1, "min": 0.01, "max": 1},
        "y": {"gain": 0, "min": 0.01, "max": 1},
        "optimizer": ["SGD", "Adam", "AdamW"],
        "layers": {"min": 2, "max": 9, "integer": True},
        "flip": [False, True],
    },
}


@pytest.mark.parametrize("strategy", ["hybrid", "yolov5-2021", "random"])
def test_choices_are_words_for_everybody_but_the_strategy(api: Any, strategy: str) -> None:
    api.create(candidates=24, evolve={"strategy": strategy, "seed": 5}, **CHOICES)
    leased = []
    for number in range(24):
        lease = api.lease()
        leased.append(lease["hyp"])
        assert api.result(lease, map50=0.3 + 0.4 * (lease["hyp"]["optimizer"] == "SGD")).status_code == 201
        again = api.database.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"] == lease["hyp"]
    assert leased[0] == CHOICES["hyp"]
    assert {hyp["optimizer"] for hyp in leased} > {"AdamW"}
    assert all(isinstance(hyp["flip"], bool) and hyp["layers"] in range(2, 10) for hyp in leased)
    header, *rows = api.http.get("/api/v1/campaigns/toy/evolve.csv").text.splitlines()
    column = [name.strip() for name in header.split(",")].index("optimizer")
    assert [row.split(",")[column].strip() for row in rows] == [hyp["optimizer"] for hyp in leased]
    best = api.http.get("/api/v1/campaigns/toy/best").json()[0]["hyp"]
    assert f"optimizer: {best['optimizer']}\n" in api.http.get("/api/v1/campaigns/toy/hyp_evolved.yaml").text
    page = api.http.get("/c/toy.json").json()["genes"]
    assert {gene["name"]: gene["value"] for gene in page} == best
    assert api.http.get("/c/toy").status_code == api.http.get("/c/toy/sheet.png").status_code == 200
    assert api.http.get(f"/c/toy/candidates/{23}").status_code == 200


def test_a_strategy_that_is_not_here_is_refused_by_name(api: Any) -> None:
    document = {"name": "toy", "base": {"epochs": 1}, "evolve": {"strategy": "own:nobody"}}
    answer = api.http.post("/api/v1/campaigns", json=document)
    assert answer.status_code == 422
    assert "no package here has a strategy 'nobody'; none is installed" in answer.json()["detail"]


def test_copies_of_a_request_at_the_same_moment_are_given_the_same_lease(api: Any, database: Database) -> None:
    """A proxy or an impatient client sends it again while the first is still being bred for."""
    api.create(candidates=7)
    breeder, together = breeding.Breeder(database), threading.Barrier(4)

    def ask(request: messages.Ask) -> list[messages.Lease]:
        together.wait()
        return asking.ask(database, breeder, request).leases

    with ThreadPoolExecutor(4) as threads:
        for number in range(6):
            request = messages.Ask(request_id=uuid.uuid4(), worker=uuid.uuid4(), devices=["cpu"])
            (first,), *others = threads.map(ask, [request] * 4)
            assert first.number == number
            assert others == [[first]] * 3
    assert api.counts()["leased"] == 6
