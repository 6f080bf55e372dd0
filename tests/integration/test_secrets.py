"""A token goes through a whole campaign, by a real coordinator, worker and command line, and stands nowhere afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from benchmarks.heartbeats import coordinator
from hypevolve import messages

ROOT = Path(__file__).resolve().parents[2]
TRAINER = """
import os

def train(context):
    assert "HYPEVOLVE_TOKEN" not in os.environ, "a training needs no token"
    if context.hyp["x"] > 0.4:
        raise RuntimeError("this one fails, and its last words are kept: " + repr(dict(os.environ)))
    context.report(0, map50=0.5)
    return dict(precision=0.5, recall=0.5, f1=0.5, map50=0.5, map50_95=0.3)
"""
CAMPAIGN = {
    "name": "secret",
    "base": {"epochs": 1},
    "trainer": {"python": "canary:train"},
    "hyp": {"x": 0.4},
    "space": {"x": {"gain": 1, "min": 0.01, "max": 1}},
    "evolve": {"strategy": "random"},
    "budget": {"candidates": 4},
    "retries": {"failed": 0},
}


@pytest.fixture
def database(database_url: str) -> str:
    return database_url


def run(*command: str, token: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "HYPEVOLVE_TOKEN": token, **environment}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=known, capture_output=True, text=True, timeout=120)


def test_a_token_stands_nowhere_after_a_campaign(database: str, tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text(TRAINER)
    (tmp_path / "campaign.json").write_text(json.dumps(CAMPAIGN))
    (tmp_path / "server").mkdir()
    said: list[str] = []
    with coordinator(tmp_path / "server", "--db", database) as url:
        made = httpx.post(f"{url}/api/v1/tokens", json={"name": "canary", "scopes": ["admin"]}, timeout=60)
        token = messages.NewToken.model_validate_json(made.content).token
        secret = token.split("_", 2)[2]
        time.sleep(3.2)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
            http.post("/api/v1/campaigns", json=CAMPAIGN).raise_for_status()
            options = [url, "--folder", str(tmp_path / "work"), "--devices", "cpu", "--data-root", str(tmp_path), "--max", "4"]
            worked = run("worker", *options, token=token)
            assert worked.returncode == 0, worked.stderr
            said += [worked.stdout, worked.stderr]
            for command in (
                ["ls"],
                ["show", "secret"],
                ["events", "secret"],
                ["events"],
                ["token", "ls"],
                ["-v", "show", "nothing"],
            ):
                done = run("hypevolve", "--url", url, *command, token=token)
                assert done.returncode in (0, 3), done.stderr
                said += [done.stdout, done.stderr]
            wrong = run("hypevolve", "--url", url, "-v", "ls", token=token[:-1] + ("A" if token[-1] != "A" else "B"))
            assert wrong.returncode == 6
            said += [wrong.stderr]
            origin = {"Origin": url}
            said += [http.post("/login", data={"token": token, "next": "//x"}, headers=origin).text]
            for page in (
                "/",
                "/workers",
                "/c/secret",
                "/c/secret.json",
                "/c/secret/candidates/0",
                "/nowhere",
                "/api/v1/tokens",
            ):
                said.append(http.get(page, headers={"Accept": "text/html"}).text)
            said.append(http.post("/api/v1/leases", json={"request_id": token, "worker": token}).text)
            said.append(http.put(f"/api/v1/leases/{'x' * 60}", json={}).text)
            counts = http.get("/api/v1/campaigns/secret").json()["counts"]
            assert counts["done"] + counts["failed"] == 4
    assert secret not in "".join(said)
    assert _where(secret, tmp_path) == []
    assert _rows(secret, database) == []


def _where(secret: str, folder: Path) -> list[str]:
    """The files that hold it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def _rows(secret: str, database: str) -> list[Any]:
    """The rows of any table that hold it."""
    engine = create_engine(database)
    found: list[Any] = []
    with engine.connect() as connection:
        tables = connection.execute(text("select tablename from pg_tables where schemaname = 'public'")).scalars().all()
        assert {"event", "token", "attempt"} <= set(tables)
        for table in tables:
            query = text(f"select t::text from {table} t where t::text like :like")
            found += connection.execute(query, {"like": f"%{secret}%"}).all()
    engine.dispose()
    return found


def test_a_token_on_a_command_line_is_gone_before_anything_is_done(tmp_path: Path) -> None:
    """The program starts itself again, with the token where only its own user can read it."""
    token = f"hyp_{'0' * 12}_{'s' * 43}"
    shown = "import sys; from hypevolve import credentials; credentials.hide(sys.argv[1:], dict(__import__('os').environ)); "
    shown += "print(open('/proc/self/cmdline').read().replace(chr(0), ' ')); print(__import__('os').environ['HYPEVOLVE_TOKEN'])"
    for given in (["--token", token, "ls"], ["ls", f"--token={token}"]):
        done = subprocess.run([sys.executable, "-c", shown, *given], cwd=ROOT, capture_output=True, text=True, timeout=60)
        title, kept = done.stdout.splitlines()
        assert token not in title, done.stderr
        assert title.split()[-1] == "ls"
        assert kept == token
