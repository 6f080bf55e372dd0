"""Migrations build the schema that the code expects, forth and back, from any number of coordinators at once."""

import threading

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from server.database import alembic_config, migrate, parse_url
from server.errors import Unavailable
from server.tables import metadata


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
def test_models_equal_migrations(database_url: str) -> None:
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_forth_and_back_and_forth(empty_database_url: str) -> None:
    migrate(empty_database_url)
    engine = create_engine(parse_url(empty_database_url))
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "base")
        left = connection.execute(text("select tablename from pg_tables where schemaname = 'public'")).scalars().all()
        assert left == ["alembic_version"]
    engine.dispose()
    migrate(empty_database_url)


def test_coordinators_that_start_together_migrate_once(empty_database_url: str) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            migrate(empty_database_url)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_wrong_url_is_one_line_that_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="is not of the form postgresql://") as wrong:
        migrate("mysql://user:secret@host/name")
    assert "secret" not in str(wrong.value)


def test_an_unreachable_database_is_one_line_that_names_the_remedy() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1.*check --db or HYPEVOLVE_DATABASE_URL") as unreachable:
        migrate("postgresql://someone:secret@127.0.0.1:1/nothing")
    assert "secret" not in str(unreachable.value)
    assert "\n" not in str(unreachable.value)
