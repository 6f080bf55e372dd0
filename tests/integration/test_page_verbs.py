"""The buttons of a campaign's page: what they do, who sees them, and that no other site can press them."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hypevolve import messages
from server import tokens
from server.access import COOKIE
from server.app import create_app
from server.database import Database

OURS = {"Origin": "http://127.0.0.1"}


def _press(http: TestClient, verb: str, headers: dict[str, str] = OURS, **form: object) -> Any:
    return http.post(f"/c/toy/do/{verb}", data=form, headers=headers, follow_redirects=False)


def _offered(http: TestClient) -> list[str]:
    return re.findall(r'action="/c/toy/do/(\w+)"', http.get("/c/toy").text)


def test_each_button_does_what_it_says_and_leads_back(api: Any) -> None:
    http = api.http
    http.base_url = "http://127.0.0.1"
    api.create(candidates=8, retries=0)
    api.result(api.lease(), map50=0.4)
    api.fail(api.lease())

    def state() -> str:
        return str(http.get("/api/v1/campaigns/toy").json()["state"])

    assert _offered(http) == ["pause", "drain", "retry", "extend", "confirm", "cancel"]
    for verb, then, offered in (
        ("pause", "paused", ["resume", "drain"]),
        ("resume", "running", ["pause", "drain"]),
        ("drain", "finished", []),
        ("resume", "running", ["pause", "drain"]),
    ):
        answer = _press(http, verb)
        assert (answer.status_code, answer.headers["location"]) == (303, "/c/toy")
        assert state() == then
        assert [one for one in _offered(http) if one in ("pause", "resume", "drain")] == offered or then == "finished"
    assert _press(http, "extend", candidates=9).status_code == 303
    assert api.counts()["planned"] == 9
    assert _press(http, "confirm", best=1, repeats=2).status_code == 303
    assert api.counts()["confirming"] == 2
    assert "Confirmed with fresh seeds" in http.get("/c/toy").text
    assert _press(http, "retry").status_code == 303
    assert (api.counts()["failed"], api.counts()["queued"]) == (0, 1)
    assert _press(http, "cancel").status_code == 303
    assert (state(), _offered(http)) == ("cancelled", [])
    conflict = _press(http, "resume")
    assert (conflict.status_code, "which is final" in conflict.text) == (409, True)
    assert conflict.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("form", [{"candidates": "many"}, {"candidates": 0}, {"budget": 3}, {"candidates": "9" * 300}])
def test_a_form_that_says_nothing_sensible_changes_nothing(api: Any, form: dict[str, object]) -> None:
    api.create()
    answer = _press(api.http, "extend", {"Origin": "http://testserver"}, **form)
    assert answer.status_code == 422
    assert api.counts()["planned"] == 10
    assert _press(api.http, "dance", {"Origin": "http://testserver"}).status_code == 404


def test_only_whoever_may_sees_the_buttons_and_no_other_site_presses_them(database: Database, tmp_path: Path) -> None:
    def secret(name: str, scope: messages.Scope) -> str:
        wanted = messages.CreateToken(name=name, scopes=[scope])
        return database.run(lambda c: tokens.create(c, wanted)).token

    reader, operator = secret("reader", "read"), secret("operator", "operator")
    with TestClient(create_app(database), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as http:
        document = {
            "name": "toy", "base": {"epochs": 3}, "trainer": {"python": "toy:train"}, "hyp": {"x": 0.5},
            "space": {"x": {"gain": 1, "min": 0.01, "max": 1}}, "evolve": {"strategy": "random"},
        }  # fmt: skip
        http.post("/api/v1/campaigns", json=document, headers={"Authorization": f"Bearer {operator}"}).raise_for_status()
        http.cookies.set(COOKIE, reader)
        assert _offered(http) == []
        assert _press(http, "pause").status_code == 403
        http.cookies.set(COOKIE, operator)
        assert "pause" in _offered(http)
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
            assert _press(http, "pause", headers).status_code == 403, headers
        assert http.get("/c/toy.json").json()["campaign"]["state"] == "running"
        assert _press(http, "pause").status_code == 303
        events = http.get("/api/v1/campaigns/toy/events").json()["items"]
        assert (events[-1]["kind"], events[-1]["who"]) == ("paused", "operator")
