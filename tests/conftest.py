"""Fixtures with a real PostgreSQL: `database_url` (migrated) and `empty_database_url`, a fresh database for each test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from server.database import migrate, parse_url
from server.postgres import EmbeddedPostgres


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go into a folder of the test session, also those of the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPEVOLVE_CACHE", str(tmp_path_factory.mktemp("images")))
        yield


def _execute(url: str, *statements: str) -> None:
    """Runs statements that refuse a transaction, over a connection that is closed afterwards."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def _database(server: str, template: str = "template1") -> Iterator[str]:
    """The URL of a new database, a copy of `template`, that is dropped afterwards even while connections to it are open."""
    name = f"hypevolve_test_{uuid.uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server where databases may be created: the one in HYPEVOLVE_TEST_DATABASE_URL, else an embedded one."""
    given = os.environ.get("HYPEVOLVE_TEST_DATABASE_URL")
    if given:
        yield parse_url(given).render_as_string(hide_password=False)
        return
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a database with the newest schema, migrated once; copies of it are much quicker than migrations."""
    with _database(postgres_url) as url:
        migrate(url)
        name = make_url(url).database
        assert name
        # A template in use cannot be copied.
        _execute(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        yield name


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A database of its own for the test, with the newest schema."""
    with _database(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database of its own for the test, without any table."""
    with _database(postgres_url) as url:
        yield url
