"""Changes to a campaign that runs: bounds, gains, fixed genes, weights of fitness.

Rows outside new bounds still inform; children are inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evolution.campaign import Campaign
from evolution.campaign_reader import read_weights
from evolution.problems import Findings, InvalidCampaign, nearest
from evolution.sections import Section
from evolution.space import Gene, Space
from evolution.space_reader import FORMATS, Entry, read_entry


def with_space(campaign: Campaign, entries: Mapping[str, Any]) -> Campaign:
    """The campaign with some genes changed: ``{lr0: {min: 1e-4, max: 1e-2}}``, gain 0 fixes a gene, ``start`` is what it keeps.

    A start that the new bounds leave out moves to the nearest bound. Choices stay as they are, but may be fixed.

    Raises:
        InvalidCampaign: with every problem.
    """
    findings = Findings("request")
    genes = {gene.name: gene for gene in campaign.space}
    for name, value in entries.items():
        path = ("space", str(name))
        if name not in genes:
            findings.add(path, "is no gene of this campaign", nearest(str(name), list(genes)))
            continue
        entry = read_entry(findings, value, path, FORMATS[0])
        if entry is not None:
            genes[name] = _changed(findings, genes[name], entry)
    space = Space(tuple(genes.values()))
    if not findings.problems and all(gene.fixed for gene in space):
        findings.add(("space",), "every gene would be fixed", "leave one that can move")
    findings.refuse()
    return replace(campaign, space=space)


def _changed(findings: Findings, gene: Gene, entry: Entry) -> Gene:
    path = ("space", gene.name)
    gain = gene.gain if entry.gain is None else entry.gain
    if gene.choices:
        if entry.choices or entry.lower is not None or entry.upper is not None:
            findings.add(path, "the choices of a campaign that runs cannot change", "create another campaign")
            return gene
        start = gene.start if entry.start is None else gene.encode(entry.start)
        return replace(gene, gain=gain, start=start)
    lower = gene.lower if entry.lower is None else entry.lower
    upper = gene.upper if entry.upper is None else entry.upper
    start = gene.start if entry.start is None else float(entry.start)
    if lower > upper:
        findings.add(path, f"lower {lower:g} > upper {upper:g}", "give both min and max")
    elif entry.choices or entry.integer not in (None, gene.integer):
        findings.add(path, "a gene keeps its kind while a campaign runs", "create another campaign")
    elif entry.start is not None and not lower <= start <= upper:
        findings.add(path, f"start {start:g} is outside {lower:g} to {upper:g}", "change the start or the bounds")
    elif gene.integer and any(value != round(value) for value in (lower, upper, start)):
        findings.add(path, "holds whole numbers", "write whole numbers")
    return replace(gene, gain=gain, lower=lower, upper=upper, start=min(max(start, lower), upper))


def checked_weights(weights: Mapping[str, Any]) -> dict[str, float]:
    """Weights of fitness, in the order of ``METRICS``.

    Raises:
        InvalidCampaign: with every problem.
    """
    findings = Findings("request")
    checked = read_weights(Section(findings, {"fitness": weights}))
    findings.refuse()
    return checked


__all__ = ["InvalidCampaign", "checked_weights", "with_space"]
