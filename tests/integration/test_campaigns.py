"""Campaigns over HTTP: creating, reading, changing, result files, and every wrong request."""

from typing import Any

import pytest

YAML = """
name: from-yaml
base: {epochs: 2}
trainer: {python: "toy:train"}
hyp: {x: 0.5}
space: {x: {gain: 1, min: 0.01, max: 1}}
budget: {candidates: 3}
"""


def _finish(api: Any, n: int) -> None:
    for _ in range(n):
        lease = api.lease()
        api.result(lease, map50=lease["hyp"]["x"])


def test_a_campaign_is_created_once(api: Any) -> None:
    first = api.create()
    assert first["state"] == "running"
    assert first["counts"]["planned"] == 10
    again = api.http.post("/api/v1/campaigns", json=first["document"])
    assert (again.status_code, again.json()["name"]) == (200, "toy")


def test_the_same_name_with_another_document_says_what_differs(api: Any) -> None:
    document = api.create()["document"]
    answer = api.http.post("/api/v1/campaigns", json={**document, "fitness": {"map50": 1.0}})
    assert answer.status_code == 409
    said = "exists with another fitness.map50, fitness.map50_95; `hypevolve edit toy --fitness map50=1` changes it"
    assert said in answer.json()["detail"]
    answer = api.http.post("/api/v1/campaigns", json={**document, "fitness": {"map50": 1.0}, "retries": {"failed": 3}})
    assert "exists with another fitness.map50, fitness.map50_95, retries.failed; choose another name" in answer.json()["detail"]
    budget = api.http.post("/api/v1/campaigns", json={**document, "budget": {"candidates": 11}})
    assert "`hypevolve extend toy --candidates 11` changes it" in budget.json()["detail"]


def test_yaml_is_taken_as_it_stands_in_the_file(api: Any) -> None:
    answer = api.http.post("/api/v1/campaigns", content=YAML, headers={"content-type": "application/yaml"})
    assert (answer.status_code, answer.json()["counts"]["planned"]) == (201, 3)


def test_a_file_name_means_nothing_to_the_coordinator(api: Any) -> None:
    body = YAML.replace("hyp: {x: 0.5}", "hyp: /etc/passwd")
    answer = api.http.post("/api/v1/campaigns", content=body, headers={"content-type": "application/yaml"})
    assert answer.status_code == 422
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("{", "application/json", "not JSON"),
        ("[]", "application/json", "JSON object"),
        ('{"name": "x", "seed": NaN}', "application/json", "NaN"),
        ("a: [", "application/yaml", "request:"),
        (b"\xff\xfe", "application/yaml", "UTF-8"),
        (YAML.replace("min: 0.01, max: 1", "min: 2, max: 1"), "application/yaml", "space.x"),
    ],
)
def test_a_wrong_campaign_is_a_problem_that_names_the_place(api: Any, body: Any, kind: str, said: str) -> None:
    answer = api.http.post("/api/v1/campaigns", content=body, headers={"content-type": kind})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_a_request_with_an_unknown_key_is_refused(api: Any) -> None:
    answer = api.http.post("/api/v1/leases", json={"request_id": "x", "worker": "y", "color": "blue"})
    keys = {error["key"] for error in answer.json()["errors"]}
    assert (answer.status_code, keys) == (422, {"body.request_id", "body.worker", "body.color"})


def test_what_is_not_there_is_named_with_what_is(api: Any) -> None:
    api.create()
    assert "there are toy" in api.http.get("/api/v1/campaigns/tiy").json()["detail"]
    assert "no candidate 99" in api.http.get("/api/v1/campaigns/toy/candidates/99").json()["detail"]
    assert "no candidate of 'toy' has finished" in api.http.get("/api/v1/campaigns/toy/hyp_evolved.yaml").json()["detail"]
    assert api.http.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"


def test_numbers_add_up_at_every_step(api: Any) -> None:
    api.create(candidates=6, retries=0)
    seen = []
    for step in range(6):
        lease = api.lease()
        seen.append(api.counts())
        if step % 3 == 0:
            api.fail(lease)
        elif step % 3 == 1:
            api.result(lease)
    seen.append(api.counts())
    states = ("done", "failed", "cancelled", "running", "leased", "queued", "unbred")
    assert all(sum(counts[state] for state in states) == counts["planned"] == 6 for counts in seen)
    assert (seen[-1]["done"], seen[-1]["failed"], seen[-1]["leased"]) == (2, 2, 2)


def test_candidates_come_in_pages_that_stay_right_while_rows_are_added(api: Any) -> None:
    api.create(candidates=7)
    _finish(api, 5)
    url = "/api/v1/campaigns/toy/candidates"
    first = api.http.get(url, params={"limit": 3}).json()
    _finish(api, 2)
    second = api.http.get(url, params={"limit": 3, "cursor": first["next"]}).json()
    third = api.http.get(url, params={"limit": 3, "cursor": second["next"]}).json()
    numbers = [item["number"] for page in (first, second, third) for item in page["items"]]
    assert (numbers, third["next"]) == (list(range(7)), None)
    assert api.http.get(url, params={"cursor": "???"}).status_code == 422
    assert api.http.get(url, params={"state": "failed"}).json()["items"] == []


def test_best_and_the_default_to_compare_with(api: Any) -> None:
    api.create(candidates=5)
    _finish(api, 5)
    campaign = api.http.get("/api/v1/campaigns/toy").json()
    best = api.http.get("/api/v1/campaigns/toy/best", params={"n": 3}).json()
    assert [row["fitness"] for row in best] == sorted((row["fitness"] for row in best), reverse=True)
    assert campaign["best"] == best[0]
    assert campaign["default"]["number"] == 0
    assert (campaign["state"], campaign["eta_s"]) == ("finished", None)


def test_result_files(api: Any) -> None:
    yaml = pytest.importorskip("yaml")
    api.create(candidates=4)
    _finish(api, 4)
    best = api.http.get("/api/v1/campaigns/toy/best").json()[0]
    text = api.http.get("/api/v1/campaigns/toy/hyp_evolved.yaml").text
    assert yaml.safe_load(text) == best["hyp"]
    lines = api.http.get("/api/v1/campaigns/toy/evolve.csv").text.splitlines()
    assert [name.strip() for name in lines[0].split(",")][-2:] == ["x", "y"]
    assert len(lines) == 5
    assert len(api.http.get("/api/v1/campaigns/toy/evolve.txt").text.splitlines()) == 4
    assert api.http.get("/api/v1/campaigns/toy/evolve.png").content[:4] == b"\x89PNG"


def test_imported_rows_are_parents_outside_the_budget(api: Any) -> None:
    metrics = {"precision": 0.5, "recall": 0.5, "map50": 0.9, "map50_95": 0.6}
    document = api.create("source", candidates=2)["document"]
    document |= {"name": "toy", "imported": [{"hyp": {"x": 0.9, "y": 0.9}, "metrics": metrics}]}
    assert api.http.post("/api/v1/campaigns", json=document).status_code == 201
    counts = api.counts()
    assert (counts["imported"], counts["unbred"], counts["done"]) == (1, 2, 0)
    api.ask(campaigns=["toy"])
    (second,) = api.ask(campaigns=["toy"])
    assert api.candidate(second["number"])["parents"] == [-1]
    assert api.candidate(-1)["origin"] == "imported"


def test_characters_that_postgresql_cannot_hold_are_no_server_error(api: Any) -> None:
    api.create()
    assert api.http.get("/api/v1/campaigns/to%00y").status_code == 404
    assert api.http.delete(f"/api/v1/leases/{api.lease()['token']}?reason=%00").status_code == 404
    lease = api.lease()
    body = {"kind": "crash", "detail": "a\x00b"}
    assert api.http.post(f"/api/v1/leases/{lease['token']}/failure", json=body).status_code == 200
    page = {"cursor": "bjk5OTk5OTk5OTk5"}  # a number beyond the column
    assert api.http.get("/api/v1/campaigns/toy/candidates", params=page).status_code == 422


def test_an_unknown_address_is_a_page_for_browsers_and_a_problem_for_programs(api: Any) -> None:
    page = api.http.get("/nonsense", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"].startswith("text/html")) == (404, True)
    assert api.http.get("/nonsense").headers["content-type"] == "application/problem+json"


def test_no_route_asks_another_host_for_its_description(api: Any) -> None:
    assert api.http.get("/api/v1/openapi.json").json()["info"]["title"] == "Hypevolve"
