"""Who may do what: every route × every kind of token, held against a table in the repository.

The rows are made from the application's own routes, so that a new route without a row fails. After a change that is meant:
``HYPEVOLVE_WRITE_TABLES=1 pytest tests/integration/test_authorisation.py``, and read the difference before it lands.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hypevolve import messages
from server import limits, tokens
from server.access import addresses
from server.app import create_app
from server.artifacts import ArtifactStore
from server.database import Database
from server.gate import OPEN
from tests.integration.conftest import Api

TABLE = Path(__file__).with_name("authorisation.txt")
# `…@mine`: bound to the campaign that is asked for; `…@other`: bound to another one.
KINDS = {
    "none": None,
    "wrong": None,
    "revoked": (["admin"], None),
    "expired": (["admin"], None),
    "read": (["read"], None),
    "read@mine": (["read"], ["mine"]),
    "read@other": (["read"], ["other"]),
    "worker": (["worker"], None),
    "worker@mine": (["worker"], ["mine"]),
    "worker@other": (["worker"], ["other"]),
    "operator": (["operator"], None),
    "operator@mine": (["operator"], ["mine"]),
    "operator@other": (["operator"], ["other"]),
    "admin": (["admin"], None),
}
# What a parameter of an address is filled with; a lease is made anew for each request, since some requests end it.
PAGES = ("/c/", "/workers", "/docs", "/log")  # which say what is wrong on a page
VALUES = {
    "name": "mine",
    "number": "0",
    "verb": "pause",
    "token_name": "nobody",
    "worker": "00000000-0000-0000-0000-000000000000",
}


@pytest.fixture
def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Api, dict[str, str | None]]]:
    """Two campaigns and a token of each kind."""
    monkeypatch.setattr(limits, "BURST", 1e9)
    app = create_app(database, artifacts=ArtifactStore(str(tmp_path / "artifacts")))
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1), raise_server_exceptions=False) as http:
        app.state.door._clock = itertools.count(0, 10).__next__  # nothing is remembered
        api = Api(http, database)
        api.create("mine", candidates=1000)
        api.create("other")
        secrets: dict[str, str | None] = {"none": None, "wrong": f"hyp_{'0' * 12}_{'0' * 43}"}
        for index, (kind, asked) in enumerate(KINDS.items()):
            if asked is not None:
                scopes, campaigns = asked
                wanted = messages.CreateToken(name=f"t{index}", scopes=scopes, campaigns=campaigns)
                secrets[kind] = database.run(lambda c, wanted=wanted: tokens.create(c, wanted).token)
        ended = {kind: f"t{list(KINDS).index(kind)}" for kind in ("revoked", "expired")}
        api.sql("update token set revoked_at = clock_timestamp() where name = :name", name=ended["revoked"])
        api.sql("update token set expires_at = clock_timestamp() where name = :name", name=ended["expired"])
        http.headers.clear()
        http.headers["Authorization"] = f"Bearer {secrets['admin']}"
        yield api, secrets


def filled(api: Api, path: str) -> str:
    values = dict(VALUES)
    if "{token}" in path or "{candidate}" in path:
        lease = api.ask(campaigns=["mine"])[0]
        values |= {"token": lease["token"], "candidate": str(lease["candidate"])}
    wanted = re.findall(r"{(\w+)}", path)
    assert set(wanted) <= set(values), f"say in VALUES what {path} is filled with"
    return re.sub(r"{(\w+)}", lambda match: values[match[1]], path)


def body(method: str, path: str) -> dict[str, Any]:
    """A request that is carried out where it is let in, for routes without a campaign in the address."""
    if (method, path) == ("POST", "/api/v1/leases"):
        return {"request_id": os.urandom(16).hex(), "worker": "0" * 32, "campaigns": ["mine"]}
    return {}


def test_every_route_by_every_kind_of_token(world: tuple[Api, dict[str, str | None]]) -> None:
    api, secrets = world
    rows = []
    for method, path, scope in addresses(api.http.app):  # type: ignore[arg-type]
        told = []
        for kind, secret in secrets.items():
            address = filled(api, path)
            if path.endswith("/events/stream"):
                address += "?after=no-place"  # who is let in is told so; a stream has no end
            headers = {"Authorization": f"Bearer {secret}"} if secret else {"Authorization": ""}
            answer = api.http.request(method, address, json=body(method, path), headers=headers, follow_redirects=False)
            assert answer.status_code < 500, (kind, method, path, answer.text)
            if answer.status_code >= 400 and not path.startswith(PAGES) and path != "/":
                assert answer.headers["content-type"] == "application/problem+json", (kind, method, path)
                assert messages.Problem.model_validate_json(answer.content).status == answer.status_code
            told.append(f"{kind} {answer.status_code}")
        needed = "open" if path in OPEN else scope
        rows.append(f"{method} {path} [{needed}]\n    " + "  ".join(told))
    assert len(rows) > 30
    table = "\n".join(rows) + "\n"
    if os.environ.get("HYPEVOLVE_WRITE_TABLES"):
        TABLE.write_text(table)
    assert table == TABLE.read_text(), "the table of who may do what has changed: see the top of this file"


def test_the_table_lets_nobody_in_who_should_not_be() -> None:
    """Read from the table itself: whoever has no token, a dead one, another scope or another campaign is refused."""
    for head, told in re.findall(r"^(\S.*)\n    (.*)$", TABLE.read_text(), re.MULTILINE):
        needed = re.search(r"\[(\w+)\]$", head)[1]  # type: ignore[index]
        given = dict(part.split(" ") for part in told.split("  "))
        if needed == "open":
            continue
        assert {given[kind] for kind in ("none", "wrong", "revoked", "expired")} == {"401"}, head
        includes = {"read": {"read"}, "worker": {"worker"}, "operator": {"read", "operator"}}
        for kind, status in given.items():
            scope, _, bound = kind.partition("@")
            if scope in includes and needed not in includes[scope]:
                assert status == "403", (head, kind)
            elif bound and "{worker}" in head:
                assert status == "403", (head, kind)  # a worker may serve any campaign
            elif bound == "other" and ("{" in head and "token_name" not in head):
                assert status == "404", (head, kind)
