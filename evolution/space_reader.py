"""Builds the space of a campaign from what a person wrote: a hyp file, ``space`` entries in two orders, and ``fixed``.

yolov5 writes a gene as ``[gain, lower, upper]``, ultralytics as ``[min, max]`` or ``[min, max, gain]``; which one a file means
is said by ``space_format`` and never guessed. A list of texts, or of true and false, names choices. Faults that those programs
passed over (a default outside its bounds, a missing gene) are findings here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evolution.hyperparameters import SCENARIO_GENES, lineage_space
from evolution.problems import Findings, Path, finite, nearest, shown
from evolution.sections import Section
from evolution.space import Gene, Space, Value

FORMATS = ("yolov5", "ultralytics")
MOST_GENES = 500
LEAST_GAIN = 0.001  # below it a factor differs from 1 by less than the fifth decimal; 0 fixes the gene
ANCHORS = 3.0  # per output level, where a hyp file leaves the gene out

MOST_CHOICES = 50
_CHOICE = re.compile(r"[A-Za-z_][\w.+-]{0,63}")
# What some YAML reader takes for something else than a text.
_NO_TEXT = ("null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity")

_FORM = {"yolov5": "write [gain, lower, upper]", "ultralytics": "write [min, max] or [min, max, gain]"}


class Entry(NamedTuple):
    """What a ``space`` entry says; None where it says nothing."""

    gain: float | None
    lower: float | None
    upper: float | None
    start: Value | None = None
    integer: bool | None = None
    choices: tuple[Any, ...] = ()


class HypFile(NamedTuple):
    """A hyp set as given: its values, and where they come from, so that a fault can be pointed at."""

    values: Mapping[str, Value]
    findings: Findings
    path: Path
    name: str

    def fault(self, gene: str, message: str, remedy: str) -> None:
        self.findings.add((*self.path, gene), message, remedy)


def read_hyp(findings: Findings, value: Any, path: Path, name: str) -> HypFile:
    """The values of a hyp mapping; what is neither a finite number nor a choice becomes a finding."""
    section = Section(findings, value, path)
    values: dict[str, Value] = {}
    for key, given in few(findings, path, section.rest()).items():
        kept = given if isinstance(given, str | bool) else finite(given)
        if kept is None:
            findings.add((*path, str(key)), f"is {shown(given)}", "write a finite number")
        elif valid_name(findings, str(key), path):
            values[str(key)] = kept
    return HypFile(values, findings, path, name)


def few(findings: Findings, path: Path, genes: dict[Any, Any]) -> dict[Any, Any]:
    """``genes`` where they are at most 500, else none and a finding."""
    if len(genes) <= MOST_GENES:
        return genes
    findings.add(path, f"{len(genes):,} genes", f"search at most {MOST_GENES}")
    return {}


def valid_name(findings: Findings, name: str, path: Path) -> bool:
    if name.isascii() and name.isidentifier() and len(name) <= 64:
        return True
    findings.add((*path, name), f"{shown(name)} is no gene name", "use letters, digits and _, at most 64")
    return False


def read_entry(findings: Findings, value: Any, path: Path, form: str) -> Entry | None:
    """One ``space`` entry; None after a finding."""
    if isinstance(value, Mapping):
        return _mapped(Section(findings, value, path))
    if isinstance(value, list | tuple) and value and all(isinstance(item, str | bool) for item in value):
        choices = _choices(findings, value, path)
        return Entry(None, None, None, choices=choices) if choices else None
    lengths = (3,) if form == "yolov5" else (2, 3)
    if not isinstance(value, list | tuple) or len(value) not in lengths:
        pair = form == "yolov5" and isinstance(value, list | tuple) and len(value) == 2
        hint = "this looks like ultralytics order (min, max): set space_format: ultralytics" if pair else _FORM[form]
        findings.add(path, f"is {shown(value)}", hint)
        return None
    given = list(value)
    if isinstance(given[0], bool) and form == "yolov5":  # the form of yolov5 since 2024: does the gene evolve?
        given[0] = float(given[0])
    listed: list[float] = []
    for index, item in enumerate(given):
        number = finite(item)
        if number is None:
            findings.add((*path, index), f"is {shown(item)}", "write a finite number")
            return None
        listed.append(number)
    first, second, third = listed[0], listed[1], listed[2] if len(listed) == 3 else None
    if form == "ultralytics":
        remedy = "swap them"
        if third is not None and second <= third:
            remedy = "this looks like yolov5 order (gain, lower, upper): set space_format: yolov5"
        return _checked(findings, Entry(1.0 if third is None else third, first, second), path, remedy)
    remedy = "swap them"
    if first <= second:
        remedy = "this looks like ultralytics order (min, max, gain): set space_format: ultralytics"
    return _checked(findings, Entry(first, second, third), path, remedy)


def _mapped(section: Section) -> Entry | None:
    """An entry in the long form."""
    numbers: dict[str, float | None] = {}
    for key in ("gain", "min", "max"):
        given = section.take(key)
        numbers[key] = float(given) if key == "gain" and isinstance(given, bool) else finite(given)
        if given is not None and numbers[key] is None:
            section.fault(key, f"is {shown(given)}", "write a finite number")
            return None
    start = section.take("start")
    start = start if isinstance(start, str | bool) or start is None else finite(start)
    if start is None and "start" in section:
        section.fault("start", f"is {shown(section.take('start'))}", "write a finite number")
        return None
    integer = section.flag("integer", False) if "integer" in section else None
    listed = section.take("choices")
    section.take("integer")
    section.close()
    if listed is None:
        if isinstance(start, str | bool):
            section.fault("start", f"is {shown(start)}", "write a finite number, or list the choices: choices: [SGD, AdamW]")
            return None
        entry = Entry(numbers["gain"], numbers["min"], numbers["max"], start, integer)
        return _checked(section.findings, entry, section.path, "swap min and max")
    if numbers["min"] is not None or numbers["max"] is not None or integer:
        section.fault("choices", "a gene of choices has no min, max or integer", "remove them, or the choices")
        return None
    choices = _choices(section.findings, listed, (*section.path, "choices"))
    return Entry(numbers["gain"], None, None, start, choices=choices) if choices else None


def _choices(findings: Findings, value: Any, path: Path) -> tuple[Any, ...]:
    """Two or more different texts, or false and true; none after a finding."""
    listed = list(value) if isinstance(value, list | tuple) else []
    texts = all(isinstance(item, str) and _CHOICE.fullmatch(item) and item.lower() not in _NO_TEXT for item in listed)
    flags = all(isinstance(item, bool) for item in listed)
    if not 2 <= len(listed) <= MOST_CHOICES or len({str(item) for item in listed}) < len(listed) or not (texts or flags):
        remedy = f"list 2 to {MOST_CHOICES} different words, such as [SGD, AdamW], or [false, true]; numbers take min and max"
        findings.add(path, f"is {shown(value)}", remedy)
        return ()
    return tuple(listed)


def _checked(findings: Findings, entry: Entry, path: Path, remedy: str) -> Entry | None:
    if entry.lower is not None and entry.upper is not None and entry.lower > entry.upper:
        findings.add(path, f"lower {entry.lower:g} > upper {entry.upper:g}", remedy)
        return None
    if entry.gain is not None and entry.gain != 0 and not LEAST_GAIN <= entry.gain <= 1000:
        findings.add(path, f"gain {entry.gain:g}", f"write 0, which fixes the gene, or a number from {LEAST_GAIN:g} to 1000")
        return None
    return entry


def build_space(
    findings: Findings,
    *,
    lineage: str,
    own_genes: bool,
    hyp: HypFile | None,
    entries: Mapping[str, Entry | None],
    fixed: list[str],
    base: Mapping[str, Any],
) -> tuple[Space, tuple[str, ...]]:
    """The space, and notes on what was filled in. ``base`` is the base scenario, some of whose keys may be genes.

    ``own_genes``: the trainer is the user's own, so the genes are exactly those of ``hyp`` and ``entries`` where either is
    given. An entry that is None has been found faulty already and is left at its default.
    """
    known = {gene.name: gene for gene in lineage_space(lineage)}
    notes: list[str] = []
    given = dict(hyp.values) if hyp is not None else None
    names = list(known)
    if own_genes and (given is not None or entries):
        names = list(dict.fromkeys([*(given or {}), *entries]))
    else:
        if given is not None and hyp is not None and "anchors" in known and "anchors" not in given:
            given["anchors"] = ANCHORS
            notes.append(f"anchors absent from {hyp.name}: {ANCHORS:g} is used, as yolov5 does")
        names += [name for name in SCENARIO_GENES if name in entries or name in (given or {})]
        for name in given or {}:
            if name not in names and hyp is not None:
                hyp.fault(name, f"is no gene of lineage {lineage}", nearest(name, names))
    for name in entries:
        if name not in names:
            findings.add(("space", name), f"is no gene of lineage {lineage}", nearest(name, [*names, *SCENARIO_GENES]))
    for index, name in enumerate(fixed):
        if name not in names:
            findings.add(("fixed", index), f"{shown(name)} is no gene of this campaign", nearest(name, names))
    if given is not None and hyp is not None:
        have = {name for name, entry in entries.items() if entry is not None and entry.start is not None}
        absent = [known[name] for name in names if name in known and name not in given and name not in have]
        _report_absent(hyp, absent)
    genes = []
    for name in names:
        entry = entries.get(name)
        # What the base scenario says is the start of a gene that takes its place.
        start = (given or {}).get(name, None if own_genes else base.get(name))
        scenario = () if own_genes else SCENARIO_GENES.get(name, ())
        if (entry is not None and entry.choices) or (name not in known and isinstance(start, str | bool) and entry is None):
            gene = _choice_gene(findings, name, entry, start, hyp, name in fixed, scenario)
        elif scenario:
            if name not in entries or entry is not None:
                findings.add(("space", name), "is a gene of choices", f"write some of {shown(list(scenario))}")
            continue
        else:
            gene = _gene(findings, name, known.get(name), given, hyp, entries, fixed)
        if gene is not None:
            genes.append(gene)
    return Space(tuple(genes)), tuple(notes)


def _choice_gene(
    findings: Findings,
    name: str,
    entry: Entry | None,
    given: Value | None,
    hyp: HypFile | None,
    fixed: bool,
    scenario: Sequence[Value],
) -> Gene | None:
    """A gene of choices; one that stands in a hyp set alone keeps its value. ``scenario`` is what the base scenario allows."""
    choices = entry.choices if entry is not None else (given,)
    for choice in choices:
        if scenario and choice not in scenario:
            path = ("space", name) if entry is not None else (*(hyp.path if hyp else ()), name)
            findings.add(path, f"{shown(choice)} is no {name}", f"choices are {', '.join(map(str, scenario))}")
            return None
    start = given
    if entry is not None and entry.start is not None:
        start = entry.start
        if start not in choices:
            findings.add(("space", name, "start"), f"{shown(start)} is none of the choices", f"write one of {shown(choices)}")
            return None
    elif given is not None and given not in choices and hyp is not None and name in hyp.values:
        hyp.fault(
            name, f"{shown(given)} is none of the choices", f"write one of {shown(choices)}, or add it under space.{name}"
        )
        return None
    index = choices.index(start) if start in choices else 0
    gain = _first(entry.gain if entry else None, 1.0)
    return Gene(
        name=name,
        start=float(index),
        gain=0.0 if fixed or len(choices) == 1 else gain or 0.0,
        lower=0.0,
        upper=len(choices) - 1.0,
        meaning=f"{name} of the base scenario" if scenario else "",
        choices=choices,
    )


def _report_absent(hyp: HypFile, absent: list[Gene]) -> None:
    """A gene that a hyp set leaves out would silently take some default; where many are missing, one line names them all."""
    if len(absent) <= 3:
        for gene in absent:
            message = f"gene {gene.name} is absent from {hyp.name}"
            hyp.fault(gene.name, message, f"add '{gene.name}: {gene.start:g}', the default")
        return
    message = f"{len(absent)} genes are absent from {hyp.name}: {', '.join(gene.name for gene in absent)}"
    defaults = ", ".join(f"{gene.name}: {gene.start:g}" for gene in absent)
    hyp.findings.add(hyp.path, message, f"add them, or leave hyp out altogether; the defaults are {{{defaults}}}")


def _gene(
    findings: Findings,
    name: str,
    known: Gene | None,
    given: Mapping[str, Value] | None,
    hyp: HypFile | None,
    entries: Mapping[str, Entry | None],
    fixed: list[str],
) -> Gene | None:
    entry = entries.get(name)
    start = entry.start if entry is not None and entry.start is not None else (given or {}).get(name)
    if isinstance(start, str | bool):
        if hyp is not None:
            hyp.fault(name, f"is {shown(start)}", "write a finite number")
        return None
    if start is None:
        if known is None:
            findings.add(
                ("space", name), "has no start value", f"add it to hyp, or write {name}: {{min: .., max: .., start: ..}}"
            )
            return None
        start = known.start  # where a hyp set was given, its absence has been reported
    gain = _first(entry.gain if entry else None, known.gain if known else None, 1.0)
    integer = entry.integer if entry is not None and entry.integer is not None else bool(known and known.integer)
    lower = _first(entry.lower if entry else None, known.lower if known else None)
    upper = _first(entry.upper if entry else None, known.upper if known else None)
    if lower is None or upper is None:
        if name in entries and entries[name] is None:
            return None
        if name not in fixed:
            findings.add(("space", name), "has no bounds", f"write {name}: [1, lower, upper], or list it in fixed")
            return None
        lower = upper = start
    if lower > upper:
        findings.add(("space", name), f"lower {lower:g} > upper {upper:g}", "give both min and max")
        return None
    if integer and any(value != round(value) for value in (lower, upper, start)):
        findings.add(("space", name), f"{start:g} in {lower:g} to {upper:g} are no whole numbers", "write whole numbers")
        return None
    if not lower <= start <= upper:
        message = f"{start:g} is outside its bounds {lower:g} to {upper:g}"
        remedy = f"change the value, or widen the bounds under space.{name}"
        if entry is not None and entry.start is not None:
            findings.add(("space", name, "start"), message, remedy)
        elif hyp is not None:
            hyp.fault(name, message, remedy)
        else:
            findings.add(("space", name), f"default {message}", f"add start: to space.{name}, or widen the bounds")
        return None
    return Gene(
        name=name,
        start=start + 0.0,
        gain=0.0 if name in fixed else gain or 0.0,
        lower=lower + 0.0,
        upper=upper + 0.0,
        scale=known.scale if known else "linear",
        integer=integer,
        meaning=known.meaning if known else "",
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
