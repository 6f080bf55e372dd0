"""Backup and restore of the coordinator's database, and what a database needs to be told after it went back in time.

A backup is PostgreSQL's own (``pg_dump``, custom format), verified by reading its list of contents back. After a restore, also
one to a point in time by PostgreSQL's means, the service begins a new *epoch*: what happened after the backup has happened for
workers but not for this database. Nobody's lease is trusted, ids that the lost future may have given out are never given again,
and a token unknown to this database is recognised as possibly one of that future: see ``server.lost_future``.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from server import events
from server.database import Database, migrate, parse_url
from server.errors import CoordinatorError
from server.postgres import find_binaries

LOST_IDS = 1_000_000  # more than any lost future can have given out


class BackupFailed(CoordinatorError):
    """A backup or restore cannot be done; its text is one line that says why, and the remedy."""


def backup(url: str, file: Path, *, pg_bin: str | None = None) -> int:
    """Write a backup of the whole database to ``file``, all or nothing; its size in bytes.

    Raises:
        BackupFailed: PostgreSQL refused, or the file cannot be written.
    """
    draft = file.with_name(file.name + ".new")
    try:
        draft.touch(0o600)
        _run("pg_dump", _programs(pg_bin, url), url, "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}")
        _contents(draft, pg_bin)
        draft.replace(file)
    except OSError as error:
        raise BackupFailed("backup", f"cannot write {file}: {error.strerror}; give another file") from error
    finally:
        draft.unlink(missing_ok=True)
    return file.stat().st_size


def restore(url: str, file: Path, *, force: bool = False, pg_bin: str | None = None) -> int:
    """Bring a backup into an empty database, in one transaction, and begin a new epoch; the number of that epoch.

    Args:
        force: also into a database that holds something, which is removed.

    Raises:
        BackupFailed: the file is no backup, the database is not empty, or PostgreSQL refused; nothing has changed then.
    """
    if not file.is_file():
        raise BackupFailed("restore", f"there is no file {file}; give one that `hypevolve db backup` wrote")
    _contents(file, pg_bin)
    database = Database(url)
    try:
        held = database.run(lambda connection: connection.execute(_HELD).scalar_one())
        if held and not force:
            raise BackupFailed(
                "restore", f"the database holds {held} tables already; restore into an empty one, or remove them with --force"
            )
        clean = ["--clean", "--if-exists"] if held else []
        _run(
            "pg_restore",
            _programs(pg_bin, url),
            url,
            "--single-transaction",
            "--no-owner",
            "--no-privileges",
            *clean,
            str(file),
        )
        migrate(url)
        return database.run(new_epoch)
    finally:
        database.close()


_HELD = text("select count(*) from pg_tables where schemaname = current_schema()")


def new_epoch(connection: Connection) -> int:
    """After the database went back in time: drop leases, skip ids, and remember it; the number of the new epoch."""
    connection.execute(text("set local statement_timeout = 0"))  # every row of a large table is written
    connection.execute(text("delete from lease"))
    connection.execute(text("update candidate set state = 'queued' where state in ('leased', 'running')"))
    for table in ("campaign", "candidate", "event"):
        newest = f"(select coalesce(max(id), 0) from {table})"
        connection.execute(text(f"select setval(pg_get_serial_sequence('{table}', 'id'), {newest} + {LOST_IDS})"))
    # Transaction ids of another cluster say nothing here, and events above ours would never be shown.
    connection.execute(text("alter table event disable trigger user"))
    connection.execute(text("update event set xid = '0'"))
    connection.execute(text("alter table event enable trigger user"))
    epoch = connection.execute(text("insert into restoration default values returning id")).scalar_one()
    events.record(connection, None, "restored", epoch=epoch)
    return int(epoch)


def _contents(file: Path, pg_bin: str | None) -> str:
    return _run("pg_restore", _programs(pg_bin, None), None, "--list", str(file))


def _run(program: str, programs: Path, url: str | None, *arguments: str) -> str:
    """Run one of PostgreSQL's programs; the password goes by the environment, where other users cannot see it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = [str(programs / program), *arguments]
    if url is not None:
        parsed = parse_url(url)
        environment["PGPASSWORD"] = str(parsed.password or "")
        command.append(f"--dbname={_conninfo(parsed)}")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except OSError as error:
        raise BackupFailed(
            "backup", f"there is no {program} in {programs}; give PostgreSQL's programs with --pg-bin"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise BackupFailed("backup", f"{program}: {re.sub(r'^pg_[a-z]+: (error: )?', '', reason)}")
    return done.stdout


def _programs(pg_bin: str | None, url: str | None) -> Path:
    """Where PostgreSQL's programs are; those of the server's own version where a server is named."""
    if url is None:
        return find_binaries(pg_bin)
    with closing(Database(url)) as database:
        version = database.run(lambda connection: connection.execute(text("show server_version_num")).scalar_one())
    return find_binaries(pg_bin, major=int(version) // 10_000)


def _conninfo(url: URL) -> str:
    """The address in libpq's words, without the password."""
    parts = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database, **url.query}
    quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in parts.items() if value}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())
