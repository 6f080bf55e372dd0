"""The best hyp sets trained again with fresh seeds: outside the budget, never parents, never the best."""

from typing import Any

import pytest

from server import replaying
from tests.integration.conftest import Api


def _confirm(api: Any, best: int = 2, repeats: int = 2) -> Any:
    return api.http.post("/api/v1/campaigns/toy/confirm", json={"best": best, "repeats": repeats})


def _train(api: Api, n: int, bonus: float = 0.0) -> list[dict[str, Any]]:
    leases = []
    for _ in range(n):
        lease = api.lease()
        assert api.result(lease, map50=0.5 * lease["hyp"]["x"] + bonus).status_code == 201
        leases.append(lease)
    return leases


def test_the_best_are_trained_again_with_seeds_that_no_candidate_has(api: Api) -> None:
    api.create(candidates=6, evolve={"strategy": "yolov5-2021", "seed": 7, "same_seed": True})
    before = _train(api, 6)
    assert api.http.get("/api/v1/campaigns/toy").json()["state"] == "finished"
    best = [one["number"] for one in api.http.get("/api/v1/campaigns/toy/best?n=2").json()]
    answer = _confirm(api).json()
    assert (answer["queued"], [one["number"] for one in answer["items"]]) == (4, best)
    assert _confirm(api).json()["queued"] == 0
    campaign = api.http.get("/api/v1/campaigns/toy").json()
    assert (campaign["state"], campaign["counts"]["confirming"], campaign["counts"]["queued"]) == ("running", 4, 0)
    again = _train(api, 4, bonus=0.2)
    assert api.ask() == []
    assert [lease["number"] for lease in again] == [-1, -2, -3, -4]
    seeds = [lease["seed"] for lease in before + again]
    assert len(set(seeds)) == 1 + 4
    originals = {lease["number"]: lease["hyp"] for lease in before}
    assert [lease["hyp"] for lease in again] == [originals[number] for number in (best[0], best[0], best[1], best[1])]
    campaign = api.http.get("/api/v1/campaigns/toy").json()
    assert (campaign["state"], campaign["counts"]["done"], campaign["best"]["number"]) == ("finished", 6, best[0])
    for one in api.http.get("/api/v1/campaigns/toy/confirm").json()["items"]:
        assert (len(one["results"]), one["open"], one["failed"]) == (2, 0, 0)
        assert one["mean"] == pytest.approx(one["fitness"] + 0.11)
        assert one["sd"] == pytest.approx(0)
    assert len(api.http.get("/api/v1/campaigns/toy/evolve.csv").text.splitlines()) == 7
    page = api.http.get("/c/toy").text
    assert "4 trainings queued to confirm" in page
    assert _confirm(api, repeats=3).json()["queued"] == 2


def test_a_confirmation_is_no_parent_and_changes_nothing_that_is_bred(api: Api) -> None:
    api.create(candidates=30, evolve={"strategy": "hybrid", "seed": 3})
    _train(api, 12)
    _confirm(api)
    assert {lease["number"] for lease in _train(api, 4, bonus=0.4)} == {-1, -2, -3, -4}  # before anything is bred
    for lease in _train(api, 8):
        row = api.candidate(lease["number"])
        assert min(row["parents"]) >= 0
        assert api.database.run(lambda c, n=lease["number"]: replaying.replay(c, "toy", n)) == row["hyp"]
    assert api.http.get("/api/v1/campaigns/toy/insight").json()["rows"] == 20
    api.fail(api.lease())
    assert api.lease()["number"] == 20  # it came back, and nothing else did


def test_what_gives_nothing_out_confirms_nothing(api: Api) -> None:
    api.create(candidates=3, budget={"candidates": 3, "patience": 1})
    assert "nothing to confirm" in _confirm(api).json()["detail"]
    _train(api, 1)
    api.http.post("/api/v1/campaigns/toy/drain")
    assert (_confirm(api).status_code, "hypevolve resume toy" in _confirm(api).text) == (409, True)
    api.http.post("/api/v1/campaigns/toy/resume")
    lease = api.lease()
    api.result(lease, map50=0.01)
    assert "hypevolve extend toy --patience" in _confirm(api).json()["detail"]
    api.http.post("/api/v1/campaigns/toy/cancel")
    assert _confirm(api).status_code == 409
    assert api.http.post("/api/v1/campaigns/nobody/confirm", json={}).status_code == 404


def test_what_came_back_is_given_out_before_what_waits_for_its_first_attempt(api: Api) -> None:
    api.create(candidates=9)
    _train(api, 1)
    hyps = [{"x": 0.9}, {"x": 0.8}]
    body = {"request_id": "0" * 32, "hyps": hyps}
    assert api.http.post("/api/v1/campaigns/toy/candidates", json=body).json() == {"numbers": [1, 2]}
    first, second = api.lease(), api.lease()
    third = api.lease()
    assert [first["number"], second["number"], third["number"]] == [1, 2, 3]
    more = {"request_id": "1" * 32, "hyps": [{"x": 0.7}]}
    assert api.http.post("/api/v1/campaigns/toy/candidates", json=more).json() == {"numbers": [4]}
    _confirm(api, best=1, repeats=1)
    bred = api.sql("select max(number) as n from candidate")[0].n
    for lease in (third, second):
        api.http.delete(f"/api/v1/leases/{lease['token']}?reason=drain")
    assert [api.lease()["number"] for _ in range(5)] == [2, 3, 4, -1, bred + 1]
