"""A coordinator over a fresh database, in this process, and the few steps most protocol tests share."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from server.app import create_app
from server.artifacts import ArtifactStore
from server.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


class Api:
    """The HTTP interface as a worker and a person use it."""

    def __init__(self, http: TestClient, database: Database) -> None:
        self.http = http
        self.database = database

    def create(self, name: str = "toy", **evolve: Any) -> dict[str, Any]:
        """A campaign of two genes for the python trainer."""
        candidates = evolve.pop("candidates", 10)
        document = {
            "name": name,
            "base": {"epochs": 3},
            "trainer": {"python": "toy:train"},
            "hyp": {"x": 0.5, "y": 0.3},
            "space": {"x": {"gain": 1, "min": 0.01, "max": 1}, "y": {"gain": 1, "min": 0.01, "max": 1}},
            "evolve": {"strategy": "yolov5-2021", "seed": 7},
            "budget": {"candidates": candidates},
            "retries": {"failed": evolve.pop("retries", 1)},
            "lease": {"heartbeat": "5s", "expire": "20s"},
            **evolve,
        }
        answer = self.http.post("/api/v1/campaigns", json=document)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def ask(self, worker: uuid.UUID | None = None, request_id: uuid.UUID | None = None, **body: Any) -> list[dict[str, Any]]:
        body = {"request_id": str(request_id or uuid.uuid4()), "worker": str(worker or uuid.uuid4()), **body}
        answer = self.http.post("/api/v1/leases", json=body)
        assert answer.status_code in (200, 204), answer.text
        return answer.json()["leases"] if answer.status_code == 200 else []

    def lease(self, worker: uuid.UUID | None = None) -> dict[str, Any]:
        (lease,) = self.ask(worker)
        return lease

    def beat(self, lease: dict[str, Any], **body: Any) -> dict[str, Any]:
        answer = self.http.put(f"/api/v1/leases/{lease['token']}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def result(self, lease: dict[str, Any], map50: float = 0.5, **changes: Any) -> Any:
        metrics = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "map50": map50, "map50_95": map50 / 2}
        body = {
            "metrics": metrics,
            "fitness": 0.1 * map50 + 0.9 * map50 / 2,
            "hyp_hash": lease["hyp_hash"],
            "rung": 0,
            "seconds": 1.0,
            "epochs": 3,
            **changes,
        }
        return self.http.put(f"/api/v1/candidates/{lease['candidate']}/attempts/{lease['token']}/result", json=body)

    def fail(self, lease: dict[str, Any], kind: str = "nan") -> Any:
        return self.http.post(f"/api/v1/leases/{lease['token']}/failure", json={"kind": kind, "detail": "loss is nan"})

    def counts(self, name: str = "toy") -> dict[str, int]:
        return self.http.get(f"/api/v1/campaigns/{name}").json()["counts"]

    def candidate(self, number: int, name: str = "toy") -> dict[str, Any]:
        answer = self.http.get(f"/api/v1/campaigns/{name}/candidates/{number}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sql(self, statement: str, **values: Any) -> list[Any]:
        def work(connection: Any) -> list[Any]:
            found = connection.execute(text(statement), values)
            return list(found) if found.returns_rows else []

        return self.database.run(work)

    def expire(self, *leases: dict[str, Any]) -> None:
        """Time passes: these leases lie in the past, while the service was awake."""
        self.sql("update pulse set beat_at = clock_timestamp(), grace_until = '-infinity'")
        tokens = [lease["token"] for lease in leases]
        self.sql("update lease set expires_at = clock_timestamp() - interval '1 s' where token = any(:tokens)", tokens=tokens)


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    with TestClient(create_app(database, artifacts=ArtifactStore(str(tmp_path / "artifacts")), open_to="anyone")) as http:
        yield Api(http, database)
