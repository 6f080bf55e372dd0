"""``python -m server db backup | restore | new-epoch``: the life of the database, for whoever operates the coordinator."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from server import backup, settings
from server.database import Database
from server.errors import CoordinatorError
from server.postgres import EmbeddedPostgres, PostgresUnavailable


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Do one thing to the database. Returns the exit code: 0, 1 where it cannot be done, with one line that says why."""
    asked = _read(arguments, environment)
    with contextlib.ExitStack() as opened:
        try:
            url = asked.database_url or opened.enter_context(EmbeddedPostgres(asked.folder, pg_bin=asked.pg_bin)).url
            print(asked.do(asked, url), file=sys.stderr)
        except (CoordinatorError, PostgresUnavailable, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _backup(asked: argparse.Namespace, url: str) -> str:
    size = backup.backup(url, asked.file, pg_bin=asked.pg_bin)
    return f"wrote {asked.file} ({size:,} bytes), and read its list of contents back"


def _restore(asked: argparse.Namespace, url: str) -> str:
    epoch = backup.restore(url, asked.file, force=asked.force, pg_bin=asked.pg_bin)
    return f"restored {asked.file}; epoch {epoch} begins: candidates in training are offered again"


def _new_epoch(asked: argparse.Namespace, url: str) -> str:
    with contextlib.closing(Database(url)) as database:
        epoch = database.run(backup.new_epoch)
    return f"epoch {epoch} begins: candidates in training are offered again"


def _read(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m server db")
    commands = parser.add_subparsers(required=True, metavar="backup|restore|new-epoch")
    keep = commands.add_parser("backup", help="write the whole database to a file, also while coordinators run on --db")
    keep.add_argument("file", type=Path)
    keep.set_defaults(do=_backup)
    bring = commands.add_parser("restore", help="bring a backup into an empty database; stop the coordinators first")
    bring.add_argument("file", type=Path)
    bring.add_argument("--force", action="store_true", help="also where the database holds something, which is removed")
    bring.set_defaults(do=_restore)
    epoch = commands.add_parser(
        "new-epoch", help="after PostgreSQL's own recovery to a point in time, before a coordinator starts"
    )
    epoch.set_defaults(do=_new_epoch)
    for command in (keep, bring, epoch):
        settings.add_database(command, environment)
    return parser.parse_args(arguments)
