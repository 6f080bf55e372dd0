"""Commands that ask a coordinator: create a campaign, list, look, take the best hyp set, export."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

from hypevolve import campaign_file, messages, programs
from hypevolve.client import Client
from hypevolve.console import CommandFailed, Output, cell, change, duration
from hypevolve.errors import NotFound
from hypevolve.progress import best_words
from hypevolve.summary import gene_changes

FILES = {
    "evolve-csv": "evolve.csv",
    "evolve-txt": "evolve.txt",
    "tune-ndjson": "tune_results.ndjson",
    "hyp-yaml": "hyp_evolved.yaml",
    "evolve-png": "evolve.png",
}
LIST_COLUMNS = ("name", "state", "done", "planned", "failed", "lost", "best", "against_default", "eta")
BEST_COLUMNS = (
    "rank", "number", "fitness", "against_default", "map50_95", "map50", "precision", "recall", "parents", "worker", "seconds",
)  # fmt: skip


def connect(output: Output) -> Client:
    waiting = (lambda reason: output.say(f"waiting: {reason}")) if output.verbose else None
    return Client(output.url, token=output.token, waiting=waiting)


def create(output: Output, path: Path) -> None:
    """Create a campaign. Where nothing can be read here, its text goes to the coordinator as it is."""
    with connect(output) as client:
        if programs.missing("evolution"):
            try:
                campaign = client.create_campaign(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise CommandFailed(f"{path} cannot be read: {error}", campaign_file.NOT_FOUND) from None
            word = "campaign"
        else:
            file = campaign_file.read(path)
            try:
                client.campaign(file.campaign.name)
                word = "exists already, unchanged:"
            except NotFound:
                word = "created"
            campaign = client.create_campaign(file.document)
    if output.json:
        output.document(campaign.model_dump(mode="json"))
        return
    output.say(f"{word} {campaign.name}: {campaign.counts.planned} candidates; page: {client.url}/c/{campaign.name}")
    output.say(f"next: hypevolve worker {client.url}")


def ls(output: Output) -> None:
    """Every campaign in a line."""
    with connect(output) as client:
        campaigns = list(client.campaigns())
    if output.json:
        output.document({"items": [campaign.model_dump(mode="json") for campaign in campaigns]})
        return
    if not campaigns:
        output.say("no campaign yet; next: hypevolve create campaign.yaml")
        return
    output.table([campaign_row(campaign) for campaign in campaigns], LIST_COLUMNS)


def campaign_row(campaign: messages.Campaign) -> dict[str, object]:
    counts, best = campaign.counts, campaign.best
    default = campaign.default.fitness if campaign.default else None
    return {
        "name": campaign.name,
        "state": campaign.state,
        "done": counts.done,
        "planned": counts.planned,
        "failed": counts.failed,
        "lost": counts.lost,
        "best": best.fitness if best else None,
        "against_default": change(best.fitness, default) if best else None,
        "eta": None if campaign.eta_s is None else duration(campaign.eta_s),
    }


def show(output: Output, name: str) -> None:
    """One campaign: its numbers, its best and what that changed."""
    with connect(output) as client:
        campaign = client.campaign(name)
    if output.json:
        output.document(campaign.model_dump(mode="json"))
        return
    for key, value in campaign_words(campaign, output.url):
        output.line(f"{key}\t{value}" if not sys.stdout.isatty() else f"{key:<16} {value}")


def analyse(output: Output, name: str, fitness: str | None = None) -> None:
    """What a campaign has learned: the outlook, which genes matter, the story of the best; by weights of one's own, if any."""
    judged_by = None if fitness is None else weights(fitness)
    with connect(output) as client:
        found = client.insight(name, judged_by)
    if output.json:
        output.document(found.model_dump(mode="json"))
        return
    states = {gene.name: gene.state for gene in found.genes}
    rows = [
        {
            "gene": gene.name,
            "importance": gene.share,
            "low": gene.low,
            "high": gene.high,
            "rank": gene.rank,
            "slope": gene.slope,
            "error": gene.error,
            "state": states[gene.name],
        }
        for gene in found.importance
    ]
    if rows:
        output.table(rows, ("gene", "importance", "low", "high", "rank", "slope", "error", "state"))
    else:
        output.say(f"{found.rows} candidates are done; which genes matter is said from 30 on")
    for step in found.story:
        changed = ", ".join(f"{gene} {cell(before)} -> {cell(after)}" for gene, before, after in step.changed)
        gain = "" if step.gain is None else f" {step.gain:+.4g}"
        output.say(f"#{step.number}{gain}{': ' if changed else ''}{changed}")
    if found.diversity is not None:
        output.say(f"the newest candidates lie {found.diversity:.0%} as far from the best as the first did")
    output.say(found.outlook.hint)


def audit(output: Output, name: str) -> None:
    """Breed every candidate of a campaign again and compare.

    Raises:
        CommandFailed: one has another hyp set; names them.
    """
    with connect(output) as client:
        found = list(client.audit(name))
    other = [one for one in found if not one.same]
    if output.json:
        output.document({"audited": len(found), "other": [one.model_dump(mode="json") for one in other]})
    if other:
        numbers = " ".join(f"#{one.number}" for one in other[:20])
        raise CommandFailed(f"{name}: {len(other)} of {len(found)} bred candidates come out otherwise: {numbers}")
    if not output.json:
        output.say(f"{name}: all {len(found)} bred candidates come out the same from the rows that they were bred from")


def campaign_words(campaign: messages.Campaign, url: str) -> list[tuple[str, str]]:
    """The overview of a campaign as pairs of a word and what is to be said of it."""
    counts = campaign.counts
    buckets = {
        "done": counts.done,
        "in training": counts.running + counts.leased,
        "queued": counts.queued,
        "not bred yet": counts.unbred,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
    }
    told = ", ".join(f"{count} {word}" for word, count in buckets.items() if count)
    words = [("campaign", campaign.name), ("state", campaign.state), ("strategy", campaign.strategy)]
    words.append(("candidates", f"{counts.planned} planned: {told}; {counts.lost} lost on the way"))
    budget = campaign.budget
    if budget.gpu_hours or budget.deadline or budget.patience:
        limits = budget_words(campaign).partition("candidates, ")[2]
        words.append(("budget", limits + (f"; {budget.reached} is reached" if budget.reached else "")))
    if budget.device_hours or budget.hours_left is not None:
        left = "" if budget.hours_left is None else f", about {budget.hours_left:.2g} left"
        words.append(("device-hours", f"{budget.device_hours:.2g} used{left}"))
    if campaign.eta_s is not None:
        end = datetime.now().astimezone() + timedelta(seconds=campaign.eta_s)
        words.append(("eta", f"{duration(campaign.eta_s)}, {end:%a %d %b, %H:%M}"))
    if campaign.best is not None:
        words.append(("best", best_words(campaign).removeprefix("best ")))
        for gene in gene_changes(campaign.document, campaign.best.hyp):
            words.append((gene.name, f"{cell(gene.start)} -> {cell(gene.value)}"))
    words.append(("page", f"{url.rstrip('/')}/c/{campaign.name}"))
    return words


def budget_words(campaign: messages.Campaign) -> str:
    """``has a budget of 40 candidates, 12 GPU-hours (3.2 used)``."""
    budget, parts = campaign.budget, [f"has a budget of {campaign.counts.planned} candidates"]
    if budget.gpu_hours is not None:
        parts.append(f"{budget.gpu_hours:g} GPU-hours ({budget.device_hours:.2g} used)")
    if budget.deadline is not None:
        parts.append(f"until {budget.deadline.isoformat(timespec='minutes')}")
    if budget.patience is not None:
        parts.append(f"patience {budget.patience} ({budget.since_best} since the best)")
    return ", ".join(parts)


def weights(written: str) -> dict[str, float]:
    """The weights of ``map50=0.1,map50_95=0.9``; whether they are any good is for the coordinator to say.

    Raises:
        CommandFailed: they cannot be read.
    """
    found = {}
    for part in written.split(","):
        metric, _, weight = part.partition("=")
        try:
            found[metric.strip()] = float(weight)
        except ValueError:
            raise CommandFailed(f"--fitness {written}: write METRIC=WEIGHT, such as map50=0.1,map50_95=0.9", 2) from None
    return found


def best(output: Output, name: str, n: int, file: Path | None, fitness: str | None = None) -> None:
    """The best candidates; with ``file`` also the best hyp set, written there ('-' is stdout, without the table).

    ``fitness`` are weights to judge by instead of the campaign's.
    """
    judged_by = None if fitness is None else weights(fitness)
    with connect(output) as client:
        text = client.text(name, FILES["hyp-yaml"], judged_by) if file is not None else ""
        if file is not None and str(file) == "-":
            sys.stdout.write(text)
            return
        campaign = client.campaign(name)
        ranking = client.best(name, n, judged_by)
    if file is not None:
        _write(output, file, text.encode())
    if output.json:
        output.document([candidate.model_dump(mode="json") for candidate in ranking])
        return
    if not ranking:
        raise CommandFailed(f"no candidate of '{name}' has finished yet, so there is none to rank", campaign_file.NOT_FOUND)
    default = campaign.default.fitness if campaign.default else None
    if judged_by is not None and campaign.default and campaign.default.metrics:
        default = sum(weight * campaign.default.metrics.get(metric, 0.0) for metric, weight in judged_by.items())
    output.table([best_row(rank, candidate, default) for rank, candidate in enumerate(ranking, 1)], BEST_COLUMNS)


def best_row(rank: int, candidate: messages.Candidate, default: float | None) -> dict[str, object]:
    metrics = candidate.metrics or {}
    shown = {name: metrics.get(name) for name in ("map50_95", "map50", "precision", "recall")}
    return {
        "rank": rank,
        "number": candidate.number,
        "fitness": candidate.fitness,
        "against_default": "default" if candidate.number == 0 else change(candidate.fitness, default),
        **shown,
        "parents": candidate.parents,
        "worker": candidate.worker,
        "seconds": candidate.seconds,
    }


def export(output: Output, name: str, form: str, file: Path | None, fitness: str | None = None) -> None:
    """One file of a campaign, as the coordinator writes it; judged by the weights ``fitness``, if any."""
    if form not in FILES:
        raise CommandFailed(f"--format '{form}' is unknown; known: {', '.join(FILES)}", 2)
    if fitness is not None and form == "evolve-csv":
        raise CommandFailed("evolve.csv has metrics alone, in the order of candidates; --fitness would change nothing of it", 2)
    target = file or Path(FILES[form])
    with connect(output) as client:
        content = client.binary(name, FILES[form], None if fitness is None else weights(fitness))
    if str(target) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    _write(output, target, content)
    if output.json:
        output.document({"file": str(target), "bytes": len(content)})


def _write(output: Output, path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}; give another file with -o") from error
    output.say(f"wrote {path}")
