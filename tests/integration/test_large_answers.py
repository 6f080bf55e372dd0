"""What is answered of very many campaigns or candidates: page by page, line by line, or a sample that can be drawn."""

from typing import Any

import pytest

from hypevolve.client import Client
from server import result_rows, views


def _trained(api: Any, n: int) -> None:
    """Fitness goes up and down with the number, some of it twice."""
    api.create(candidates=n)
    for _ in range(n):
        lease = api.lease()
        quality = 0.1 * (lease["number"] * 7 % 5) + 0.1
        metrics = {"precision": 0.5, "recall": 0.5, "f1": 0.9 - quality, "map50": quality, "map50_95": quality / 2}
        api.result(lease, metrics=metrics, fitness=0.1 * quality + 0.9 * quality / 2)


def test_campaigns_are_listed_page_by_page(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{n}" for n in range(7)]
    for name in names:
        api.create(name)
    seen, cursor = [], None
    for size in (3, 3, 1):
        page = api.http.get("/api/v1/campaigns", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) == size
        seen += [campaign["name"] for campaign in page["items"]]
        cursor = page["next"]
    assert (seen, cursor) == (names[::-1], None)
    client = Client("http://127.0.0.1", transport=api.http._transport)
    assert [campaign.name for campaign in client.campaigns()] == names[::-1]
    assert api.http.get("/api/v1/campaigns?cursor=mine").status_code == 422
    assert api.http.get("/api/v1/campaigns?limit=101").status_code == 422
    monkeypatch.setattr(views, "PAGE", 4)
    twin = api.http.get("/campaigns.json").json()
    assert [line["name"] for line in twin["items"]] == ["c6", "c5", "c4", "c3"]
    assert f"?cursor={twin['next']}" in api.http.get("/").text
    older = api.http.get("/", params={"cursor": twin["next"]}).text
    assert all((f">{name}</a>" in older) == (name < "c3") for name in names)
    assert "« newest" in older


@pytest.mark.parametrize("query", ["", "?fitness=f1=1"])
def test_a_file_is_the_same_in_however_many_pieces(api: Any, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    _trained(api, 11)
    api.http.post("/api/v1/campaigns/toy/imported", json={"rows": [{"hyp": {"x": 1, "y": 1}, "metrics": _perfect()}]})
    names = ["evolve.txt", "tune_results.ndjson", "hyp_evolved.yaml"] + ([] if query else ["evolve.csv"])
    whole = {name: api.http.get(f"/api/v1/campaigns/toy/{name}{query}").text for name in names}
    monkeypatch.setattr(result_rows, "PIECE", 2)
    for name, content in whole.items():
        assert api.http.get(f"/api/v1/campaigns/toy/{name}{query}").text == content, name
    lines = whole["evolve.txt"].splitlines()
    column = 3 if query else 2  # f1 is no column of this layout; it falls as map50 rises
    quality = [float(line.split()[column]) for line in lines]
    assert len(lines) == 11
    assert quality == sorted(quality, reverse=not query)
    assert len(whole["tune_results.ndjson"].splitlines()) == 11


def _perfect() -> dict[str, float]:
    return {"precision": 1, "recall": 1, "f1": 1, "map50": 1, "map50_95": 1}


def test_a_file_without_a_result_and_a_campaign_that_is_not_there(api: Any) -> None:
    api.create()
    assert len(api.http.get("/api/v1/campaigns/toy/evolve.csv").text.splitlines()) == 1
    assert api.http.get("/api/v1/campaigns/toy/evolve.txt").text == ""
    assert api.http.get("/api/v1/campaigns/toy/hyp_evolved.yaml").status_code == 404
    for name in ("evolve.csv", "evolve.txt", "tune_results.ndjson", "evolve.png"):
        assert api.http.get(f"/api/v1/campaigns/nobody/{name}").status_code == 404
    assert api.http.get("/api/v1/campaigns/toy/evolve.txt?fitness=beauty=1").status_code == 422


def test_a_picture_of_many_shows_some_and_the_best(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _trained(api, 25)
    row = api.sql("select * from campaign")[0]
    best = api.http.get("/api/v1/campaigns/toy/best").json()[0]["number"]
    monkeypatch.setattr(result_rows, "DRAWN", 5)
    done, rows = api.database.run(lambda connection: result_rows.sample(connection, row, None))
    assert done == 25
    assert best in [one.number for one in rows]
    assert len(rows) <= 6
    for path in ("/api/v1/campaigns/toy/evolve.png", "/c/toy/sheet.png"):
        assert api.http.get(path).content[:4] == b"\x89PNG"
