"""``python -m server token create``: a token made with access to the database, for the first one and for lost ones."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection

from hypevolve import messages
from server import settings, tokens
from server.caller import ALL, Caller, acting
from server.database import Database, migrate
from server.errors import CoordinatorError
from server.postgres import EmbeddedPostgres, PostgresUnavailable

SCOPES = ("read", "worker", "operator", "admin")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Make a token and print it. Returns the exit code: 0, 1 where the database cannot be used, 4 where the name is taken."""
    asked = _read(arguments, environment)
    acting.set(Caller("python -m server token", ALL))
    with contextlib.ExitStack() as opened:
        try:
            wanted = messages.CreateToken(
                name=asked.name,
                scopes=asked.scope,
                campaigns=asked.campaign or None,
                expires_s=None if asked.expires_days is None else asked.expires_days * 86400,
            )
            url = asked.database_url or opened.enter_context(EmbeddedPostgres(asked.folder, pg_bin=asked.pg_bin)).url
            migrate(url)
            database = opened.enter_context(contextlib.closing(Database(url)))
            guarded = database.run(tokens.any_made)
            secret = database.run(lambda connection: _keep(connection, wanted, asked.file))
        except ValidationError as error:
            first = error.errors()[0]
            print(f"{'.'.join(str(part) for part in first['loc']) or 'the token'}: {first['msg']}", file=sys.stderr)
            return 2
        except (CoordinatorError, PostgresUnavailable, ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 4 if getattr(error, "status", 0) == 409 else 1
    if asked.file is None:
        print("this token is shown once; keep it like a password:", file=sys.stderr)
        print(secret)
    else:
        print(f"the token '{wanted.name}' is in {asked.file}", file=sys.stderr)
    if not guarded:
        print("it is the first: from now on every request to a coordinator of this database needs a token", file=sys.stderr)
    return 0


def _read(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m server token")
    commands = parser.add_subparsers(required=True, metavar="create")
    create = commands.add_parser("create", help="make an access token and show it once")
    create.add_argument("name", metavar="NAME", help="by which events, people and `hypevolve token revoke` name it")
    create.add_argument("--scope", action="append", required=True, choices=SCOPES, help="what it may do; may be repeated")
    create.add_argument("--campaign", action="append", default=[], metavar="NAME", help="only this campaign; may be repeated")
    create.add_argument("--expires-days", type=float, metavar="N", help="when it ends by itself (default: never)")
    create.add_argument(
        "--file",
        type=Path,
        help="write it to this file (mode 0600) instead of showing it; a file that holds one already is kept and let in, so"
        " that the command may be repeated at every start",
    )
    settings.add_database(create, environment)
    return parser.parse_args(arguments)


def _keep(connection: Connection, wanted: messages.CreateToken, file: Path | None) -> str:
    if file is None:
        return tokens.create(connection, wanted).token
    if file.exists():
        secret = file.read_text(encoding="ascii").strip()
        if tokens.PATTERN.fullmatch(secret) is None:
            raise ValueError(f"{file} holds no access token; remove it, or give another --file")
        if not tokens.known(connection, secret):
            tokens.store(connection, secret, wanted)
        return secret
    secret, number = tokens.fresh(), 1
    while tokens.find(connection, wanted.name) is not None:  # the file is lost: nobody can use that one any more
        tokens.revoke(connection, wanted.name)
        number += 1
        wanted = wanted.model_copy(update={"name": f"{wanted.name.removesuffix(f'-{number - 1}')}-{number}"})
    tokens.store(connection, secret, wanted)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(secret + "\n")
    return secret
