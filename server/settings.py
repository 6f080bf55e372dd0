"""What a coordinator can be told, each setting once: command line option, environment variable, default, meaning."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How one coordinator process runs.

    Without ``database_url`` it starts its own PostgreSQL in ``folder``; without ``artifacts`` checkpoints lie beside it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    folder: Path = Path("hypevolve-data")
    database_url: str | None = None
    pg_bin: str | None = None
    db_wait: float = 0.0
    artifacts: str | None = None
    most_checkpoint_gb: float = 4.0
    root_path: str = ""
    announce: Path | None = None
    insecure_no_auth: bool = False


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from a command line, with the environment where it is silent. Wrong usage exits 2."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="The coordinator of hyperparameter evolution.",
        epilog="python -m server token create --help: the first access token",
    )
    parser.add_argument("--host", default=default.host, help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port", type=int, default=default.port, help="port to listen on; 0 takes a free one (default %(default)s)"
    )
    add_database(parser, environment)
    parser.add_argument(
        "--artifacts",
        default=environment.get("HYPEVOLVE_ARTIFACTS") or None,
        help="where checkpoints go: a folder, s3://bucket/prefix or gs://bucket/prefix, the same for every coordinator of a "
        "database (environment: HYPEVOLVE_ARTIFACTS; default: FOLDER/artifacts)",
    )
    parser.add_argument(
        "--most-checkpoint-gb", type=float, default=default.most_checkpoint_gb, help="largest checkpoint (default %(default)s)"
    )
    parser.add_argument("--root-path", default=default.root_path, help="URL prefix behind a proxy, such as /hypevolve")
    parser.add_argument("--announce", type=Path, help="write {url, pid} to this file once requests are answered")
    parser.add_argument(
        "--insecure-no-auth",
        action="store_true",
        help="let in whoever reaches the port, without an access token: for a network in which you trust everybody",
    )
    return Settings(**vars(parser.parse_args(arguments)))


def add_database(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """The options that say which database."""
    default = Settings()
    parser.add_argument("--folder", type=Path, default=default.folder, help="of the embedded PostgreSQL (default %(default)s)")
    parser.add_argument(
        "--db",
        dest="database_url",
        default=environment.get("HYPEVOLVE_DATABASE_URL") or None,
        help="postgresql://user:password@host/name of your own server (environment: HYPEVOLVE_DATABASE_URL)",
    )
    parser.add_argument(
        "--db-wait",
        type=float,
        default=default.db_wait,
        metavar="SECONDS",
        help="how long a database that cannot be reached yet is waited for at the start (default %(default)g)",
    )
    parser.add_argument("--pg-bin", help="folder with the programs postgres and initdb for the embedded PostgreSQL")
