"""Commands that change a campaign while it runs: bounds, weights of fitness, hyp sets of one's own, earlier results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypevolve import online, programs
from hypevolve.campaign_file import INVALID, NOT_FOUND
from hypevolve.console import CommandFailed, Output
from hypevolve.online import connect
from hypevolve.progress import best_words

USAGE = 2


def edit(
    output: Output,
    name: str,
    *,
    bounds: Sequence[str],
    choices: Sequence[str],
    fix: Sequence[str],
    free: Sequence[str],
    fitness: str | None,
) -> None:
    """Change the bounds of genes (``lr0=1e-4:1e-2``), fix some (``box``, ``box=0.05``), let others move; weigh metrics anew.

    Raises:
        CommandFailed: an argument cannot be read.
    """
    space: dict[str, dict[str, Any]] = {}
    for text in bounds:
        gene, _, limits = text.partition("=")
        low, colon, high = limits.partition(":")
        if not colon:
            raise CommandFailed(f"--bounds {text}: write GENE=LOWER:UPPER, such as lr0=1e-4:1e-2", USAGE)
        space.setdefault(gene, {}).update(min=_number("--bounds", text, low), max=_number("--bounds", text, high))
    for text in choices:
        gene, equals, listed = text.partition("=")
        if not equals:
            raise CommandFailed(f"--choices {text}: write GENE=CHOICE,CHOICE, such as optimizer=SGD,AdamW", USAGE)
        space.setdefault(gene, {})["choices"] = [_value(choice.strip()) for choice in listed.split(",")]
    for text in fix:
        gene, equals, value = text.partition("=")
        space.setdefault(gene, {})["gain"] = 0.0
        if equals:
            space[gene]["start"] = _value(value)
    for gene in free:
        space.setdefault(gene, {})["gain"] = 1.0
    weights = None if fitness is None else online.weights(fitness)
    if not space and weights is None:
        raise CommandFailed("nothing to change; give --bounds, --choices, --fix, --free or --fitness", USAGE)
    with connect(output) as client:
        if space:
            campaign = client.change_space(name, space)
            output.say(f"{name} breeds within them from the next candidate on: {', '.join(space)}")
            if campaign.state == "finished":
                more = campaign.counts.planned * 2
                output.say(f"{name} is finished; `hypevolve extend {name} --candidates {more}` breeds that many in all")
        if weights is not None:
            campaign = client.change_fitness(name, weights)
            formula = " + ".join(f"{weight:g}*{metric}" for metric, weight in campaign.weights.items() if weight)
            output.say(f"{name} is judged by {formula}; {best_words(campaign)}")
    if output.json:
        output.document(campaign.model_dump(mode="json"))


def enqueue_file(output: Output, name: str, path: Path) -> None:
    """Train the hyp set of a file next.

    Raises:
        CommandFailed: the file cannot be read.
    """
    programs.require("evolution")
    from evolution.problems import InvalidInput
    from evolution.yaml import load

    try:
        hyp = load(_text(path, "give a hyp file"), str(path))
    except InvalidInput as error:
        raise CommandFailed(str(error), INVALID) from None
    if not isinstance(hyp, dict) or not hyp:
        raise CommandFailed(f"{path} is no mapping of genes to values", INVALID)
    with connect(output) as client:
        numbers = client.enqueue(name, [hyp])
    if output.json:
        output.document({"numbers": numbers})
    else:
        output.say(f"{name} trains it as #{numbers[0]}, before anything further is bred")


def import_file(output: Output, name: str, path: Path) -> None:
    """Add the results in a file to a campaign, as parents outside its budget.

    Raises:
        CommandFailed: the file cannot be read, or is none for this campaign.
    """
    programs.require("evolution")
    from evolution.campaign import Campaign
    from evolution.earlier_results import read_result_file
    from evolution.problems import InvalidInput, Problem

    text = _text(path, "give an evolve.csv, evolve.txt or tune_results.ndjson")
    unfinished: list[Problem] = []
    with connect(output) as client:
        campaign = Campaign.from_document({**client.campaign(name).document, "imported": []})
        judged = [metric for metric, weight in campaign.weights.items() if weight]
        try:
            rows = read_result_file(str(path), text, campaign.space, campaign.lineage, required=judged, unfinished=unfinished)
        except InvalidInput as error:
            raise CommandFailed(str(error), INVALID) from None
        found = client.import_rows(name, [{"hyp": row.hyp, "metrics": row.metrics} for row in rows])
    if output.json:
        output.document({**found.model_dump(mode="json"), "unfinished": len(unfinished)})
        return
    if not rows and not unfinished:
        output.say(f"{path} holds no result; nothing is imported")
        return
    told = [f"{found.imported} imported as parents"]
    if found.known:
        told.append(f"{found.known} there already")
    if unfinished:
        told.append(f"{len(unfinished)} left out ({str(unfinished[0]).partition(';')[0]})")
    output.say(f"{name}: of {len(rows) + len(unfinished)} rows {', '.join(told)}")


def confirm(output: Output, name: str, best: int, repeats: int) -> None:
    """Train the best hyp sets again with fresh seeds; what that gave so far."""
    with connect(output) as client:
        found = client.confirm(name, best, repeats)
    if output.json:
        output.document(found.model_dump(mode="json"))
        return
    rows = [
        {
            "number": one.number,
            "fitness": one.fitness,
            "repeats": len(one.results),
            "mean": one.mean,
            "sd": one.sd,
            "lowest": min(one.results, default=None),
            "open": one.open,
            "failed": one.failed,
        }
        for one in found.items
    ]
    output.table(rows, ("number", "fitness", "repeats", "mean", "sd", "lowest", "open", "failed"))
    waiting = sum(one.open for one in found.items)
    if waiting:
        output.say(f"{name}: {found.queued} trainings queued, {waiting} to come; ask again for what they gave")


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}; {remedy}", NOT_FOUND) from None


def _number(option: str, text: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise CommandFailed(f"{option} {text}: '{written}' is no number", USAGE) from None


def _value(written: str) -> float | bool | str:
    if written in ("true", "false"):
        return written == "true"
    try:
        return float(written)
    except ValueError:
        return written
