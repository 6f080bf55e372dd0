"""The command line: arguments in, exit code out. What each command does is in the modules beside this one.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 not found, 4 conflict, 5 invalid campaign, 6 not allowed, 7 coordinator
unreachable, 9 a campaign without a single result, 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hypevolve import __version__, cli_coordinator, credentials, demo, offline, programs
from hypevolve.console import CommandFailed, Output
from hypevolve.errors import HypevolveError
from hypevolve.run import INTERRUPTED, Wish
from hypevolve.run import run as evolve

URL = "http://127.0.0.1:8080"
PIPE_CLOSED = 141  # what a shell says of a program that SIGPIPE ended
PASSED_ON = ("serve", "worker", "db")  # what follows these belongs to another program

app = typer.Typer(
    name="hypevolve",
    help="Hyperparameter evolution for object detectors, as a distributed service.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CampaignPath = Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml", help="A campaign file.")]
Workers = Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes. Default: one for each GPU, else 2.")]
Devices = Annotated[str, typer.Option(help="cpu, cpu*4, cuda:0,cuda:1, or all: every GPU, else the CPU.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Of the coordinator. Default: 8080, or the next free one.")]
Database = Annotated[str | None, typer.Option("--db", help="URL of your own PostgreSQL. Default: HYPEVOLVE_DATABASE_URL, else one in the folder.")]  # fmt: skip # noqa: E501
PgBin = Annotated[str | None, typer.Option("--pg-bin", metavar="DIR", help="Where postgres and initdb are.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hypevolve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="HYPEVOLVE_URL", help="The coordinator.")] = URL,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="An access token (or HYPEVOLVE_TOKEN).")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with one, mode 0600 (or HYPEVOLVE_TOKEN_FILE).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; tracebacks of unexpected errors.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    known = credentials.token(token, token_file, os.environ)
    context.obj = Output(json=as_json, verbose=verbose, url=url, token=known)


@app.command()
def init(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="The evolution to start from: hybrid, yolov3-2019, yolov3-2020, yolov5-2021, yolov5-2024, ultralytics-2025, ultralytics-2026, cma-es, random.")] = offline.PRESET,  # noqa: E501
    name: Annotated[str | None, typer.Option(help="Of the campaign. Default: from data and model.")] = None,
    data: Annotated[str, typer.Option(help="YOLO YAML, Darknet .data, VOC folder or COCO JSON.")] = "data.yaml",
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="A hyp.yaml, or an evolve.csv.")] = None,
    model: Annotated[str | None, typer.Option(help="Default of this and the next: the preset's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each candidate.")] = None,
    imgsz: Annotated[int | None, typer.Option(min=32)] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    candidates: Annotated[int, typer.Option(min=1)] = 300,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("campaign.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:  # fmt: skip
    """Write a commented campaign file."""
    new = offline.NewFile(output, preset, name, data, source, model, epochs, imgsz, batch, candidates, force)
    offline.init(context.obj, new)


@app.command()
def validate(
    context: typer.Context,
    campaign: CampaignPath,
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many shall train, one candidate each.")] = 1,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="What a training takes.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Find out on this machine, in about 20 s.")] = False,
) -> None:
    """Say what a campaign will do: which genes move, which cannot and why, and what it costs."""
    offline.validate(context.obj, campaign, devices=devices, seconds=seconds, measure=measure)


@app.command("check-strategy")
def check_strategy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="STRATEGY", help="A name as in evolve.strategy, such as own:mine.")],
) -> None:
    """Hold a strategy to what a coordinator relies on, before a campaign does."""
    offline.check_strategy(context.obj, name)


app.add_typer(cli_coordinator.app)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve as coordinator: --host, --port, --folder, --db, --pg-bin, --root-path (all: hypevolve serve --help)."""
    programs.require("server")
    from server.__main__ import main as server

    raise typer.Exit(server(context.args))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def db(context: typer.Context) -> None:
    """Back up or restore the coordinator's database: backup FILE, restore FILE, new-epoch (all: hypevolve db --help)."""
    programs.require("server")
    from server.__main__ import main as server

    raise typer.Exit(server(["db", *context.args]))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def worker(context: typer.Context) -> None:
    """Train for a coordinator: URL --devices --data-root --campaign ... (all: hypevolve worker --help)."""
    programs.require("worker")
    from worker.__main__ import main as work

    raise typer.Exit(work(context.args))


@app.command()
def run(
    context: typer.Context,
    campaign: CampaignPath,
    workers: Workers = None,
    devices: Devices = "all",
    folder: Annotated[Path | None, typer.Option(help="For everything it writes. Default: runs/NAME.")] = None,
    port: Port = None,
    database: Database = None,
    pg_bin: PgBin = None,
) -> None:
    """Evolve on this machine, from the file to the results. Run it again to go on after any interruption."""
    wish = Wish(campaign, folder, workers, devices, port, database, pg_bin, _again())
    raise typer.Exit(evolve(context.obj, wish))


@app.command("demo")
def run_demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="For everything it writes.")] = Path("runs/demo"),
    candidates: Annotated[
        int | None, typer.Option(min=1, max=10_000, help=f"How many to train. Default: {demo.CANDIDATES}.")
    ] = None,
    workers: Workers = None,
    devices: Devices = "all",
    port: Port = None,
) -> None:
    """Evolve a real detector on a built-in data set, in a few minutes and without a GPU."""
    file = demo.prepare(folder, candidates)
    wish = Wish(file, folder, workers, devices, port, again=_again())
    raise typer.Exit(evolve(context.obj, wish))


def _again() -> str:
    return shlex.join(["hypevolve", *sys.argv[1:]])


def globals_first(arguments: Sequence[str]) -> list[str]:
    """The global options may also stand behind the command, where people type them; here they are moved to the front."""
    front: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--" or argument in PASSED_ON:
            return [*front, *rest, argument, *left]
        if argument in ("--json", "-v", "--verbose") or argument.startswith(("--url=", "--token=", "--token-file=")):
            front.append(argument)
        elif argument in ("--url", "--token", "--token-file") and left:
            front += [argument, left.pop(0)]
        else:
            rest.append(argument)
    return [*front, *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if arguments is None:
        credentials.hide(sys.argv[1:], os.environ)
    given = globals_first(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = _call(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _call(arguments: Sequence[str]) -> int:
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    try:
        code = app(args=list(arguments), prog_name="hypevolve", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except CommandFailed as error:
        for line in str(error).splitlines():
            print(f"hypevolve: {line}", file=sys.stderr)
        return error.exit_code
    except HypevolveError as error:
        print(f"hypevolve: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message") and isinstance(code := getattr(error, "exit_code", None), int):  # wrong usage
            print(f"hypevolve: {error.format_message().strip()} (hypevolve --help)", file=sys.stderr)
            return code
        if verbose:
            traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"hypevolve: unexpected {reason}; -v shows where it came from", file=sys.stderr)
        return 1
