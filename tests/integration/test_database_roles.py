"""What the coordinator asks of a PostgreSQL that is not its own: few rights, no session, patience with locks."""

import threading
import uuid
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from server import database as door
from server.app import create_app
from server.database import Database, migrate, parse_url
from server.errors import Unavailable
from tests.integration.conftest import Api


def _execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _walk(api: Api) -> None:
    """A bit of everything that coordinators do."""
    api.create(candidates=6)
    api.result(api.lease())
    lease = api.lease()
    assert api.beat(lease)["current"]
    api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json={"epochs": [{"epoch": 0, "metrics": {"map50": 0.1}}]})
    api.fail(lease)
    silent = api.lease()
    api.http.delete(f"/api/v1/leases/{api.lease()['token']}")
    api.result(silent)
    assert [api.http.get(page).status_code for page in ("/", "/c/toy", "/workers", "/c/toy/candidates/0")] == [200] * 4
    counts = api.counts()
    assert (counts["done"], counts["queued"]) == (2, 1)


def test_a_role_with_no_right_but_to_rows_serves(database_url: str) -> None:
    role = f"app_{uuid.uuid4().hex}"
    grants = (
        f"create role {role} login password 'p'",
        f"grant usage on schema public to {role}",
        f"grant select, insert, update, delete on all tables in schema public to {role}",
        f"grant usage, select on all sequences in schema public to {role}",
    )
    _execute(database_url, *grants)
    url = make_url(database_url).set(username=role, password="p").render_as_string(hide_password=False)
    migrate(url)  # there is nothing to do
    try:
        with closing(Database(url)) as database, TestClient(create_app(database, open_to="anyone")) as http:
            _walk(Api(http, database))
    finally:
        _execute(database_url, f"drop owned by {role}", f"drop role {role}")


def test_a_role_that_may_not_migrate_is_told_who_may(empty_database_url: str) -> None:
    role = f"app_{uuid.uuid4().hex}"
    _execute(empty_database_url, f"create role {role} login password 'p'", "revoke create on schema public from public")
    url = make_url(empty_database_url).set(username=role, password="p").render_as_string(hide_password=False)
    try:
        with pytest.raises(Unavailable, match="this role may not change it; start once as its owner"):
            migrate(url)
    finally:
        _execute(empty_database_url, f"drop role {role}")


def test_nothing_is_kept_in_a_session(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transaction in a session of its own, as pgbouncer may do it in transaction mode."""
    made: list[dict[str, Any]] = []

    def create(url: Any, **options: Any) -> Any:
        made.append(options)
        for pooled in ("pool_size", "max_overflow", "pool_timeout", "pool_recycle"):
            options.pop(pooled, None)
        return create_engine(url, **options, poolclass=NullPool)

    monkeypatch.setattr(door, "create_engine", create)
    with closing(Database(database_url)) as database, TestClient(create_app(database, open_to="anyone")) as http:
        _walk(Api(http, database))
    assert len(made) == 2
    # Such a pooler refuses start-up options; what is set is set with SET LOCAL.
    assert not any("options" in options["connect_args"] for options in made)


def test_plans_that_a_pooler_has_lost_are_done_without(database_url: str) -> None:
    """A connection's plans stay in its session; that somebody, such as pgbouncer, gives it to others is noticed at once."""
    with closing(Database(database_url)) as database:
        api = Api(TestClient(create_app(database, open_to="anyone")), database)
        api.create(candidates=6)
        assert api.result(api.lease()).status_code == 201
        for essential in (False, True):
            database.run(lambda connection: connection.exec_driver_sql("deallocate all"), essential=essential)
        lease = api.lease()
        assert api.result(lease).status_code == 201
        assert not database._plans_stay
        assert api.result(api.lease()).status_code == 201


def test_a_schema_newer_than_the_program_is_served(api: Any, database_url: str) -> None:
    api.sql("update alembic_version set version_num = 'ffff'")
    migrate(database_url)
    assert api.sql("select version_num from alembic_version")[0][0] == "ffff"


def test_a_migration_waits_for_locks_in_short_turns_and_comes_through(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a table's lock makes all others wait behind it, so a migration never does for long."""
    monkeypatch.setattr(door, "TURN_S", 0.1)
    monkeypatch.setattr(door, "LOCKED_S", 0.5)
    address = parse_url(empty_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(address)) as holder:
        holder.cursor().execute("select pg_advisory_xact_lock(%s)", (door._MIGRATION_LOCK,))
        with pytest.raises(Unavailable, match=r"cannot be changed, something holds locks .*lock timeout"):
            migrate(empty_database_url)
        monkeypatch.setattr(door, "LOCKED_S", 60)
        migration = threading.Thread(target=migrate, args=(empty_database_url,))
        migration.start()
        holder.rollback()
        migration.join(60)
    assert not migration.is_alive()
    with closing(Database(empty_database_url)) as database:
        assert database.run(lambda connection: connection.execute(text("select count(*) from pulse")).scalar_one()) == 1
