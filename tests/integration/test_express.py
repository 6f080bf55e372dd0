"""The short way answers as the long way does, whatever it is sent."""

import json
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.app import create_app
from server.database import Database
from server.express import Express
from tests.integration.conftest import Api

JSON = "application/json"
ASK = {"request_id": str(uuid.UUID(int=1)), "worker": str(uuid.UUID(int=2)), "campaigns": ["toy"]}
TOKEN = "0" * 32
RESULT = {"metrics": {"map50": 0.5, "map50_95": 0.2}, "fitness": 0.23, "hyp_hash": "x", "seconds": 1, "epochs": 1}
PLACES = {
    "ask": ("POST", "/leases", ASK),
    "heartbeat": ("PUT", f"/leases/{TOKEN}", {"epoch": 1}),
    "result": ("PUT", f"/candidates/1/attempts/{TOKEN}/result", RESULT),
}
BODIES = {
    "as it should be": lambda body: json.dumps(body).encode(),
    "a key too many": lambda body: json.dumps(body | {"more": 1}).encode(),
    "nothing": lambda body: b"",
    "a list": lambda body: b"[]",
    "no JSON": lambda body: b'{"epoch": ',
    "NaN": lambda body: json.dumps(body | {"fitness": float("nan"), "progress": float("nan"), "worker": float("nan")}).encode(),
    "a lone surrogate": lambda body: json.dumps(body | {"hyp_hash": "\ud800", "worker": "\ud800", "epoch": "\ud800"}).encode(),
    "numbers as texts": lambda body: json.dumps(
        {key: str(value) if value == 1 else value for key, value in body.items()}
    ).encode(),
    "no UTF-8": lambda body: b'{"worker": "\xff"}',
}


@pytest.fixture
def long_way(database: Database) -> TestClient:
    app = create_app(database, open_to="anyone")
    app.user_middleware = [middleware for middleware in app.user_middleware if middleware.cls is not Express]
    return TestClient(app, raise_server_exceptions=False)


def _told(answer: Any) -> Any:
    headers = {name: answer.headers.get(name) for name in ("content-type", "retry-after", "content-length")}
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("place", PLACES)
def test_both_ways_answer_alike(place: str, api: Api, long_way: TestClient) -> None:
    api.create(candidates=1)
    api.lease()  # there is no work left, so that nothing changes
    method, path, body = PLACES[place]
    for name, encoded in BODIES.items():
        for media in (JSON, f"{JSON}; charset=utf-8", "text/plain", None):
            for address in (path, f"{path}/", path.replace("/candidates/1/", "/candidates/x/"), f"{path}?a=1"):
                sent = {
                    "content": encoded(body),
                    "headers": {"content-type": media} if media else {},
                    "follow_redirects": False,
                }
                short, long = (http.request(method, f"/api/v1{address}", **sent) for http in (api.http, long_way))
                assert _told(short) == _told(long), (name, media, address)


def test_both_ways_lease_and_store_alike(api: Api, long_way: TestClient, database: Database) -> None:
    api.create(candidates=4)
    other = Api(long_way, database)
    for first, second in ((api, other), (other, api)):
        lease = first.lease()
        assert second.beat(lease) == first.beat(lease)
        stored, repeated = first.result(lease), second.result(lease)
        assert (stored.status_code, repeated.status_code) == (201, 200)
        assert stored.json() == repeated.json() == {"counts": True, "reason": None}
