"""What PostgreSQL can do to a coordinator: never a false 2xx, never a 500, and back by itself once the database is.

Crashes are the fault campaign's (benchmarks/chaos). Here: no connections left, a locked table, read-only, a full disk, and a
failover to a synchronous standby.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.engine import make_url

from server import database
from server.app import create_app
from server.database import Database, migrate
from server.errors import Unavailable
from server.postgres import EmbeddedPostgres, find_binaries

HEALS_WITHIN_S = 30.0  # on a slow and busy machine; at rest it is below one second

TERMINATE = """
    select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
"""


def dsn(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.contextmanager
def session(url: str) -> Iterator[Any]:
    """A connection of somebody else's."""
    with contextlib.closing(psycopg2.connect(dsn(url))) as connection:
        connection.autocommit = True
        yield connection.cursor()


class House:
    """A coordinator in this process over any URL, spoken to by one worker."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.http = TestClient(create_app(self.database), base_url="http://127.0.0.1", client=("127.0.0.1", 50000))
        self.seen: list[int] = []

    def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, f"/api/v1{path}", json=body)
        self.seen.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["content-type"] == "application/problem+json"
            assert float(answer.headers["Retry-After"]) > 0
        return answer

    def create(self, candidates: int) -> None:
        gene = {"gain": 1, "min": 0.01, "max": 1}
        document = {
            "name": "toy",
            "base": {"epochs": 3},
            "trainer": {"python": "toy:train"},
            "hyp": {"x": 0.5},
            "space": {"x": gene},
            "evolve": {"strategy": "random"},
            "budget": {"candidates": candidates},
        }
        answer = self.send("POST", "/campaigns", document)
        assert answer.status_code == 201, answer.text

    def ask(self) -> Any:
        """A lease, or the status in its place."""
        uid = os.urandom(16).hex()
        answer = self.send("POST", "/leases", {"request_id": uid, "worker": uid})
        return answer.json()["leases"][0] if answer.status_code == 200 else answer.status_code

    def result(self, lease: Any) -> int:
        body = {
            "metrics": {"map50": 0.5, "map50_95": 0.25},
            "fitness": 0.275,
            "hyp_hash": lease["hyp_hash"],
            "seconds": 1,
            "epochs": 3,
        }
        return int(self.send("PUT", f"/candidates/{lease['candidate']}/attempts/{lease['token']}/result", body).status_code)

    def heals(self) -> float:
        """Seconds until a lease and its result are acknowledged again."""
        began = time.monotonic()
        while time.monotonic() - began < HEALS_WITHIN_S:
            lease = self.ask()
            if isinstance(lease, dict) and self.result(lease) == 201:
                return time.monotonic() - began
            time.sleep(0.05)
        pytest.fail(f"not healed; the last answers: {self.seen[-10:]}")


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    house = House(database_url)
    house.create(candidates=1000)
    yield house
    house.database.close()
    assert set(house.seen) <= {200, 201, 204, 503}


def test_no_connection_left(house: House, database_url: str) -> None:
    """The role is an ordinary one, as in a real house: PostgreSQL keeps connections back for its superusers."""
    name = make_url(database_url).database
    with session(database_url) as admin:
        admin.execute(f"create role guest_{name} login password 'guest' nosuperuser")
        admin.execute(f"grant all on all tables in schema public to guest_{name}")
        admin.execute(f"grant all on all sequences in schema public to guest_{name}")
        admin.execute(f"alter database {name} connection limit 6")
        url = make_url(database_url).set(username=f"guest_{name}", password="guest")
        guests = House(url.render_as_string(hide_password=False))
        try:
            rogues = []
            with contextlib.suppress(psycopg2.OperationalError):
                while len(rogues) < 10:
                    rogues.append(psycopg2.connect(dsn(url.render_as_string(hide_password=False))))
            assert guests.ask() == 503
            for _ in range(2):  # one for asks, one for results
                rogues.pop().close()
            guests.heals()
            for rogue in rogues:
                rogue.close()
        finally:
            guests.database.close()
            admin.execute(f"drop owned by guest_{name}")
            admin.execute(f"drop role guest_{name}")
    assert set(guests.seen) <= {200, 201, 503}


def test_a_database_that_is_still_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinator and database are started together; it took a restart of the coordinator once."""
    monkeypatch.setattr(database, "STARTING_S", 1.0)
    busy = "the database system is starting up"
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        refused: list[int] = []

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1024)
                        fields = b"SFATAL\0VFATAL\0C57P03\0M" + busy.encode() + b"\0\0"
                        client.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)
                    refused.append(1)

        threading.Thread(target=refuse, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="starting up"):
            migrate(f"postgresql://a:b@127.0.0.1:{listener.getsockname()[1]}/c?sslmode=disable&gssencmode=disable")
    assert len(refused) > 2
    assert time.monotonic() - began > 1


def test_a_locked_table_is_503_within_seconds_and_heals_at_once(house: House, database_url: str) -> None:
    lease = house.ask()
    with contextlib.closing(psycopg2.connect(dsn(database_url))) as stuck:
        stuck.cursor().execute("lock table candidate in access exclusive mode")
        began = time.monotonic()
        assert house.result(lease) == 503
        assert time.monotonic() - began < 20  # the bounds are 1 s for a lock and 5 tries
    assert house.result(lease) == 201


def test_read_only_is_503_and_heals_without_a_restart(house: House, database_url: str) -> None:
    """As on a primary that was demoted: the connections live on, and every one of them refuses to write."""
    name = make_url(database_url).database
    lease = house.ask()
    with session(database_url) as admin:
        admin.execute(f"alter database {name} set default_transaction_read_only = on")
        admin.execute(TERMINATE)
        assert house.result(lease) == 503
        admin.execute(f"alter database {name} reset default_transaction_read_only")
        house.heals()
    assert house.result(lease) == 201


def test_backends_that_are_terminated_cost_no_more_than_a_repetition(house: House, database_url: str) -> None:
    with session(database_url) as admin:
        for _ in range(5):
            lease = house.ask()
            admin.execute(TERMINATE)
            while house.result(lease) == 503:
                pass
    assert house.seen.count(503) <= 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")
def test_a_full_disk_acknowledges_nothing_that_is_not_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system here: {mounted.stderr.strip()}")
    try:
        with EmbeddedPostgres(disk / "db") as postgres:
            migrate(postgres.url)
            house = House(postgres.url)
            house.create(candidates=100_000)
            acknowledged = set()
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as full, contextlib.suppress(OSError):
                while True:
                    full.write(b"\0" * 65536)
            for _ in range(20_000):
                lease = house.ask()
                if not isinstance(lease, dict) or (status := house.result(lease)) == 503:
                    break
                assert status == 201
                acknowledged.add(lease["token"])
            else:
                pytest.fail("the disk never filled up")
            ballast.unlink()
            if not postgres.alive():  # PostgreSQL stops where its log cannot be written
                postgres.start()
            house.heals()
            with session(postgres.url) as look:
                look.execute("select token from result where counts")
                assert acknowledged <= {token for (token,) in look.fetchall()}
            house.database.close()
            assert set(house.seen) <= {200, 201, 503}
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_failover_to_a_synchronous_standby_loses_no_acknowledged_result(tmp_path: Path) -> None:
    deep = "x" * 90  # too long a path for a socket file: both servers listen on TCP
    binaries = find_binaries()
    if not (binaries / "pg_basebackup").exists():
        pytest.skip(f"no pg_basebackup in {binaries}")
    primary, standby = EmbeddedPostgres(tmp_path / f"a{deep}"), EmbeddedPostgres(tmp_path / f"b{deep}")
    with contextlib.ExitStack() as opened:
        opened.enter_context(primary)
        migrate(primary.url)
        one = make_url(primary.url)
        standby.folder.mkdir()
        source = f"host=127.0.0.1 port={one.query['port']} user={one.username} password={one.password} sslmode=disable"
        copy = [binaries / "pg_basebackup", "-D", standby.pgdata, "-d", source, "-R", "-X", "stream", "-c", "fast"]
        subprocess.run(copy, check=True, env={**os.environ, "LC_ALL": "C"})
        shutil.copy(primary.password, standby.password)
        opened.enter_context(standby)
        with session(primary.url) as admin:
            admin.execute("alter system set synchronous_standby_names = '*'")
            admin.execute("select pg_reload_conf()")
            _until(lambda: _one(admin, "select sync_state from pg_stat_replication") == "sync")
        ports = [make_url(server.url).query["port"] for server in (primary, standby)]
        hosts = tuple(f"127.0.0.1:{port}" for port in ports)
        both = one.set(query={"host": hosts, "target_session_attrs": "read-write", "sslmode": "disable"})
        house = House(both.render_as_string(hide_password=False))
        opened.callback(house.database.close)
        house.create(candidates=1000)
        acknowledged = set()
        for _ in range(10):
            lease = house.ask()
            assert house.result(lease) == 201
            acknowledged.add(lease["token"])
        open_lease = house.ask()
        assert primary.pid
        os.kill(primary.pid, signal.SIGKILL)
        assert house.result(open_lease) == 503
        with session(standby.url) as admin:
            admin.execute("select pg_promote()")
        _until(lambda: house.result(open_lease) in (200, 201))
        acknowledged.add(open_lease["token"])
        house.heals()
        with session(standby.url) as look:
            look.execute("select token from result where counts")
            assert acknowledged <= {token for (token,) in look.fetchall()}
        assert set(house.seen) <= {200, 201, 503}


def _one(cursor: Any, query: str) -> Any:
    cursor.execute(query)
    row = cursor.fetchone()
    return row and row[0]


def _until(condition: Any) -> None:
    end = time.monotonic() + HEALS_WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
