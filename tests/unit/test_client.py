"""The HTTP client against a scripted transport: what is repeated, what is not, and what an error says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from evolution.campaign import Campaign
from hypevolve import messages
from hypevolve.client import FOREVER, Client, RetryPolicy
from hypevolve.connection import error_of
from hypevolve.errors import Conflict, Denied, HypevolveError, Invalid, NotFound, ServerFault, Unreachable
from server import problems

ASK = messages.Ask(request_id=UUID(int=1), worker=UUID(int=2))
LEASE = {
    "candidate": 7, "campaign": "bccd", "number": 3, "rung": 0, "token": "t", "hyp": {"lr0": 0.01}, "hyp_hash": "h",
    "data_hash": None, "base": {}, "trainer": {"kind": "detector"}, "weights": {"map50": 1.0}, "seed": 3, "epochs": 2,
    "lease_s": 60.0, "beat_s": 15.0,
}  # fmt: skip
RESULT = messages.Result(metrics={"map50": 0.4}, fitness=0.4, hyp_hash="h", seconds=1.5, epochs=2)


class Script:
    """Answers one request after another; keeps what it was asked and how long the client paused."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.pauses: list[float] = []
        self.now = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.content)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def client(self, retry: RetryPolicy = FOREVER, chance: float = 1.0, **more: object) -> Client:
        return Client(
            "http://coordinator:8080/",
            transport=httpx.MockTransport(self),
            retry=retry,
            chance=lambda: chance,
            sleep=self.sleep,
            clock=lambda: self.now,
            **more,
        )


def ok(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def problem(status: int, detail: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "No", "status": status, "detail": detail, **more})


def test_a_repeated_request_is_the_same_request():
    script = Script(httpx.ConnectError("refused"), httpx.ReadTimeout("late"), httpx.Response(503), ok({"leases": [LEASE]}))
    leases = script.client().ask(ASK)
    assert [lease.number for lease in leases] == [3]
    assert len(script.bodies) == 4
    assert len(set(script.bodies)) == 1
    assert json.loads(script.bodies[0])["request_id"] == str(UUID(int=1))


def test_pauses_double_up_to_the_cap_with_full_jitter():
    script = Script(*[httpx.Response(503)] * 9, ok({"counts": True}, 201))
    script.client().put_result(7, "t", RESULT)
    assert script.pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    script = Script(*[httpx.Response(503)] * 9, ok({"counts": True}, 201))
    script.client(chance=0.1).put_result(7, "t", RESULT)
    assert script.pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3, 3, 3])


def test_retry_after_is_a_floor():
    script = Script(httpx.Response(429, headers={"Retry-After": "7"}), ok({"counts": True}))
    script.client(chance=0.0).put_result(7, "t", RESULT)
    assert script.pauses == [7.0]


def test_a_request_that_did_not_arrive_in_time_is_repeated():
    script = Script(httpx.Response(408), ok({"counts": True}))
    assert script.client(chance=0.0).put_result(7, "t", RESULT).counts


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [(404, NotFound, 3), (409, Conflict, 4), (422, Invalid, 5), (413, Invalid, 5), (401, Denied, 6), (403, Denied, 6)],
)
def test_a_refusal_is_not_repeated(status: int, kind: type[HypevolveError], exit_code: int):
    errors = [{"key": "space.lr0", "message": "is no range", "remedy": "write [1, 0, 1]"}]
    script = Script(problem(status, "that cannot be", errors=errors))
    with pytest.raises(kind) as caught:
        script.client().campaign("bccd")
    assert len(script.requests) == 1
    assert str(caught.value) == "that cannot be; space.lr0: is no range (write [1, 0, 1])"
    assert caught.value.exit_code == exit_code
    assert caught.value.problem is not None
    assert caught.value.problem.status == status


def test_each_fault_of_a_campaign_is_said_once():
    app = FastAPI()
    problems.install(app)

    @app.post("/")
    def create(document: dict[str, object]) -> None:
        Campaign.from_document(document)

    response = TestClient(app).post("/", json={"name": "bccd", "base": {"epochs": "no"}, "bugdet": 3})
    answer = messages.Problem.model_validate_json(response.content)
    text = str(error_of(response, "http://coordinator"))
    assert [item.key for item in answer.errors] == ["base.epochs", "bugdet"]
    for item in answer.errors:
        assert text.count(item.message) == text.count(item.remedy) == 1
    assert text.count("; ") == 3  # between the faults, and before each remedy


def test_people_are_told_where_nobody_answers():
    script = Script(httpx.ConnectError("Connection refused"))
    with pytest.raises(Unreachable) as caught:
        next(script.client(RetryPolicy(patience_s=6)).campaigns())
    assert "http://coordinator:8080" in str(caught.value)
    assert "is it running" in str(caught.value)
    assert len(script.requests) == 4  # 0.5 + 1 + 2, and 4 more would be more than 6
    assert caught.value.exit_code == 7


def test_a_fault_of_the_server_is_named_after_patience():
    with pytest.raises(ServerFault, match="boom"):
        next(Script(problem(500, "boom")).client(RetryPolicy(patience_s=1)).campaigns())


def test_a_stop_ends_repeating_for_ever():
    stop = threading.Event()
    script = Script(httpx.Response(503))
    client = Client(
        "http://coordinator:8080", transport=httpx.MockTransport(script), retry=FOREVER, stop=stop, waiting=lambda _: stop.set()
    )
    with pytest.raises(Unreachable):
        client.put_result(7, "t", RESULT)
    assert len(script.requests) == 2


def test_a_heartbeat_is_given_up_at_its_deadline_even_by_a_patient_client():
    script = Script(httpx.Response(503))
    with pytest.raises(Unreachable):
        script.client().heartbeat("t", messages.Heartbeat(), deadline_s=2.0)
    assert sum(script.pauses) <= 2.0
    assert script.requests[-1].extensions["timeout"]["read"] <= 2.0


def test_an_ask_waits_and_is_not_repeated_in_a_tight_loop():
    script = Script(httpx.Response(204, headers={"Retry-After": "3"}))
    assert script.client().ask(ASK, wait_s=20) == []
    assert script.requests[0].headers["Prefer"] == "wait=20"
    assert script.requests[0].extensions["timeout"]["read"] > 20
    assert script.pauses == [3.0]


def test_numbers_must_be_finite():
    script = Script(ok({}))
    with pytest.raises(Invalid, match="JSON"):
        script.client().create_campaign({"fitness": {"map50": float("nan")}})
    assert script.requests == []


def test_what_is_no_coordinator_is_called_so():
    with pytest.raises(ServerFault, match="not as a coordinator"):
        next(Script(httpx.Response(200, text="<html>")).client().campaigns())
    with pytest.raises(Invalid, match="http://host:8080"):
        Client("coordinator:8080")


def test_candidates_follow_the_cursor():
    candidate = {
        "number": 1, "state": "done", "origin": "bred", "hyp": {}, "parents": [], "fitness": 0.1, "metrics": {}, "attempts": 1,
        "failures": 0, "failure": None, "seconds": 1.0, "epochs_done": 1, "worker": None, "created_at": "2026-01-01T00:00:00Z",
        "finished_at": None,
    }  # fmt: skip
    pages = [ok({"items": [candidate] * 2, "next": "2"}), ok({"items": [candidate], "next": None})]
    script = Script(*pages)
    assert len(list(script.client().candidates("bccd", state="done", limit=None))) == 3
    assert script.requests[0].url.params["state"] == "done"
    assert script.requests[1].url.params["cursor"] == "2"
    script = Script(*[ok({"items": [candidate] * 2, "next": "2"})] * 3)
    assert len(list(script.client().candidates("bccd", limit=3))) == 3
    best = Script(ok([candidate])).client().best("bccd", n=1)
    assert best[0].fitness == 0.1


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (lambda c: c.text("a b", "evolve.csv"), "GET", "/api/v1/campaigns/a%20b/evolve.csv"),
        (lambda c: c.release("t/1", "sigterm"), "DELETE", "/api/v1/leases/t%2F1?reason=sigterm"),
        (lambda c: c.binary("a", "evolve.png"), "GET", "/api/v1/campaigns/a/evolve.png"),
    ],
)
def test_routes(call: Callable[[Client], object], method: str, path: str):
    script = Script(httpx.Response(200, text="x"))
    call(script.client())
    assert (script.requests[0].method, script.requests[0].url.raw_path.decode()) == (method, path)


def test_a_campaign_file_is_sent_as_it_is():
    script = Script(problem(422, "no"))
    with pytest.raises(Invalid):
        script.client().create_campaign("name: a\n")
    assert script.bodies == [b"name: a\n"]
    assert script.requests[0].headers["Content-Type"] == "application/yaml"


def test_ready_never_raises():
    assert Script(httpx.Response(200)).client().ready()
    assert not Script(httpx.Response(503)).client().ready()
    assert not Script(httpx.ConnectError("refused")).client().ready()
