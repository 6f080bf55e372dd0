"""The files that users of yolov5 know: ``evolve.csv`` and ``evolve.txt`` (written and read) and ``hyp_evolved.yaml`` (written).

=============  ==========================================================================================================
evolve.csv     header and rows, ``%20.5g`` per field, comma separated, in the order of the candidates
evolve.txt     no header, three digits per field (lossy), fittest first, each row once; its columns are those of the lineage
tune_results   ``.ndjson``, written only: ultralytics' line per candidate, in their order
hyp_evolved    commented header, then the hyp set at full precision
=============  ==========================================================================================================

Tables have their result columns (metrics, validation losses), then the genes in the order of the space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evolution.fitness import formula
from evolution.problems import InvalidInput, Problem, nearest
from evolution.space import Gene, Space, Value

# Columns of evolve.csv, and the metrics that they hold.
COLUMNS: Mapping[str, str] = {
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP_0.5": "map50",
    "metrics/mAP_0.5:0.95": "map50_95",
    "val/box_loss": "val_box",
    "val/obj_loss": "val_obj",
    "val/cls_loss": "val_cls",
}
REQUIRED = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")


class Layout(NamedTuple):
    """The result columns of an ``evolve.txt`` (metrics first, then losses), and the width of a field."""

    metrics: tuple[str, ...]
    losses: tuple[str, ...]
    width: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.metrics, *self.losses)


# By lineage. The program of 2019 wrote one loss, the sum; those of 2019 and 2020 knew the mAP at an IoU of 0.5 alone.
LAYOUTS: Mapping[str, Layout] = {
    "yolov5": Layout(("precision", "recall", "map50", "map50_95"), ("val_box", "val_obj", "val_cls"), 10),
    "yolov3-2020": Layout(("precision", "recall", "map50", "f1"), ("val_box", "val_obj", "val_cls"), 10),
    "yolov3-2019": Layout(("precision", "recall", "map50", "f1"), ("val_loss",), 11),
}


@dataclass(frozen=True)
class ResultRow:
    """A finished candidate, as the files show it. A metric that it lacks is written as nan."""

    number: int
    hyp: Mapping[str, Value]
    metrics: Mapping[str, float]
    fitness: float


@dataclass(frozen=True)
class ImportedRow:
    """A row of an earlier evolution: a hyp set in the order of the space, and what it measured (only finite values)."""

    hyp: Mapping[str, Value]
    metrics: Mapping[str, float]


class InvalidResultFile(InvalidInput):
    """An ``evolve.csv`` or ``evolve.txt`` cannot be used."""


def evolve_csv(space: Space, rows: Sequence[ResultRow]) -> str:
    """The text of ``evolve.csv``, as yolov5 lays it out."""
    names = (*COLUMNS, *space.names)
    lines = [",".join(f"{name:>20}" for name in names)]
    for row in sorted(rows, key=lambda row: row.number):
        lines.append(",".join(_field(value, 20, 5) for value in _values(space, row, tuple(COLUMNS.values()))))
    return "\n".join(lines) + "\n"


def evolve_txt(space: Space, rows: Sequence[ResultRow], lineage: str = "yolov5") -> str:
    """The text of ``evolve.txt``, as yolov3 and, until August 2021, yolov5 wrote it."""
    layout = LAYOUTS[lineage]
    ranked = sorted(rows, key=lambda row: (-row.fitness, row.number))
    lines = dict.fromkeys(
        "".join(_field(value, layout.width, 3) for value in _values(space, row, layout.columns)) for row in ranked
    )
    return "".join(f"{line}\n" for line in lines)


def tune_results(space: Space, rows: Sequence[ResultRow], data: str) -> str:
    """The text of ultralytics' ``tune_results.ndjson``: one JSON object a line, iterations counted from 1."""
    lines = []
    for row in sorted(rows, key=lambda row: row.number):
        metrics = {name: row.metrics[key] for name, key in _NDJSON.items() if key in row.metrics}
        line = {
            "iteration": row.number + 1,
            "fitness": round(row.fitness, 5),
            "hyperparameters": {name: row.hyp[name] for name in space.names},
            "datasets": {data: metrics},
            "save_dirs": {},
            "failed_datasets": [],
        }
        lines.append(json.dumps(line))
    return "".join(f"{line}\n" for line in lines)


_NDJSON = {
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
}


def _field(value: Value, width: int, digits: int) -> str:
    """A number to ``digits`` digits, or a choice as YAML writes it."""
    return f"{yaml_value(value):>{width}}" if isinstance(value, str | bool) else f"{value:{width}.{digits}g}"


def _values(space: Space, row: ResultRow, columns: Sequence[str]) -> list[Value]:
    return [_metric(row, name) for name in columns] + [row.hyp[name] for name in space.names]


def _metric(row: ResultRow, name: str) -> float:
    if name == "val_loss" and name not in row.metrics:
        return sum(row.metrics.get(part, math.nan) for part in ("val_box", "val_obj", "val_cls"))
    return row.metrics.get(name, math.nan)


def hyp_yaml(campaign_name: str, row: ResultRow, of: int, weights: Mapping[str, float], space: Space) -> str:
    """The text of ``hyp_evolved.yaml``: the hyp set of ``row``, the best of ``of`` finished candidates.

    Numbers are exact, and written so that a YAML 1.1 reader too sees numbers (``1.0e-05``; it reads ``1e-05`` as text).
    """
    lines = [
        "# Hyperparameter evolution results",
        f"# Campaign: {campaign_name}",
        f"# Best candidate: {row.number}",
        f"# Candidates done: {of}",
        f"# Fitness: {row.fitness:.6g} = {formula(weights)}",
        "# " + ", ".join(f"{name:>20}" for name in COLUMNS),
        "# " + ", ".join(f"{row.metrics.get(name, math.nan):20.5g}" for name in COLUMNS.values()),
        "",
    ]
    lines += [f"{name}: {yaml_value(row.hyp[name])}" for name in space.names]
    return "\n".join(lines) + "\n"


def yaml_value(value: Value) -> str:
    """The value of a gene in a YAML file; a choice is a plain word (``space_reader`` refuses others)."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else yaml_float(value)


def yaml_float(value: float) -> str:
    """``value`` exactly, as every YAML reader takes for a number."""
    text = repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if e else text


def read_result_file(name: str, text: str, space: Space, lineage: str = "yolov5") -> tuple[ImportedRow, ...]:
    """The rows of ``evolve.csv`` or ``evolve.txt``, told apart by the end of ``name``; raises as the two readers do."""
    if name.endswith(".csv"):
        return read_evolve_csv(text, name, space)
    if name.endswith(".txt"):
        return read_evolve_txt(text, name, space, lineage)
    raise _fault(name, None, "is neither a .csv nor a .txt", "give yolov5's evolve.csv or evolve.txt")


def read_evolve_csv(text: str, source: str, space: Space) -> tuple[ImportedRow, ...]:
    """The rows of an ``evolve.csv``; columns are found by their names, in any order. Further metric columns are left out.

    Raises:
        InvalidResultFile: names file, line, fault and remedy.
    """
    numbered = _lines(text)
    if not numbered:
        raise _fault(source, None, "is empty", "give an evolve.csv with a header and rows")
    header = [name.strip() for name in numbered[0][1].split(",")]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise _fault(source, 1, f"column '{repeated[0]}' is there twice", "keep one of them")
    for name in (*REQUIRED, *space.names):
        if name not in header:
            what = "column" if name in COLUMNS else "column for gene"
            remedy = "add the column, with the value that was trained with" if name in space else "give yolov5's evolve.csv"
            raise _fault(source, numbered[0][0], f"no {what} '{name}'", remedy)
    for name in header:
        if name not in space and "/" not in name:
            raise _fault(
                source, numbered[0][0], f"column '{name[:60]}' is no gene of the space", nearest(name, list(space.names))
            )
    rows = []
    for line, content in numbered[1:]:
        fields = content.split(",")
        if len(fields) != len(header):
            fault = f"{len(fields)} fields, the header has {len(header)}"
            raise _fault(source, line, fault, "remove the row, or restore the file")
        numbers, hyp = {}, {}
        for name, field in zip(header, fields, strict=True):
            if name in space:
                hyp[name] = _gene_value(source, line, space[name], field)
            else:
                numbers[name] = _number(source, line, field)
        rows.append(
            _row(
                source,
                line,
                space,
                {name: numbers.get(column) for column, name in COLUMNS.items()},
                hyp,
                LAYOUTS["yolov5"].metrics,
            )
        )
    return tuple(rows)


def read_evolve_txt(text: str, source: str, space: Space, lineage: str = "yolov5") -> tuple[ImportedRow, ...]:
    """The rows of an ``evolve.txt``: the results of the lineage's layout, then the genes in the order of the space.

    Raises:
        InvalidResultFile: names file, line, fault and remedy. A column too few or too many is the fault that yolov5 answered
            with an IndexError.
    """
    rows = []
    layout = LAYOUTS[lineage]
    results = len(layout.columns)
    for line, content in _lines(text):
        fields = content.split()
        if len(fields) != results + len(space):
            hyps = max(len(fields) - results, 0)
            fault = f"{len(fields)} columns are {results} results and {hyps} hyps, the space has {len(space)} genes"
            remedy = "evolve with the genes of that file, or add the missing column"
            if hyps == len(space) - 1 and "anchors" in space:
                remedy = (
                    "yolov5 left anchors out of its files: add a column of 3 in its place, or use a hyp set without the gene"
                )
            elif hyps > len(space):
                remedy = "evolve with the genes of that file, or remove the columns that are no gene"
            raise _fault(source, None, fault, remedy)
        metrics: dict[str, float | None] = {
            name: _number(source, line, field) for name, field in zip(layout.columns, fields, strict=False)
        }
        hyp = {gene.name: _gene_value(source, line, gene, field) for gene, field in zip(space, fields[results:], strict=True)}
        rows.append(_row(source, line, space, metrics, hyp, layout.metrics))
    return tuple(rows)


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1) if line.strip()]


def _number(source: str, line: int, field: str) -> float:
    try:
        return float(field)
    except ValueError:
        remedy = "restore the number, or remove the row"
        raise _fault(source, line, f"'{field.strip()[:40]}' is no number", remedy) from None


def _gene_value(source: str, line: int, gene: Gene, field: str) -> Value:
    if not gene.choices:
        return _number(source, line, field) + 0.0
    for choice in gene.choices:
        if yaml_value(choice) == field.strip():
            return choice
    known = ", ".join(map(yaml_value, gene.choices))
    raise _fault(source, line, f"'{field.strip()[:40]}' is no {gene.name}", f"choices are {known}; or remove the row")


def _row(
    source: str,
    line: int,
    space: Space,
    metrics: Mapping[str, float | None],
    values: Mapping[str, Value],
    required: Sequence[str],
) -> ImportedRow:
    hyp = {name: values[name] for name in space.names}
    kept = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    missing = [gene.name for gene in space if not math.isfinite(gene.encode(hyp[gene.name]))]
    missing += [name for name in required if name not in kept]
    if missing:
        raise _fault(source, line, f"'{missing[0]}' is not finite", "remove the row: that training did not finish")
    return ImportedRow(hyp, kept)


def _fault(source: str, line: int | None, message: str, remedy: str) -> InvalidResultFile:
    return InvalidResultFile([Problem(source, line, "", message, remedy)])
