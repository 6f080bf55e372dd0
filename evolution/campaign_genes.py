"""The genes of a campaign in either of its shapes: ``hyp``, ``space`` and ``fixed`` of a file, ``genes`` of a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from evolution.hyperparameters import SCENARIO_GENES, lineage_space
from evolution.problems import Findings, Path, finite, nearest, shown
from evolution.sections import Section
from evolution.space import Scale, Space, Value
from evolution.space_reader import FORMATS, HypFile, build_space, few, read_entry, read_hyp, valid_name
from evolution.yaml import YamlError, load_document

OpenFile = Callable[[str], str]


def file_genes(
    top: Section, lineage: str, own_genes: bool, base: Mapping[str, Any], open_file: OpenFile | None
) -> tuple[Space, tuple[str, ...]]:
    """The space of a campaign file, and notes on what was filled in; faults become findings."""
    form = top.text("space_format", FORMATS[0], FORMATS)
    space = top.section("space")
    entries = {}
    for key, value in few(top.findings, space.path, space.rest()).items():
        if valid_name(top.findings, str(key), space.path):
            entries[str(key)] = read_entry(top.findings, value, (*space.path, str(key)), form)
    fixed = top.take("fixed", [])
    if not isinstance(fixed, list | tuple) or not all(isinstance(name, str) for name in fixed):
        top.fault("fixed", f"is {shown(fixed)}", "write a list of genes: [fl_gamma, iou_t]")
        fixed = []
    hyp, sound = _hyp(top, open_file)
    if not sound:
        return Space(()), ()
    return build_space(
        top.findings, lineage=lineage, own_genes=own_genes, hyp=hyp, entries=entries, fixed=list(fixed), base=base
    )


def _hyp(top: Section, open_file: OpenFile | None) -> tuple[HypFile | None, bool]:
    """The hyp set as given, and whether it could be read; its faults are reported with the lines of its own file."""
    value = top.take("hyp")
    if value is None:
        return None, True
    if not isinstance(value, str):
        return read_hyp(top.findings, value, ("hyp",), "hyp"), True
    text = opened(top, ("hyp",), value, open_file)
    if text is None:
        return None, False
    try:
        document = load_document(text, value)
    except YamlError as error:
        top.findings.extend(error.problems)
        return None, False
    return read_hyp(_Forwarded(value, document.line, top.findings), document.value, (), value), True


class _Forwarded(Findings):
    """Findings about another file, reported with those of the campaign."""

    def __init__(self, source: str, line: Callable[[Path], int | None], into: Findings) -> None:
        super().__init__(source, line)
        self.problems = into.problems


def opened(top: Section, path: Path, name: str, open_file: OpenFile | None) -> str | None:
    """The text of the file that the value at ``path`` names; None after a finding."""
    if open_file is None:
        top.findings.add(path, f"names file {shown(name)}, which a request cannot carry", "send its content")
        return None
    try:
        return open_file(name)
    except FileNotFoundError:
        top.findings.add(path, f"no file {shown(name)}", "give a path that starts at the campaign file's folder")
    except OSError as error:
        top.findings.add(path, f"{shown(name)} cannot be read ({error.strerror or error})", "give a readable text file")
    except UnicodeDecodeError:
        top.findings.add(path, f"{shown(name)} is no UTF-8 text", "save it as UTF-8")
    return None


def document_genes(top: Section, lineage: str, own_genes: bool) -> Space:
    """The space from ``genes``: a list, because JSON objects lose their order in a database."""
    listed = top.take("genes")
    if not isinstance(listed, list | tuple):
        top.fault("genes", f"is {shown(listed)}", "write a list of {name, start, gain, min, max}")
        return Space(())
    values: dict[str, Value] = {}
    entries, extra = {}, {}
    for index, item in few(top.findings, ("genes",), dict(enumerate(listed))).items():
        section = Section(top.findings, item, ("genes", index))
        name = section.text("name", "")
        if not valid_name(top.findings, name, section.path):
            continue
        if name in values:
            section.fault("name", f"gene {name} is there twice", "keep one of them")
        choices = section.take("choices") or None
        alone = isinstance(choices, list | tuple) and len(choices) == 1  # fixed, so that it needs no entry
        start = section.take("start", 0.0)
        kept = start if choices and isinstance(start, str | bool) else finite(start)
        if kept is None:
            section.fault("start", f"is {shown(start)}", "write a finite number")
        values[name] = 0.0 if kept is None else kept
        scale = section.text("scale", "linear", ("linear", "log", "log1m"))
        extra[name] = (scale, section.text("meaning", ""))
        entry: dict[str, Any] = {"gain": section.number("gain", 1.0)}
        limits = {"min": section.number("min", 0.0), "max": section.number("max", 0.0)}
        integer = section.flag("integer", False)
        if choices is None:
            entry |= limits | {"integer": integer}
        else:
            entry["choices"] = choices
        if not alone:
            entries[name] = read_entry(top.findings, entry, section.path, FORMATS[0])
        section.close()
    known = [*lineage_space(lineage).names, *SCENARIO_GENES]
    for name in values:
        if not own_genes and name not in known:
            top.findings.add(("genes", name), f"is no gene of lineage {lineage}", nearest(name, known))
    # A detector's document may hold fewer genes than its lineage has by now: the others stay at their defaults.
    hyp = HypFile(values, top.findings, ("genes",), "genes")
    space, _ = build_space(top.findings, lineage=lineage, own_genes=True, hyp=hyp, entries=entries, fixed=[], base={})
    genes = [
        replace(space[name], scale=cast(Scale, extra[name][0]), meaning=extra[name][1]) for name in values if name in space
    ]
    return Space(tuple(genes))
