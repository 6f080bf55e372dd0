"""Results of earlier evolutions, as files hold them: yolov5's ``evolve.csv`` and ``evolve.txt``, ultralytics' ``.ndjson``.

``evolution.result_files`` writes the same files and says how they are laid out. A training that did not finish left values that
are not finite: such a row is refused with its line, or put aside where the caller gives a list for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evolution.problems import InvalidInput, Problem, nearest
from evolution.result_files import COLUMNS, LAYOUTS, NDJSON, yaml_value
from evolution.space import Gene, Space, Value

REQUIRED = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")


@dataclass(frozen=True)
class ImportedRow:
    """A row of an earlier evolution: a hyp set in the order of the space, and what it measured (only finite values)."""

    hyp: Mapping[str, Value]
    metrics: Mapping[str, float]


class InvalidResultFile(InvalidInput):
    """A file of earlier results cannot be used."""


class _Rows:
    """The rows of one file as they are found."""

    def __init__(self, source: str, space: Space, required: Sequence[str], unfinished: list[Problem] | None) -> None:
        self.source = source
        self.genes = {gene.name: gene for gene in space}
        self.found: list[ImportedRow] = []
        self._required = required
        self._unfinished = unfinished

    def add(self, line: int, hyp: Mapping[str, Value], metrics: Mapping[str, float | None]) -> None:
        kept = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        missing = [gene.name for gene in self.genes.values() if not math.isfinite(gene.encode(hyp[gene.name]))]
        missing += [name for name in self._required if name not in kept]
        if not missing:
            self.found.append(ImportedRow({name: hyp[name] for name in self.genes}, kept))
            return
        fault = self.fault(line, f"'{missing[0]}' is not finite", "remove the row: that training did not finish")
        if self._unfinished is None:
            raise fault
        self._unfinished.extend(fault.problems)

    def number(self, line: int, field: str) -> float:
        try:
            return float(field)
        except ValueError:
            raise self.fault(line, f"'{field.strip()[:40]}' is no number", "restore the number, or remove the row") from None

    def value(self, line: int, gene: Gene, field: str) -> Value:
        if not gene.choices:
            return self.number(line, field) + 0.0
        for choice in gene.choices:
            if yaml_value(choice) == field.strip():
                return choice
        known = ", ".join(map(yaml_value, gene.choices))
        raise self.fault(line, f"'{field.strip()[:40]}' is no {gene.name}", f"choices are {known}; or remove the row")

    def fault(self, line: int | None, message: str, remedy: str) -> InvalidResultFile:
        return InvalidResultFile([Problem(self.source, line, "", message, remedy)])


def read_result_file(
    name: str,
    text: str,
    space: Space,
    lineage: str = "yolov5",
    *,
    required: Sequence[str] | None = None,
    unfinished: list[Problem] | None = None,
) -> tuple[ImportedRow, ...]:
    """The rows of a result file, whose kind the end of ``name`` says.

    Args:
        name: of the file, for messages.
        text: its content.
        space: of the campaign that they are for.
        lineage: whose layout an ``evolve.txt`` has.
        required: the metrics without which a row counts for nothing; default: those of the layout.
        unfinished: is given a problem for each row that lacks one of these; without it, the first such row raises.

    Raises:
        InvalidResultFile: names file, line, fault and remedy.
    """
    kinds = {".csv": "yolov5", ".txt": lineage, ".ndjson": "yolov5"}
    kind = next((kind for kind in kinds if name.endswith(kind)), None)
    layout = LAYOUTS[kinds.get(kind or "", "yolov5")]
    rows = _Rows(name, space, layout.metrics if required is None else required, unfinished)
    if kind == ".csv":
        _evolve_csv(rows, text)
    elif kind == ".txt":
        _evolve_txt(rows, text, lineage)
    elif kind == ".ndjson":
        _tune_results(rows, text)
    else:
        raise rows.fault(None, "is none of .csv, .txt and .ndjson", "give an evolve.csv, evolve.txt or tune_results.ndjson")
    return tuple(rows.found)


def _evolve_csv(rows: _Rows, text: str) -> None:
    """Columns are found by their names, in any order. Further metric columns are left out."""
    lines = _lines(text)
    at, head = next(lines, (0, ""))
    if not at:
        raise rows.fault(None, "is empty", "give an evolve.csv with a header and rows")
    header = [name.strip() for name in head.split(",")]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise rows.fault(1, f"column '{repeated[0]}' is there twice", "keep one of them")
    for name in (*REQUIRED, *rows.genes):
        if name not in header:
            what = "column" if name in COLUMNS else "column for gene"
            remedy = (
                "add the column, with the value that was trained with" if name in rows.genes else "give yolov5's evolve.csv"
            )
            raise rows.fault(at, f"no {what} '{name}'", remedy)
    for name in header:
        if name not in rows.genes and "/" not in name:
            raise rows.fault(at, f"column '{name[:60]}' is no gene of the space", nearest(name, list(rows.genes)))
    for line, content in lines:
        fields = content.split(",")
        if len(fields) != len(header):
            fault = f"{len(fields)} fields, the header has {len(header)}"
            raise rows.fault(line, fault, "remove the row, or restore the file")
        numbers, hyp = {}, {}
        for name, field in zip(header, fields, strict=True):
            if name in rows.genes:
                hyp[name] = rows.value(line, rows.genes[name], field)
            else:
                numbers[name] = rows.number(line, field)
        rows.add(line, hyp, {name: numbers.get(column) for column, name in COLUMNS.items()})


def _evolve_txt(rows: _Rows, text: str, lineage: str) -> None:
    """The results of the lineage's layout, then the genes in the order of the space.

    A column too few or too many is the fault that yolov5 answered with an IndexError.
    """
    columns = LAYOUTS[lineage].columns
    results, genes = len(columns), len(rows.genes)
    for line, content in _lines(text):
        fields = content.split()
        if len(fields) != results + genes:
            hyps = max(len(fields) - results, 0)
            fault = f"{len(fields)} columns are {results} results and {hyps} hyps, the space has {genes} genes"
            remedy = "evolve with the genes of that file, or add the missing column"
            if hyps == genes - 1 and "anchors" in rows.genes:
                remedy = (
                    "yolov5 left anchors out of its files: add a column of 3 in its place, or use a hyp set without the gene"
                )
            elif hyps > genes:
                remedy = "evolve with the genes of that file, or remove the columns that are no gene"
            raise rows.fault(None, fault, remedy)
        metrics: dict[str, float | None] = {
            name: rows.number(line, field) for name, field in zip(columns, fields, strict=False)
        }
        hyp = {
            name: rows.value(line, gene, field)
            for (name, gene), field in zip(rows.genes.items(), fields[results:], strict=True)
        }
        rows.add(line, hyp, metrics)


def _tune_results(rows: _Rows, text: str) -> None:
    """A JSON object a line. Of several data sets the metrics are averaged, as ultralytics averages their fitness."""
    for line, content in _lines(text):
        try:
            record = json.loads(content)
            given, sets = record["hyperparameters"], list(record["datasets"].values())
            metrics = {key: _mean([measured.get(name) for measured in sets]) for name, key in NDJSON.items()}
            failed = bool(record.get("failed_datasets"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            remedy = "restore the line, or remove it"
            raise rows.fault(line, "is no result of `tune`: {hyperparameters, datasets}", remedy) from None
        for name in given:
            if name not in rows.genes:
                raise rows.fault(line, f"'{name[:60]}' is no gene of the space", nearest(name, list(rows.genes)))
        for name in rows.genes:
            if name not in given:
                raise rows.fault(line, f"no value for gene '{name}'", "add the value that was trained with")
        hyp = {name: rows.value(line, gene, _written(given[name])) for name, gene in rows.genes.items()}
        rows.add(line, hyp, {} if failed else metrics)


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing, or there is none."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _written(value: object) -> str:
    return yaml_value(value) if isinstance(value, str | bool) else str(value)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1) if line.strip())
