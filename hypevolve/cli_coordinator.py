"""The commands that ask a coordinator about its campaigns, workers and tokens; ``hypevolve.cli`` has them beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from hypevolve import access, decisions, messages, online, steering

app = typer.Typer(rich_markup_mode=None)

CampaignPath = Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml", help="A campaign file.")]
CampaignName = Annotated[str, typer.Argument(metavar="NAME", help="A campaign of the coordinator.")]
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Of candidates.")]
WEIGHTS = "METRIC=WEIGHT,..."
JudgedBy = Annotated[str | None, typer.Option("--fitness", metavar=WEIGHTS, help="Judge by these weights, not the campaign's.")]
Limit = Annotated[str | None, typer.Option(metavar="LIMIT", help="none takes it away; a deadline is 2026-12-24T18:00+01:00.")]


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
def analyse(context: typer.Context, name: CampaignName, fitness: JudgedBy = None) -> None:
    """Say what a campaign has learned: which genes matter, the story of the best, and whether going on is worth it."""
    online.analyse(context.obj, name, fitness)


@app.command()
def audit(context: typer.Context, name: CampaignName) -> None:
    """Breed every candidate again from the rows that it was bred from, and compare: is the record what it says it is?"""
    online.audit(context.obj, name)


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
    choices: Annotated[list[str], typer.Option(metavar="GENE=A,B", help="Other choices; may be repeated.")] = [],  # noqa: B006
    fix: Annotated[list[str], typer.Option(metavar="GENE[=VALUE]", help="Keep a gene where it is, or at a value.")] = [],  # noqa: B006
    free: Annotated[list[str], typer.Option(metavar="GENE", help="Let a gene move.")] = [],  # noqa: B006
    fitness: Annotated[
        str | None, typer.Option(metavar=WEIGHTS, help="Judge every result by these weights; nothing is trained again.")
    ] = None,
) -> None:
    """Change bounds while a campaign runs, fix genes, let others move, judge by other weights. Earlier rows still inform."""
    steering.edit(context.obj, name, bounds=bounds, choices=choices, fix=fix, free=free, fitness=fitness)


@app.command()
def enqueue(
    context: typer.Context,
    name: CampaignName,
    hyp: Annotated[Path, typer.Argument(metavar="HYP.yaml", help="Genes left out keep the campaign's start.")],
) -> None:
    """Train a hyp set of your own next, within the budget."""
    steering.enqueue_file(context.obj, name, hyp)


@app.command()
def confirm(
    context: typer.Context,
    name: CampaignName,
    best: Annotated[int, typer.Option("-k", min=1, max=50, help="How many of the best hyp sets.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each, besides the first.")] = 3,
) -> None:
    """Train the best hyp sets again with fresh seeds, outside the budget: was it the hyp set, or luck?"""
    steering.confirm(context.obj, name, best, repeats)


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
    fitness: JudgedBy = None,
) -> None:
    """Rank the best candidates, at any time; with -o also take the best hyp set."""
    online.best(context.obj, name, n, output, fitness)


@app.command()
def export(
    context: typer.Context,
    name: CampaignName,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(online.FILES)}.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: the usual name; - is stdout.")] = None,
    fitness: JudgedBy = None,
) -> None:
    """Write the results as a file that users of yolov5 know."""
    online.export(context.obj, name, form, output, fitness)


@app.command()
def events(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A campaign. Default: the service itself.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many. Default: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, a line each, until Ctrl-C.")] = False,
) -> None:
    """Show what changed and who changed it, the oldest first."""
    if follow:
        access.follow(context.obj, name)
    else:
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
