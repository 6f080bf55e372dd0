"""Alembic's entry: runs on the connection that ``server.database.migrate`` hands over, inside its transaction and lock."""

from alembic import context

from server.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations through `python -m server`, which holds the advisory lock while it migrates")
context.configure(connection=connection, target_metadata=metadata)
context.run_migrations()
