"""The live event stream from a real server: nothing lost or doubled between two streams, none for whoever is let in no more."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from hypevolve import cli, messages
from hypevolve.client import ONCE, Client
from hypevolve.errors import NotFound, Unreachable
from server import stream, tokens
from server.app import create_app
from server.database import Database
from tests.integration.conftest import Api


class Served:
    """A coordinator that answers over a socket."""

    def __init__(self, database: Database) -> None:
        self.app = create_app(database, open_to="loopback")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=2))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def __enter__(self) -> "Served":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    with Served(database) as served:
        yield served


@pytest.fixture
def api(served: Served, database: Database) -> Iterator[Api]:
    with httpx.Client(base_url=served.url, timeout=20) as http:
        yield Api(http, database)  # type: ignore[arg-type]


def _read(url: str, until: str, **headers: str) -> list[tuple[str, str]]:
    """(place, kind) of the events of one stream, up to the first event of a kind."""
    found = []
    with httpx.stream("GET", f"{url}/api/v1/campaigns/toy/events/stream", headers=headers, timeout=20) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("data: "):
                found.append((place, json.loads(line[6:])["kind"]))
                if found[-1][1] == until:
                    break
    return found


def test_a_cut_stream_goes_on_where_it_was_and_tells_everything_once(api: Api, served: Served) -> None:
    api.create()
    api.result(api.lease())
    first = _read(served.url, "leased", **{"Last-Event-ID": "0-0"})
    later = threading.Timer(1.5, lambda: api.http.post("/api/v1/campaigns/toy/pause"))
    later.start()
    rest = _read(served.url, "paused", **{"Last-Event-ID": first[-1][0]})  # waits for what has not happened yet
    later.join()
    listed = [event["kind"] for event in api.http.get("/api/v1/campaigns/toy/events").json()["items"]]
    assert [kind for _, kind in first + rest] == listed
    assert len({place for place, _ in first + rest}) == len(listed)


def test_without_a_place_a_stream_begins_with_what_comes_next(api: Api, served: Served) -> None:
    api.create()
    later = threading.Timer(1.0, lambda: api.http.post("/api/v1/campaigns/toy/pause"))
    later.start()
    assert [kind for _, kind in _read(served.url, "paused")] == ["paused"]
    later.join()


def test_the_client_follows_until_the_coordinator_stops(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with Served(database) as served:
        with httpx.Client(base_url=served.url) as http:
            Api(http, database).create()  # type: ignore[arg-type]
        client = Client(served.url, retry=ONCE)
        followed = client.follow("toy")
        assert next(followed).kind == "created"
        served.app.state.event_watch.close()  # as a coordinator does that is told to stop
        with pytest.raises(Unreachable, match="ended the stream"):
            next(followed)
        with pytest.raises(NotFound, match="no campaign is called 'nobody'; there are toy"):
            next(client.follow("nobody"))
        assert cli.main(["--url", served.url, "events", "--follow"]) == 2
        assert "hypevolve events NAME --follow" in capsys.readouterr().err


def test_wrong_places_and_too_many_streams_are_refused(api: Api, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    api.create()
    path = "/api/v1/campaigns/toy/events/stream"
    assert api.http.get(path, headers={"Last-Event-ID": "next"}).status_code == 422
    assert api.http.get("/api/v1/campaigns/nobody/events/stream").status_code == 404
    monkeypatch.setattr(stream, "MOST", 0)
    answer = api.http.get(path)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)


def test_a_revoked_token_ends_its_stream(
    api: Api, served: Served, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create()
    monkeypatch.setattr(stream, "FRESH_S", 0.1)
    wanted = messages.CreateToken(name="reader", scopes=["read"])
    secret = database.run(lambda c: tokens.create(c, wanted)).token
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.stream("GET", f"{served.url}/api/v1/campaigns/toy/events/stream", headers=headers, timeout=20) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(": from ")
        database.run(lambda c: tokens.revoke(c, "reader"))
        with contextlib.suppress(StopIteration):
            while True:
                assert not next(lines).startswith("data: ")  # and then it ends


def test_the_numbers_for_prometheus(api: Api) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    api.create(candidates=3)
    api.result(api.lease(), map50=0.5)
    api.lease()
    answer = api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    states = {sample.labels["state"]: sample.value for sample in families["hypevolve_candidates"].samples}
    assert (states["done"], states["leased"], states["unbred"]) == (1, 1, 1)
    (best,) = families["hypevolve_best_fitness"].samples
    assert (best.labels, best.value) == ({"campaign": "toy"}, pytest.approx(0.275))
    workers = {sample.labels["status"]: sample.value for sample in families["hypevolve_workers"].samples}
    assert (workers["training"], workers["silent"]) == (1, 0)
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
