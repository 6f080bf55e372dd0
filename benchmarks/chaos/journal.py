"""What was asked and what was answered, one JSON line each, written where the answer arrived.

A line is in the file before anybody acts on the answer, and an acknowledged result is on the disk (fsync). Writers append to
files of their own, so that a writer killed at any moment leaves at most one unfinished last line.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

_ROUTES = {
    ("POST", r"/workers"): "register",
    ("POST", r"/leases"): "ask",
    ("PUT", r"/leases/(?P<token>[^/]+)"): "beat",
    ("DELETE", r"/leases/(?P<token>[^/]+)"): "release",
    ("POST", r"/leases/(?P<token>[^/]+)/epochs"): "epochs",
    ("POST", r"/leases/(?P<token>[^/]+)/failure"): "failure",
    ("PUT", r"/candidates/(?P<candidate>\d+)/attempts/(?P<token>[^/]+)/result"): "result",
}


def asked(method: str, target: str, body: bytes) -> dict[str, Any]:
    """The part of a line that is known before the answer: ``do`` names the route, ``other`` where it is none of a worker's."""
    path = target.partition("?")[0]
    for (verb, pattern), do in _ROUTES.items():
        found = re.search(rf"/api/v1{pattern}$", path)
        if found and verb == method:
            line: dict[str, Any] = {"do": do, **found.groupdict()}
            said = _json(body)
            for key in ("request_id", "fitness", "kind"):
                if key in said:
                    line[key] = said[key]
            return line
    return {"do": "other", "path": path}


def answered(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The part of a line that the answer adds; of a lease only (candidate, number, token)."""
    line: dict[str, Any] = {"status": status}
    said = _json(body)
    if "leases" in said:
        line["leases"] = [[lease["candidate"], lease["number"], lease["token"]] for lease in said["leases"]]
    for key in ("counts", "reason", "command", "current", "state", "type"):
        if key in said:
            line[key] = said[key]
    if status >= 400:
        line["problem"] = headers.get("content-type", "").startswith("application/problem+json")
        line["retry_after"] = headers.get("retry-after")
    return line


def _json(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Journal:
    """One writer's file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def sending(self, line: Mapping[str, Any]) -> None:
        """Before a result leaves: whatever the database holds afterwards was sent by somebody."""
        if line["do"] == "result":
            self._write({**line, "at": [time.time(), None], "sending": True})

    def note(self, line: Mapping[str, Any], began: float) -> None:
        self._write({**line, "at": [began, time.time()]})
        if line["do"] == "result" and 200 <= (line.get("status") or 0) < 300:
            os.fsync(self._file)

    def _write(self, line: Mapping[str, Any]) -> None:
        os.write(self._file, (json.dumps(line, separators=(",", ":")) + "\n").encode())


class Recording(httpx.BaseTransport):
    """A transport for ``hypevolve.client.Client`` that journals every answer before the client sees it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        line = asked(request.method, request.url.raw_path.decode(), request.content)
        self._journal.sending(line)
        began = time.time()
        try:
            response = self._inner.handle_request(request)
            body = response.read()
        except httpx.RequestError as error:
            self._journal.note({**line, "status": None, "error": type(error).__name__}, began)
            raise
        self._journal.note({**line, **answered(response.status_code, response.headers, body)}, began)
        response.close()
        return httpx.Response(response.status_code, headers=response.headers, content=body)

    def close(self) -> None:
        self._inner.close()


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Every line of every journal; ``who`` is its writer. A last line cut off by a kill is left out."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield {**json.loads(line), "who": path.stem}
