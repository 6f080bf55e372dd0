"""Checks what a person wrote about a campaign and turns it into the values of ``evolution.campaign.Campaign``.

All problems are found at once. Two shapes are read by the same code: the campaign file (hyp file, space entries, other files by
name) and the normalised document (``genes``, everything inlined).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolution.campaign_genes import OpenFile, document_genes, file_genes, opened
from evolution.campaign_limits import read_budget, read_lease
from evolution.earlier_results import ImportedRow, read_result_file
from evolution.fitness import METRICS, WEIGHTS, fitness
from evolution.hyperparameters import LINEAGES
from evolution.problems import Findings, InvalidInput, Path, finite, shown
from evolution.sections import Section, json_value
from evolution.space import Space, Value
from evolution.strategy import NAMES, OptionError, create

MOST_ROWS = 10_000
DETECTOR_BATCH = 16  # where base.batch is absent
PLACEHOLDERS = ("hyp", "epochs", "device", "seed", "dir", "name", "checkpoint")  # of a command; worker.command fills them in
_PLAIN = re.compile(r"[\w./:=,@%+~{}-]*")  # what is more than this is a script, whose braces are its own
_BRACE = re.compile(r"\{(\w+)(\}?)")
_SLUG = set("abcdefghijklmnopqrstuvwxyz0123456789._-")


@dataclass(frozen=True)
class Trainer:
    """What trains a candidate: the built-in detector, a Python function ``module:function``, or a command line.

    ``results`` is the file that a command writes its metrics to; the others have none.
    """

    kind: str = "detector"
    python: str | None = None
    command: tuple[str, ...] = ()
    results: str | None = None


def read_fields(findings: Findings, value: Any, open_file: OpenFile | None) -> dict[str, Any]:
    """The fields of a Campaign. ``open_file`` gives the text of a file named in it; None where no file may be named.

    Raises:
        InvalidCampaign: with every problem.
    """
    top = Section(findings, value)
    fields: dict[str, Any] = {"name": _name(top), "base": _base(top), "trainer": _trainer(top)}
    lineage = fields["base"].get("lineage")
    lineage = lineage if lineage in LINEAGES else LINEAGES[0]
    own_genes = fields["trainer"].kind != "detector"
    before = len(findings.problems)
    if "genes" in top and open_file is None:
        fields["space"] = document_genes(top, lineage, own_genes)
        fields["notes"] = _notes(top)
    else:
        fields["space"], fields["notes"] = file_genes(top, lineage, own_genes, fields["base"], open_file)
    space_is_sound = len(findings.problems) == before
    fields["weights"] = read_weights(top)
    fields |= _evolve(top, fields["space"] if space_is_sound else None)
    fields |= read_budget(top)
    retries = top.section("retries")
    fields["retries_failed"] = retries.whole("failed", 1, 0, 20)
    retries.close()
    fields |= read_lease(top)
    _devices(top, fields)
    if space_is_sound:
        fields["imported"] = _imported(top, fields["space"], fields["weights"], lineage, open_file)
    else:
        for key in ("seed_from", "imported"):
            top.take(key)
    top.close()
    findings.refuse()
    return fields


def _devices(top: Section, fields: Mapping[str, Any]) -> None:
    """The built-in detector gives each device an equal share of the batch."""
    devices, batch = fields["requires"].devices, fields["base"].get("batch", DETECTOR_BATCH)
    if fields["trainer"].kind == "detector" and isinstance(batch, int) and batch % devices:
        message = f"is {devices}, and base.batch {batch} cannot be shared evenly among as many"
        top.findings.add(("lease", "requires", "devices"), message, f"make base.batch a multiple of {devices}")


def _name(top: Section) -> str:
    name = top.take("name")
    if name is None:
        top.fault("name", "is missing", "add name: with a short name such as bccd-yolov5n")
        return ""
    if not isinstance(name, str) or not name or len(name) > 63 or set(name) - _SLUG or name[0] in "._-":
        remedy = "use a-z, 0-9, '.', '_' and '-', at most 63, starting with a letter or digit"
        if not isinstance(name, str):
            remedy = "quote it"
        top.fault("name", f"is {shown(name)}", remedy)
        return ""
    return name


def _base(top: Section) -> dict[str, Any]:
    section = top.section("base")
    if "base" not in top:
        top.fault("base", "is missing", "add base: with data, model, epochs, imgsz and batch")
        return {}
    base = json_value(top.findings, section.rest(), ("base",))
    if "epochs" in section:
        section.whole("epochs", 1, 1, 1_000_000)
    else:
        section.fault("epochs", "is missing", "add epochs: how long each candidate trains, such as 10")
    section.text("lineage", LINEAGES[0], LINEAGES)
    return dict(base)


def _trainer(top: Section) -> Trainer:
    value = top.take("trainer", "detector")
    remedy = "write detector, {command: [program, argument, ..]} or {python: 'module:function'}"
    if isinstance(value, str):
        if value != "detector":
            top.fault("trainer", f"is {shown(value)}", remedy)
        return Trainer()
    section = Section(top.findings, value, ("trainer",))
    python, command = section.take("python"), section.take("command") or None
    results, kind = section.take("results"), section.take("kind")
    section.close()
    implied = "python" if python is not None else "command" if command is not None else "detector"
    if (python is not None and command is not None) or kind not in (None, implied) or (implied == "detector" and kind is None):
        top.fault("trainer", f"is {shown(value)}", remedy)
        return Trainer()
    if python is not None:
        module, _, function = python.partition(":") if isinstance(python, str) else ("", "", "")
        if not all(part.isidentifier() for part in (*module.split("."), function)):
            section.fault("python", f"is {shown(python)}", "write 'module:function'")
            return Trainer("python")
    if command is not None and not (isinstance(command, list | tuple) and all(isinstance(c, str) and c for c in command)):
        section.fault("command", f"is {shown(command)}", "write a list of texts: [python, train.py, --hyp, ..]")
        return Trainer("command")
    if results is not None and (implied != "command" or not isinstance(results, str) or not results):
        section.fault("results", f"is {shown(results)}", "give the file that the command writes; other trainers have none")
        return Trainer(implied)
    if command is not None:
        _placeholders(section, command)
        if results is None:
            section.fault("results", "is absent", "give the file that the command writes, such as results: results.csv")
    return Trainer(implied, python, tuple(command or ()), results)


def _placeholders(section: Section, command: Sequence[str]) -> None:
    for argument in command:
        for name, closed in _BRACE.findall(argument) if _PLAIN.fullmatch(argument) else ():
            near = difflib.get_close_matches(name, PLACEHOLDERS, n=1)
            if not closed and "}" not in argument.partition("{" + name)[2]:
                section.fault("command", f"{{{name} is not closed", f"write {{{near[0] if near else name}}}")
            elif closed and name not in PLACEHOLDERS:
                known = ", ".join(f"{{{place}}}" for place in PLACEHOLDERS)
                remedy = f"did you mean {{{near[0]}}}?" if near else f"known: {known}; gene values are in the file {{hyp}}"
                section.fault("command", f"unknown placeholder {{{name}}}", remedy)


def _notes(top: Section) -> tuple[str, ...]:
    notes = top.take("notes", [])
    if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
        top.fault("notes", f"is {shown(notes)}", "write a list of texts")
        return ()
    return tuple(notes)


def read_weights(top: Section) -> dict[str, float]:
    """The weights under ``fitness``; the default ones where it is absent."""
    section = top.section("fitness")
    if "fitness" not in top:
        return dict(WEIGHTS)
    weights = {}
    for key in METRICS:
        if key in section:
            weights[key] = section.number(key, 0.0)
            if not 0 <= weights[key] <= 1e6:
                section.fault(key, f"weight {weights[key]:g}", "write a number from 0 to 1e6")
        section.take(key)
    section.close()
    if not section.rest() and sum(weights.values()) <= 0:
        top.fault("fitness", "the weights add up to 0", "give a metric a weight above 0, such as map50_95: 0.9")
    return weights


def _evolve(top: Section, space: Space | None) -> dict[str, Any]:
    """Strategy and seeds; where the space is sound, also that something can move."""
    section = top.section("evolve")
    name = section.text("strategy", NAMES[0])
    seed = section.whole("seed", 0, 0, 2**31 - 1)
    same_seed = section.flag("same_seed", False)
    fields = {"strategy": name, "options": {}, "seed": seed, "same_seed": same_seed}
    try:
        strategy = create(name, json_value(top.findings, section.rest(), section.path))
    except OptionError as error:
        section.fault(error.option, error.fault, error.remedy)
        return fields
    fields["options"] = dict(strategy.options)
    if space is not None and not any(strategy.moves(gene, gene.start) for gene in space):
        message = f"no gene can move under {name}: each is fixed, or starts at 0, which no factor changes"
        top.findings.add(("space",), message, "give one gene a gain above 0 and a start other than 0")
    return fields


def _imported(
    top: Section, space: Space, weights: Mapping[str, float], lineage: str, open_file: OpenFile | None
) -> tuple[ImportedRow, ...]:
    """Rows of earlier evolutions: from the files of ``seed_from``, or inlined as ``imported``."""
    rows: list[ImportedRow] = []
    places: list[Path] = []
    if open_file is None:
        listed = top.take("imported", [])
        if not isinstance(listed, list | tuple):
            top.fault("imported", f"is {shown(listed)}", "write a list of {hyp, metrics}")
            listed = []
        for index, item in enumerate(listed[: MOST_ROWS + 1]):
            section = Section(top.findings, item, ("imported", index))
            row = _document_row(section, space)
            section.close()
            if row is not None:
                rows.append(row)
                places.append(section.path)
    names = top.take("seed_from", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        top.fault("seed_from", f"is {shown(names)}", "write a list of files: [evolve.csv]")
        names = []
    for index, name in enumerate(names):
        text = opened(top, ("seed_from", index), name, open_file)
        try:
            found = read_result_file(name, text, space, lineage) if text is not None else ()
        except InvalidInput as error:
            top.findings.extend(error.problems)
            continue
        rows += found
        places += [("seed_from", index)] * len(found)
    if len(rows) > MOST_ROWS:
        top.fault("seed_from", f"more than {MOST_ROWS:,} rows", "keep the fittest")
    for row, place in zip(rows, places, strict=True):
        try:
            fitness(row.metrics, weights)
        except ValueError as error:
            top.findings.add(place, str(error), "set the weight of that metric to 0, or leave these rows out")
            break
    return tuple(rows)


def _document_row(section: Section, space: Space) -> ImportedRow | None:
    hyp, metrics = section.take("hyp"), section.take("metrics")
    if not isinstance(metrics, Mapping) or any(finite(value) is None for value in metrics.values()):
        section.fault("metrics", f"is {shown(metrics)}", "write a mapping of names to finite numbers")
        return None
    read = read_hyp_set(section.findings, hyp, (*section.path, "hyp"), space)
    if read is None:
        return None
    return ImportedRow(read, {str(name): float(value) for name, value in metrics.items()})


def read_hyp_set(findings: Findings, hyp: Any, path: Path, space: Space) -> dict[str, Value] | None:
    """A complete hyp set in the order of the space; None after a finding. Bounds are not looked at."""
    if not isinstance(hyp, Mapping):
        findings.add(path, f"is {shown(hyp)}", "write a mapping of genes to their values")
        return None
    if set(hyp) != set(space.names):
        odd = sorted(map(str, set(hyp) ^ set(space.names)))
        findings.add(path, f"its genes are not those of the space: {shown(odd)}", "give every gene, and no other")
        return None
    values: dict[str, Value] = {}
    for gene in space:
        value = hyp[gene.name]
        number = finite(value)
        if gene.choices and isinstance(value, str | bool):
            values[gene.name] = value
        elif not gene.choices and number is not None:
            values[gene.name] = number
        else:
            wanted = "one of " + ", ".join(map(str, gene.choices)) if gene.choices else "a finite number"
            findings.add((*path, gene.name), f"is {shown(value)}", f"write {wanted}")
            return None
    return values
