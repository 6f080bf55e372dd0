"""``python -m server`` as people start it: bad settings, a database that dies, SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.heartbeats import coordinator

ROOT = Path(__file__).resolve().parents[2]


def _server(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_taken_port_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _server("--port", str(port), "--folder", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"port {port} on 127.0.0.1 is taken; stop what uses it or choose another with --port"]
    assert not any(tmp_path.iterdir())  # nothing was started


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "--port 99999 is no port"),
        (["--host", "198.51.100.7", "--port", "0"], "--host 198.51.100.7 is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_had_says_why(options: list[str], said: str, tmp_path: Path) -> None:
    done = _server(*options, "--folder", str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_an_open_coordinator_for_everybody_does_not_start(database_url: str, tmp_path: Path) -> None:
    url = database_url.replace("postgresql+psycopg2", "postgresql")
    done = _server("--host", "0.0.0.0", "--port", "0", "--db", url)
    assert done.returncode == 2
    assert "would let everybody in" in done.stderr
    assert "token create NAME --scope admin" in done.stderr
    file = tmp_path / "token"
    for first in (True, False):  # as at every start of a container
        made = _server("--host", "0.0.0.0", "token", "create", "w", "--scope", "worker", "--db", url, "--file", str(file))
        assert made.returncode == 0, made.stderr
        assert made.stdout == ""
        assert ("from now on every request" in made.stderr) == first
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    file.unlink()
    assert _server("token", "create", "w", "--scope", "worker", "--db", url, "--file", str(file)).returncode == 0
    assert file.read_text() != first


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a:secret@b/c", "is not of the form postgresql://"),
        ("postgresql://a:secret@127.0.0.1:1/c", "check --db or HYPEVOLVE_DATABASE_URL"),
    ],
)
def test_a_wrong_database_url_is_one_line_without_the_password(url: str, said: str) -> None:
    done = _server("--port", "0", "--db", url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line
    assert "secret" not in line


def test_sigterm_stops_coordinator_and_database_cleanly(tmp_path: Path) -> None:
    with coordinator(tmp_path) as url:
        pid = int((tmp_path / "pgdata/postmaster.pid").read_text().split()[0])
        assert httpx.get(f"{url}/readyz").status_code == 200
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "pgdata/postmaster.pid").exists()


def test_the_embedded_database_killed_under_the_coordinator_comes_back(tmp_path: Path) -> None:
    pidfile = tmp_path / "pgdata/postmaster.pid"
    with coordinator(tmp_path) as url:
        killed = pidfile.read_text().split()[0]
        os.kill(int(killed), signal.SIGKILL)
        seen = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not seen or seen[-1] != 200 or pidfile.read_text().split()[0] == killed):
            seen.append(httpx.get(f"{url}/api/v1/campaigns", timeout=30).status_code)
        assert seen[-1] == 200
        assert set(seen) <= {200, 503}
