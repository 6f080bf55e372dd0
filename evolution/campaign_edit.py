"""Changes to a campaign that runs: bounds, choices, gains, fixed genes, weights of fitness.

Rows outside new bounds still inform; children are inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolution.campaign import Campaign
from evolution.campaign_reader import read_weights
from evolution.hyperparameters import SCENARIO_GENES
from evolution.problems import Findings, InvalidCampaign, nearest, shown
from evolution.sections import Section
from evolution.space import Gene, Space, Value
from evolution.space_reader import FORMATS, Entry, read_entry


def with_space(campaign: Campaign, entries: Mapping[str, Any]) -> Campaign:
    """The campaign with some genes changed: ``{lr0: {min: 1e-4, max: 1e-2}}``, gain 0 fixes a gene, ``start`` is what it keeps.

    A start that the new bounds leave out moves to the nearest bound; one that the new choices leave out is the first of them.

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
        if genes[name].choices and isinstance(value, Mapping):
            value = {"choices": list(genes[name].choices), **value}
        entry = read_entry(findings, value, path, FORMATS[0])
        if entry is not None:
            scenario = SCENARIO_GENES.get(str(name), ()) if campaign.trainer.kind == "detector" else ()
            change = _changed_choice if genes[name].choices else _changed
            genes[name] = change(findings, genes[name], entry, scenario)
    space = Space(tuple(genes.values()))
    if not findings.problems and all(gene.fixed for gene in space):
        findings.add(("space",), "every gene would be fixed", "leave one that can move")
    findings.refuse()
    return replace(campaign, space=space)


def _changed_choice(findings: Findings, gene: Gene, entry: Entry, scenario: Sequence[Value]) -> Gene:
    path = ("space", gene.name)
    choices = entry.choices or gene.choices
    before, start = gene.decode(gene.start), entry.start
    if start is None:
        start = before if before in choices else choices[0]
    if entry.lower is not None or entry.upper is not None or isinstance(choices[0], bool) != isinstance(before, bool):
        findings.add(path, "a gene keeps its kind while a campaign runs", "create another campaign")
    elif strange := [choice for choice in choices if scenario and choice not in scenario]:
        findings.add(path, f"{shown(strange[0])} is no {gene.name}", f"choices are {', '.join(map(str, scenario))}")
    elif start not in choices:
        findings.add(path, f"start {shown(start)} is none of the choices", f"write one of {', '.join(map(str, choices))}")
    else:
        gain = gene.gain if entry.gain is None else entry.gain
        return replace(gene, gain=gain, start=float(choices.index(start)), upper=len(choices) - 1.0, choices=choices)
    return gene


def _changed(findings: Findings, gene: Gene, entry: Entry, scenario: Sequence[Value]) -> Gene:
    path = ("space", gene.name)
    gain = gene.gain if entry.gain is None else entry.gain
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
