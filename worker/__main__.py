"""``python -m worker URL``: arguments, environment, logging and signals of the worker."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypevolve import credentials
from hypevolve.errors import HypevolveError, Invalid
from worker.devices import absent, parse_devices
from worker.errors import CannotWork
from worker.supervisor import Settings, Supervisor

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to end; the exit code (docs/WORKER.md)."""
    if argv is None:
        credentials.hide(sys.argv[1:], os.environ)
    settings = _settings(argv, os.environ)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        if fault := absent(settings.devices):
            raise CannotWork(fault)
        supervisor = Supervisor(settings)
        _handle_signals(supervisor)
        supervisor.run()
    except (CannotWork, HypevolveError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _settings(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Trains candidates of a Hypevolve coordinator.")
    url = environment.get("HYPEVOLVE_URL")
    parser.add_argument("url", metavar="URL", nargs="?", default=url, help="the coordinator (or HYPEVOLVE_URL)")
    parser.add_argument("--token", help="an access token of the coordinator (or HYPEVOLVE_TOKEN)")
    parser.add_argument("--token-file", type=Path, help="a file with one, mode 0600 (or HYPEVOLVE_TOKEN_FILE)")
    parser.add_argument("--name", default=socket.gethostname(), help="shown to people; default: the host's name")
    parser.add_argument("--folder", type=Path, help="where results wait for the coordinator; default: STATE/hypevolve/NAME")
    parser.add_argument(
        "--devices",
        default="all",
        help="cpu, cpu*8, cuda:0,cuda:1, cuda:0+cuda:1 (both for one candidate), all (each GPU, else a CPU)",
    )
    parser.add_argument("--campaign", action="append", default=[], metavar="NAME", help="only this campaign; may be repeated")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME", help="what campaigns may require of a worker; may be repeated"
    )
    parser.add_argument("--data-root", type=Path, default=Path(), help="where a campaign's relative paths start; default: here")
    parser.add_argument("--max", type=_positive, metavar="N", help="end after N candidates")
    parser.add_argument("--until-idle", type=_seconds, metavar="SECONDS", help="end after so long without work")
    parser.add_argument("--stall", type=_seconds, metavar="SECONDS", help="fail a training that reports nothing for so long")
    arguments = parser.parse_args(argv)
    if not arguments.url:
        parser.error("give the coordinator's URL, or set HYPEVOLVE_URL")
    try:
        devices = parse_devices(arguments.devices)
    except ValueError as error:
        parser.error(f"--devices: {error}")
    try:
        token = credentials.token(arguments.token, arguments.token_file, environment)
    except Invalid as error:
        parser.error(str(error))
    data_root = arguments.data_root.resolve()
    if not data_root.is_dir():
        parser.error(f"--data-root {data_root} is no folder")
    folder = arguments.folder or _state(environment) / "hypevolve" / arguments.name.replace("/", "-")
    return Settings(
        url=arguments.url,
        token=token,
        name=arguments.name,
        folder=folder.resolve(),
        devices=devices,
        worker=uuid.uuid4(),
        host=socket.gethostname(),
        data_root=data_root,
        campaigns=arguments.campaign,
        labels=arguments.label,
        most=arguments.max,
        until_idle_s=arguments.until_idle,
        stall_s=arguments.stall,
        # Trainings may be any program, and none of them needs the token.
        environment={name: value for name, value in environment.items() if name != credentials.VARIABLE},
    )


def _state(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME")  # absent for an account that only exists inside a container
    return Path(environment.get("XDG_STATE_HOME") or (Path(home) / ".local" / "state" if home else "state"))


def _handle_signals(supervisor: Supervisor) -> None:
    """Installed also where the worker is process 1 of a container, which by default ignores SIGTERM."""
    seen: list[int] = []

    def handle(number: int, _frame: object) -> None:
        seen.append(number)
        if len(seen) == 1:
            supervisor.request_stop()
            return
        supervisor.kill()  # the leases are in the folder; the next start releases them
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    if not 0 <= (number := float(text)) < 1e9:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
