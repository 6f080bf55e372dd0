"""Backup, restore and recovery to a point in time, with PostgreSQL's own programs; what workers say of the lost future."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server import backup, transaction
from server.app import create_app
from server.database import Database, migrate
from server.errors import Unavailable
from server.postgres import EmbeddedPostgres
from tests.integration.conftest import Api

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def restored_api(empty_database_url: str) -> Iterator[Any]:
    """Brings a backup into another database and opens a coordinator on it."""
    opened: list[Any] = []

    def restore(file: Path) -> Api:
        backup.restore(empty_database_url, file)
        database = Database(empty_database_url)
        http = TestClient(create_app(database, open_to="anyone"))
        opened.extend([http.__enter__(), database])
        return Api(http, database)

    yield restore
    for one in opened[::2]:
        one.__exit__(None, None, None)
    for one in opened[1::2]:
        one.close()


def test_a_restored_database_goes_on_and_knows_results_of_the_future_it_lost(
    api: Any, database_url: str, tmp_path: Path, restored_api: Any
) -> None:
    api.create(candidates=20)
    for map50 in (0.3, 0.5):
        api.result(api.lease(), map50=map50)
    held, silent = api.lease(), api.lease()
    file = tmp_path / "backup"
    assert backup.backup(database_url, file) == file.stat().st_size > 1000
    assert file.stat().st_mode & 0o077 == 0

    api.expire(silent)
    again, unknown = api.lease(), api.lease()  # a lease of a known candidate, and a candidate that the backup does not have
    assert (again["number"], unknown["number"]) == (silent["number"], 4)

    restored = restored_api(file)
    assert restored.counts() == {**api.counts(), "done": 2, "leased": 0, "queued": 2, "unbred": 16, "lost": 0}
    assert restored.beat(held)["command"] == "continue"
    assert restored.beat(unknown) == {"lease_s": 60.0, "command": "continue", "current": False}
    assert restored.result(held).status_code == 201
    assert restored.result(again, map50=0.7).status_code == 201
    assert restored.result(again, map50=0.7).status_code == 200
    refused = restored.result(unknown)
    assert refused.status_code == 409
    assert "restored to a time before this candidate was bred" in refused.json()["detail"]
    assert restored.sql("select detail ->> 'fitness' from event where kind = 'result of a lost future'")
    assert restored.counts()["done"] == 4
    bred = restored.lease()
    assert (bred["number"], bred["candidate"] > unknown["candidate"] + 1000) == (4, True)
    assert restored.http.get("/c/toy").status_code == 200
    events = restored.http.get("/api/v1/campaigns/toy/events").json()["items"]
    assert {"created", "done"} <= {event["kind"] for event in events}  # those of the other cluster are still shown


def test_a_new_epoch_takes_the_time_that_it_needs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of a large table is written, which may take longer than any request may."""
    api.create()
    api.lease()
    api.sql(
        """
        create function slowly() returns trigger language plpgsql as 'begin perform pg_sleep(0.5); return null; end';
        create trigger slowly after update on candidate for each statement execute function slowly();
        """
    )
    monkeypatch.setattr(transaction, "_BEGIN", transaction._BEGIN.replace("'5s'", "'100ms'"))
    with pytest.raises(Unavailable, match="statement timeout"):
        api.sql("update candidate set attempts = 9")
    assert api.database.run(backup.new_epoch) == 1
    assert api.candidate(0)["state"] == "queued"


def test_a_token_that_nobody_issued_is_unknown_where_nothing_was_restored(api: Any) -> None:
    api.create()
    lease = {**api.lease(), "token": "0" * 32}
    assert api.result(lease).status_code == 404
    assert api.http.put(f"/api/v1/leases/{lease['token']}", json={}).status_code == 404


def test_restore_refuses_a_database_that_holds_something_unless_forced(api: Any, database_url: str, tmp_path: Path) -> None:
    api.create()
    file = tmp_path / "backup"
    backup.backup(database_url, file)
    api.create("later")
    with pytest.raises(backup.BackupFailed, match=r"holds \d+ tables already; restore into an empty one, or .* --force"):
        backup.restore(database_url, file)
    assert backup.restore(database_url, file, force=True) == 1
    assert [row.name for row in api.sql("select name from campaign")] == ["toy"]


def test_a_file_that_is_no_backup_changes_nothing(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    backup.backup(database_url, file)
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:-2000])
    for wrong in (broken, tmp_path / "missing", Path(__file__)):
        with pytest.raises(backup.BackupFailed):
            backup.restore(empty_database_url, wrong)
    with closing(Database(empty_database_url)) as database:
        assert database.run(lambda connection: connection.execute(backup._HELD).scalar_one()) == 0


def test_the_commands_on_an_embedded_database(tmp_path: Path) -> None:
    def db(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hypevolve", "db", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    with EmbeddedPostgres(tmp_path / "one") as server:
        migrate(server.url)
    file = tmp_path / "backup"
    done = db("backup", str(file), "--folder", str(tmp_path / "one"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "and read its list of contents back" in done.stderr
    refused = db("restore", str(file), "--folder", str(tmp_path / "one"))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "--force" in line
    done = db("restore", str(file), "--folder", str(tmp_path / "two"))
    assert (done.returncode, "epoch 1 begins" in done.stderr) == (0, True), done.stderr


def test_recovery_to_a_point_in_time(tmp_path: Path) -> None:
    """The drill of docs/OPERATIONS.md: base backup and WAL, recovery to a moment between two results, a new epoch."""
    archive, base = tmp_path / "archive", tmp_path / "two"
    archive.mkdir()
    with EmbeddedPostgres(tmp_path / "one") as server:
        migrate(server.url)
        database = Database(server.url)
        with TestClient(create_app(database, open_to="anyone")) as http:
            api = Api(http, database)
            api.create(candidates=9)
            _autocommit(
                server.url, "alter system set archive_mode = 'on'", f"alter system set archive_command = 'cp %p {archive}/%f'"
            )
        database.close()
        server.stop()
        shutil.copytree(tmp_path / "one", base)
        server.start()
        database = Database(server.url)
        with TestClient(create_app(database, open_to="anyone")) as http:
            api = Api(http, database)
            api.result(api.lease(), map50=0.3)
            (moment,) = api.sql("select clock_timestamp()::text")[0]
            time.sleep(0.01)
            late = api.lease()
            api.result(late, map50=0.9)
            _autocommit(server.url, "select pg_switch_wal()")
            while not any(archive.iterdir()):
                time.sleep(0.05)
        database.close()
    (base / "pgdata/recovery.signal").touch()
    with (base / "pgdata/postgresql.auto.conf").open("a") as conf:
        conf.write(f"\nrestore_command = 'cp {archive}/%f %p'\nrecovery_target_time = '{moment}'\n")
        conf.write("recovery_target_action = 'promote'\narchive_mode = 'off'\n")
    with EmbeddedPostgres(base) as server:
        database = Database(server.url)
        deadline = time.monotonic() + 60
        while database.run(lambda c: c.exec_driver_sql("select pg_is_in_recovery()").scalar_one()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert database.run(backup.new_epoch) == 1
        with TestClient(create_app(database, open_to="anyone")) as http:
            api = Api(http, database)
            assert api.counts()["done"] == 1
            assert api.result(late, map50=0.9).status_code == 409  # bred after that moment: kept for audit
            assert api.lease()["number"] == 1
        database.close()


def _autocommit(url: str, *statements: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
