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
from typing import Annotated, cast

import typer

from hypevolve import __version__, access, credentials, decisions, demo, messages, offline, online, programs, steering
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
CampaignName = Annotated[str, typer.Argument(metavar="NAME", help="A campaign of the coordinator.")]
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Of candidates.")]
Limit = Annotated[str | None, typer.Option(metavar="LIMIT", help="none takes it away; a deadline is 2026-12-24T18:00+01:00.")]
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
def validate(context: typer.Context, campaign: CampaignPath) -> None:
    """Say what a campaign will do: which genes move, which cannot and why, and what it costs."""
    offline.validate(context.obj, campaign)


@app.command("check-strategy")
def check_strategy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="STRATEGY", help="A name as in evolve.strategy, such as own:mine.")],
) -> None:
    """Hold a strategy to what a coordinator relies on, before a campaign does."""
    offline.check_strategy(context.obj, name)


@app.command()
def create(context: typer.Context, campaign: CampaignPath) -> None:
    """Create a campaign at the coordinator. The same file again changes nothing."""
    online.create(context.obj, campaign)


@app.command("ls")
def list_campaigns(context: typer.Context) -> None:
    """List the campaigns of the coordinator."""
    online.ls(context.obj)


@app.command()
def show(context: typer.Context, name: CampaignName) -> None:
    """Show a campaign: how far it is, its best candidate and what that changed."""
    online.show(context.obj, name)


@app.command()
def analyse(context: typer.Context, name: CampaignName) -> None:
    """Say what a campaign has learned: which genes matter, the story of the best, and whether going on is worth it."""
    online.analyse(context.obj, name)


@app.command()
def extend(
    context: typer.Context, name: CampaignName,
    candidates: Annotated[int | None, typer.Option(min=1, help="How many there shall be in all.")] = None,
    gpu_hours: Limit = None, deadline: Limit = None, patience: Limit = None,
    priority: Annotated[int | None, typer.Option(help="A higher one is served first.")] = None,
    share: Annotated[float | None, typer.Option(help="Of the workers, against others of the same priority.")] = None,
) -> None:  # fmt: skip
    """Change a campaign's budget, or its place among others."""
    changes = {"candidates": candidates, "gpu_hours": gpu_hours, "deadline": deadline, "patience": patience}
    decisions.extend(context.obj, name, {**changes, "priority": priority, "share": share})


@app.command()
def pause(context: typer.Context, name: CampaignName) -> None:
    """Give out nothing more until it is resumed; what trains is finished, and counts."""
    decisions.steer(context.obj, name, "pause")


@app.command()
def resume(context: typer.Context, name: CampaignName) -> None:
    """Go on with a campaign that was paused or drained."""
    decisions.steer(context.obj, name, "resume")


@app.command()
def drain(
    context: typer.Context, name: CampaignName,
    worker: Annotated[bool, typer.Option("--worker", help="NAME is a worker: it finishes what it trains and ends.")] = False,
) -> None:  # fmt: skip
    """Give out nothing more: once what trains is finished, so is the campaign. Or end a worker."""
    decisions.drain(context.obj, name, worker)


@app.command()
def cancel(context: typer.Context, name: CampaignName, numbers: Numbers = None) -> None:
    """End a campaign for good, or only the candidates of these numbers; what trains is stopped."""
    decisions.cancel(context.obj, name, numbers or [])


@app.command()
def edit(
    context: typer.Context,
    name: CampaignName,
    bounds: Annotated[list[str], typer.Option(metavar="GENE=LOWER:UPPER", help="New bounds; may be repeated.")] = [],  # noqa: B006
    fix: Annotated[list[str], typer.Option(metavar="GENE[=VALUE]", help="Keep a gene where it is, or at a value.")] = [],  # noqa: B006
    free: Annotated[list[str], typer.Option(metavar="GENE", help="Let a gene move.")] = [],  # noqa: B006
) -> None:
    """Change the bounds of genes while a campaign runs, fix some or let others move. Earlier rows still inform."""
    steering.edit(context.obj, name, bounds, fix, free)


@app.command()
def enqueue(
    context: typer.Context,
    name: CampaignName,
    hyp: Annotated[Path, typer.Argument(metavar="HYP.yaml", help="Genes left out keep the campaign's start.")],
) -> None:
    """Train a hyp set of your own next, within the budget."""
    steering.enqueue_file(context.obj, name, hyp)


@app.command("import")
def import_results(
    context: typer.Context,
    name: CampaignName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An evolve.csv, evolve.txt or tune_results.ndjson.")],
) -> None:
    """Add results of an earlier evolution: parents at once, outside the budget."""
    steering.import_file(context.obj, name, file)


@app.command()
def retry(context: typer.Context, name: CampaignName, numbers: Numbers = None) -> None:
    """Offer the failed candidates again, or those of these numbers, once what made them fail is mended."""
    decisions.retry(context.obj, name, numbers or [])


@app.command("workers")
def list_workers(context: typer.Context) -> None:
    """List the workers of the coordinator: what each trains, and why one gets nothing."""
    decisions.workers(context.obj)


@app.command()
def best(
    context: typer.Context,
    name: CampaignName,
    n: Annotated[int, typer.Option("-n", min=1, max=100, help="How many.")] = 5,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the best hyp set here; - is stdout.")] = None,
) -> None:
    """Rank the best candidates, at any time; with -o also take the best hyp set."""
    online.best(context.obj, name, n, output)


@app.command()
def export(
    context: typer.Context,
    name: CampaignName,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(online.FILES)}.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: the usual name; - is stdout.")] = None,
) -> None:
    """Write the results as a file that users of yolov5 know."""
    online.export(context.obj, name, form, output)


@app.command()
def events(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A campaign. Default: the service itself.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many. Default: all.")] = None,
) -> None:
    """Show what changed and who changed it, the oldest first."""
    access.events(context.obj, name, n)


tokens = typer.Typer(help="Make, list and revoke access tokens.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(tokens, name="token")


@tokens.command("create")
def create_token(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="By which events and people name it.")],
    scope: Annotated[list[str], typer.Option(help="read, worker, operator or admin; may be repeated.")],
    campaign: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this campaign; may be repeated.")] = None,
    expires_days: Annotated[float | None, typer.Option(metavar="N", help="When it ends by itself. Default: never.")] = None,
) -> None:
    """Make an access token and show it, once."""
    access.create(context.obj, name, cast("list[messages.Scope]", scope), campaign or [], expires_days)


@tokens.command("ls")
def list_tokens(context: typer.Context) -> None:
    """List the access tokens, without what they say."""
    access.ls(context.obj)


@tokens.command("revoke")
def revoke_token(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """End an access token, within 5 s everywhere; what its workers train is offered to others."""
    access.revoke(context.obj, name)


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
