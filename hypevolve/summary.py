"""What an evolution came to, as values and as one screen of text. Pure: a campaign in, words out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hypevolve import messages
from hypevolve.console import cell, change, duration, number

SHOWN_GENES = 5


class GeneChange(NamedTuple):
    """How far a gene went from its start; ``share`` is the distance as a share of its range, on its own scale."""

    name: str
    start: messages.Value
    value: messages.Value
    share: float


def gene_changes(document: Mapping[str, Any], hyp: Mapping[str, messages.Value]) -> list[GeneChange]:
    """The genes of ``hyp`` that differ from the campaign's start, those that went farthest first."""
    changes = []
    for gene in document.get("genes", []):
        name, start = gene["name"], gene["start"]
        if name not in hyp or hyp[name] == start:
            continue
        value, share = hyp[name], 1.0  # a choice has no distance
        if not gene.get("choices"):
            share = _share(gene, float(value)) - _share(gene, float(start))
        changes.append(GeneChange(name, start, value, share))
    return sorted(changes, key=lambda gene: -abs(gene.share))


def _share(gene: Mapping[str, Any], value: float) -> float:
    """Where a value lies between the bounds, 0 to 1, in steps that matter equally: learning rates go by decades."""
    low, high, here = (_scaled(gene, float(v)) for v in (gene["min"], gene["max"], value))
    return 0.0 if low >= high else min(max((here - low) / (high - low), 0.0), 1.0)


def _scaled(gene: Mapping[str, Any], value: float) -> float:
    scale = gene.get("scale", "linear")
    if scale == "log" and gene["min"] > 0 and value > 0:
        return math.log(value)
    if scale == "log1m" and gene["max"] < 1 and value < 1:
        return -math.log(1 - value)
    return value


def resumed(campaign: messages.Campaign) -> str:
    """``resumed bccd: 4 of 6 done, 1 was in training``."""
    counts = campaign.counts
    parts = [f"{counts.done} of {counts.planned} done"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    training = counts.running + counts.leased
    if training:
        parts.append(f"{training} {'was' if training == 1 else 'were'} in training")
    return f"resumed {campaign.name}: {', '.join(parts)}"


def failure_kinds(failed: Iterable[messages.Candidate]) -> str:
    """``4 nan, 2 exit_code``."""
    kinds = Counter(candidate.failure or "unknown" for candidate in failed)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def summary_document(campaign: messages.Campaign, *, seconds: float, files: Sequence[str], folder: str) -> dict[str, Any]:
    """``summary.json``."""
    best, default = campaign.best, campaign.default
    delta = None
    if best is not None and best.fitness is not None and default is not None and default.fitness is not None:
        delta = best.fitness - default.fitness
    return {
        "campaign": campaign.name,
        "state": campaign.state,
        "strategy": campaign.strategy,
        "weights": campaign.weights,
        "counts": campaign.counts.model_dump(),
        "best": None if best is None else _row(best),
        "default": None if default is None else _row(default),
        "delta": delta,
        "percent": None if delta is None or not default or not default.fitness else 100 * delta / abs(default.fitness),
        "changed": [] if best is None else [gene._asdict() for gene in gene_changes(campaign.document, best.hyp)],
        "seconds": round(seconds, 3),
        "folder": folder,
        "files": list(files),
    }


def _row(candidate: messages.Candidate) -> dict[str, Any]:
    return candidate.model_dump(mode="json", include={"number", "fitness", "metrics", "hyp", "parents", "seconds"})


def summary_text(document: Mapping[str, Any], next_command: str) -> str:
    """One screen for people, from ``summary_document``."""
    counts = document["counts"]
    told = [f"{counts['done']} of {counts['planned']} done", f"{counts['failed']} failed"]
    if counts["cancelled"]:
        told.append(f"{counts['cancelled']} cancelled")
    told += [f"{counts['lost']} lost", f"this run took {duration(document['seconds'])}"]
    rows = [(document["campaign"], ", ".join(told))]
    best, default = document["best"], document["default"]
    if best is not None:
        shown = f"#{best['number']} with fitness {number(best['fitness'])}"
        if default is None or default["fitness"] is None:
            shown += "; the default hyp set has no result to compare with"
        elif best["number"] == default["number"]:
            shown += ": the default hyp set, which no candidate has beaten"
        else:
            shown += (
                f", {change(best['fitness'], default['fitness'])} against the default hyp set's {number(default['fitness'])}"
            )
        rows.append(("best", shown))
    changed = [f"{gene['name']} {cell(gene['start'])} -> {cell(gene['value'])}" for gene in document["changed"]]
    if changed:
        more = len(changed) - SHOWN_GENES
        rows.append(("changed most", ", ".join(changed[:SHOWN_GENES]) + (f" and {more} more" if more > 0 else "")))
    if document["files"]:
        rows.append(("files", f"{document['folder']}: {', '.join(document['files'])}"))
    if next_command and best is not None:
        rows.append(("next", next_command))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
