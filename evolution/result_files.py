"""The files that users of yolov5 know, as they are written; ``evolution.earlier_results`` reads them.

=============  ==========================================================================================================
evolve.csv     header and rows, ``%20.5g`` per field, comma separated, in the order of the candidates
evolve.txt     no header, three digits per field (lossy), fittest first, each row once; its columns are those of the lineage
tune_results   ``.ndjson``: ultralytics' line per candidate, in their order
hyp_evolved    commented header, then the hyp set at full precision
=============  ==========================================================================================================

Tables have their result columns (metrics, validation losses), then the genes in the order of the space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evolution.fitness import formula
from evolution.space import Space, Value

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

# Names in tune_results.ndjson, and the metrics that they hold.
NDJSON: Mapping[str, str] = {
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
}


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


def evolve_csv(space: Space, rows: Iterable[ResultRow]) -> Iterator[str]:
    """The lines of ``evolve.csv``, as yolov5 lays it out; rows come in the order of their numbers."""
    names = (*COLUMNS, *space.names)
    yield ",".join(f"{name:>20}" for name in names) + "\n"
    for row in rows:
        yield ",".join(_field(value, 20, 5) for value in _values(space, row, tuple(COLUMNS.values()))) + "\n"


def evolve_txt(space: Space, rows: Iterable[ResultRow], lineage: str = "yolov5") -> Iterator[str]:
    """The lines of ``evolve.txt``, as yolov3 and, until August 2021, yolov5 wrote it; rows come with the fittest first.

    Of lines that are equal the first is there. What is remembered for that are 64 bits a line.
    """
    layout = LAYOUTS[lineage]
    seen = set()
    for row in rows:
        line = "".join(_field(value, layout.width, 3) for value in _values(space, row, layout.columns))
        if (digest := hash(line)) not in seen:
            seen.add(digest)
            yield line + "\n"


def tune_results(space: Space, rows: Iterable[ResultRow], data: str) -> Iterator[str]:
    """The lines of ultralytics' ``tune_results.ndjson``, a JSON object each, iterations counted from 1."""
    for row in rows:
        metrics = {name: row.metrics[key] for name, key in NDJSON.items() if key in row.metrics}
        line = {
            "iteration": row.number + 1,
            "fitness": round(row.fitness, 5),
            "hyperparameters": {name: row.hyp[name] for name in space.names},
            "datasets": {data: metrics},
            "save_dirs": {},
            "failed_datasets": [],
        }
        yield json.dumps(line) + "\n"


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
