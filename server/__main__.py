"""``python -m server``: starts the database where none is given, migrates it, serves until SIGTERM."""

from __future__ import annotations

import os

# Before numpy is imported: breeding multiplies small matrices, and threads that wait for each other cost more than they bring.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import contextlib
import errno
import json
import logging
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from server import database_command, settings, token_command, tokens
from server.access import OpenTo, is_loopback
from server.app import create_app
from server.artifacts import ArtifactStore
from server.connection import GuardedProtocol
from server.database import Database, migrate
from server.errors import Unavailable
from server.limits import CONNECTIONS
from server.postgres import EmbeddedPostgres, PostgresUnavailable

log = logging.getLogger("server")


class _Server(uvicorn.Server):
    """Announces itself once it answers, keeps the embedded PostgreSQL alive, ends waiting asks and streams when it stops."""

    def __init__(self, config: uvicorn.Config, url: str, announce: Path | None, postgres: EmbeddedPostgres | None) -> None:
        super().__init__(config)
        self._url = url
        self._announce = announce
        self._postgres = postgres

    async def on_tick(self, counter: int) -> bool:
        # In the event loop on purpose: the kernel ties the server's life to the thread that starts it, and nothing else can be
        # done without a database.
        if self._postgres is not None and not self._postgres.alive():
            log.warning("the embedded PostgreSQL is gone; starting it again")
            before = self._postgres.url
            if self._postgres.start() != before:
                log.error("the embedded PostgreSQL came back at another address; start the coordinator again")
                return True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        log.info("coordinator at %s", self._url)
        if self._announce is not None:
            fresh = self._announce.with_suffix(".new")
            fresh.write_text(json.dumps({"url": self._url, "pid": os.getpid()}))
            fresh.replace(self._announce)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.config.app.state  # type: ignore[union-attr]
        state.coordinator.watch.dismiss()
        state.event_watch.close()
        await super().shutdown(sockets)


def main(arguments: list[str]) -> int:
    """Serve, make a token, or care for the database. Returns the exit code.

    0 after SIGTERM, 1 where the database cannot be used, 2 where the port is taken or would let everybody in.
    """
    if "token" in arguments:  # not only in front: an image's entry point has options of its own there
        return token_command.main(arguments[arguments.index("token") + 1 :], os.environ)
    if arguments[:1] == ["db"]:
        return database_command.main(arguments[1:], os.environ)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    asked = settings.read(arguments, os.environ)
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _leave)  # uvicorn raises the signal again once it has stopped serving
    with contextlib.ExitStack() as opened:
        try:
            listener = _listen(asked.host, asked.port)
        except (OSError, OverflowError) as error:
            print(_why_not(asked.host, asked.port, error), file=sys.stderr)
            return 2
        opened.enter_context(contextlib.closing(listener))
        postgres = None if asked.database_url else EmbeddedPostgres(asked.folder, pg_bin=asked.pg_bin)
        try:
            url = asked.database_url or opened.enter_context(postgres).url  # type: ignore[arg-type]
            migrate(url, wait_s=asked.db_wait)
            artifacts = ArtifactStore(asked.artifacts or str(asked.folder.resolve() / "artifacts"))
            database = opened.enter_context(contextlib.closing(Database(url)))
        except (PostgresUnavailable, Unavailable, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        opened.callback(_ignore_signals)
        try:
            open_to = _open_to(asked, listener.getsockname()[0], database.run(tokens.any_made))
        except (PermissionError, Unavailable) as error:
            print(error, file=sys.stderr)
            return 2
        _serve(asked, database, artifacts, postgres, listener, open_to)
    return 0


def _open_to(asked: settings.Settings, address: str, guarded: bool) -> OpenTo:
    """Who may come without a token, said aloud.

    Raises:
        PermissionError: everybody could, and nobody asked for that.
    """
    if asked.insecure_no_auth:
        log.warning("--insecure-no-auth: whoever reaches %s may do everything, workers run their programs", address)
        return "anyone"
    if guarded:
        return "loopback" if is_loopback(address) else "nobody"
    if is_loopback(address):
        log.warning("no access tokens: every user of this machine may do everything, nobody else anything (docs/SECURITY.md)")
        return "loopback"
    raise PermissionError(
        f"--host {asked.host} would let everybody in, since there are no access tokens; make the first with `hypevolve serve "
        "token create NAME --scope admin` (the same --db or --folder), or say --insecure-no-auth (docs/SECURITY.md)"
    )


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _ignore_signals() -> None:
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)


def _serve(
    asked: settings.Settings,
    database: Database,
    artifacts: ArtifactStore,
    postgres: EmbeddedPostgres | None,
    listener: socket.socket,
    open_to: OpenTo,
) -> None:
    port = listener.getsockname()[1]
    shown = "127.0.0.1" if asked.host in ("0.0.0.0", "::") else asked.host  # noqa: S104
    config = uvicorn.Config(
        create_app(
            database,
            root_path=asked.root_path,
            open_to=open_to,
            artifacts=artifacts,
            most_checkpoint_bytes=int(asked.most_checkpoint_gb * 1e9),
        ),
        http=GuardedProtocol,
        ws="none",
        limit_concurrency=CONNECTIONS,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    _Server(config, f"http://{shown}:{port}{asked.root_path}", asked.announce, postgres).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, taken before anything is started, so that a taken port costs nothing.

    Raises:
        OSError, OverflowError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # at once: a port that is only bound can be bound by a second coordinator as well
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener


def _why_not(host: str, port: int, error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return f"--port {port} is no port; choose one from 0 to 65535"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine; 127.0.0.1 serves this machine alone, 0.0.0.0 every network"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one from 1024 on with --port"
    return f"port {port} on {host} is taken; stop what uses it or choose another with --port"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
