"""Requests that are too large, too deep, too slow or too many cost little and are told so, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import text

from hypevolve import messages
from server import gate, limits
from server.app import create_app
from server.connection import GuardedProtocol
from server.database import Database
from server.errors import Unavailable
from tests.integration.conftest import Api


@pytest.fixture
def port(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A coordinator on a real socket, with short deadlines."""
    monkeypatch.setattr("server.connection.HEAD_S", 0.5)
    monkeypatch.setattr(limits, "BODY_S", 0.5)
    config = uvicorn.Config(create_app(database), http=GuardedProtocol, ws="none", log_level="error", access_log=False)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def send(port: int, *pieces: bytes) -> tuple[int, messages.Problem | None]:
    """What is answered to these bytes, until the connection is closed or an answer is whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer:
            got = connection.recv(65536)
            if not got:
                break
            answer += got
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = messages.Problem.model_validate_json(body) if b"problem+json" in head else None
    return int(head.split(b" ")[1]), problem


def post(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


LEASES = "/api/v1/leases"


def test_a_body_that_says_it_is_too_long_is_not_read(port: int) -> None:
    status, problem = send(port, post(LEASES, "Content-Length: 100000000000"))
    assert status == 413
    assert problem is not None
    assert str(limits.LARGEST_BODY) in problem.detail


def test_a_body_without_end_is_cut_off(port: int) -> None:
    piece = b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
    status, problem = send(port, post(LEASES, "Transfer-Encoding: chunked"), *[piece] * 100)
    assert (status, problem and problem.status) == (413, 413)


def test_a_body_that_does_not_come_is_given_up(port: int) -> None:
    assert send(port, post(LEASES, "Content-Length: 100"), b'{"request_id"')[0] == 408


def test_headers_that_do_not_end_are_given_up(port: int) -> None:
    assert send(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")[0] == 408
    assert send(port, b"")[0] == 408


@pytest.mark.parametrize("head", [b"X: " + b"a" * 100_000, b"".join(b"x%d: 1\r\n" % k for k in range(100_000))])
def test_headers_that_are_too_long_are_refused(port: int, head: bytes) -> None:
    assert send(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n\r\n")[0] == 431


def test_a_connection_that_is_used_again_counts_afresh(port: int) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        for _ in range(5):
            connection.request("GET", "/healthz", headers={"X": "a" * 20_000})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"status":"alive"}')


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        (LEASES, "application/json", b"[" * 200_000),
        ("/api/v1/campaigns", "application/json", b'{"a":' * 100_000),
        ("/api/v1/campaigns", "application/json", b"[" * 3_900_000),
        ("/api/v1/campaigns", "application/json", b'"' + b"\\" * 3_900_000),
        ("/api/v1/campaigns", "application/json", json.dumps({str(k): k for k in range(300_000)}).encode()),
        ("/api/v1/campaigns", "application/yaml", b"[" * 250_000),
        ("/api/v1/campaigns", "application/yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        ("/api/v1/campaigns", "application/yaml", b"a: " + b"1" * 250_000),
        ("/api/v1/campaigns", "application/yaml", b"? " * 100_000),
        ("/api/v1/campaigns", "application/yaml", b"- " * 100_000),
        ("/api/v1/campaigns", "application/json", gzip.compress(b"[" * 50_000_000)),
        (LEASES, "multipart/form-data; boundary=x", b"--x\r\n" * 50_000),
    ],
)
def test_a_bomb_is_one_clear_refusal_within_seconds(api: Api, path: str, kind: str, body: bytes) -> None:
    began = time.process_time()
    answer = api.http.post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code in (413, 422), answer.text[:300]
    assert len(answer.content) < 4000
    assert messages.Problem.model_validate_json(answer.content).detail
    assert time.process_time() - began < 10


@pytest.mark.parametrize("depth", [limits.DEEPEST_JSON, limits.DEEPEST_JSON + 1])
def test_depth_is_counted_outside_of_texts(depth: int) -> None:
    body = '{"a": "[[[[[[[[[[[[[[[[[[[[[[[[[\\"[[[["' + ', "b": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
    if depth > limits.DEEPEST_JSON:
        with pytest.raises(Exception, match="nests deeper than 20"):
            limits.check_depth(body.encode())
    else:
        limits.check_depth(body.encode())


def test_a_bucket_fills_again_and_forgets_who_is_long_gone() -> None:
    buckets = limits.Buckets(per_s=2, burst=3, most=2)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("a", 0.6) == 0
    assert buckets.take("b", 0.6) == buckets.take("c", 0.6) == 0
    assert [buckets.take("a", 0.6) for _ in range(4)] == [0, 0, 0, 1]  # forgotten, and so full again


def test_a_token_that_asks_too_often_waits(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "NOT_LIMITED", ())
    monkeypatch.setattr(limits, "BURST", 5)
    monkeypatch.setattr(limits, "REQUESTS_PER_S", 0.01)
    with TestClient(create_app(api.database, open_to="anyone")) as client:
        answers = [client.get("/api/v1/campaigns") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 100
    assert messages.Problem.model_validate_json(answers[-1].content).type == "/problems/too-many-requests"


def test_a_slow_statement_is_a_503_and_soon(api: Api) -> None:
    """Every transaction has its time limit, so that no request holds a connection for longer."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match="repeat the request"):
        api.database.run(lambda connection: connection.execute(text("select pg_sleep(60)")))
    assert time.monotonic() - began < 40
