"""Campaign files for a start: each program's evolution, complete, with everything that acts written out and explained.

A preset holds what its program evolved with: base scenario, genes with start, gain and bounds, fitness, strategy and options.
The layout of the result files follows from the lineage (``evolution.result_files``). Where the program had a defect, the preset
is its rule without it; ``faithful: true`` under ``evolve`` brings it back. docs/EVOLUTION.md lists which is which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evolution.hyperparameters import lineage_space
from evolution.problems import nearest
from evolution.result_files import yaml_float
from evolution.space import Gene
from evolution.strategy import create


@dataclass(frozen=True)
class Preset:
    """One program's evolution. ``limits`` (gain, lower, upper) and ``start`` take the lineage's place; ``said`` is shown."""

    said: tuple[str, ...]
    base: Mapping[str, Any]
    fitness: Mapping[str, float]
    lineage: str = "yolov5"
    start: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    evolved: tuple[str, ...] = ()  # the only genes that move; none named: all whose gain is above 0
    space_format: str = "yolov5"


YOLOV5 = {"model": "yolov5s", "epochs": 10, "imgsz": 640, "batch": 16, "nominal_batch": 64, "optimizer": "SGD"}
ULTRALYTICS = {"model": "yolov5n", "epochs": 10, "imgsz": 640, "batch": 16, "optimizer": "AdamW"}
# Genes of the built-in detector that the ultralytics package searches too; it has neither obj nor anchors.
TUNED = (
    "lr0",
    "lrf",
    "momentum",
    "weight_decay",
    "warmup_epochs",
    "warmup_momentum",
    "box",
    "cls",
    "hsv_h",
    "hsv_s",
    "hsv_v",
    "degrees",
    "translate",
    "scale",
    "shear",
    "perspective",
    "flipud",
    "fliplr",
    "mosaic",
    "mixup",
    "copy_paste",
)
_NOT_OURS = (
    "Its genes dfl, bgr, cutmix and close_mosaic turn parts that the built-in detector lacks; box keeps this detector's scale."
)
_POINT = "Precision and recall belong to the confidence of the highest mean F1, at an NMS of IoU 0.6."
_YOLOV3_POINT = (
    "The program read P, R and F1 at the last point of its confidence curve ({at}); here they belong to the",
    "confidence of the highest mean F1. mAP is at IoU 0.5.",
)

ALL: Mapping[str, Preset] = {
    "hybrid": Preset(
        said=("Our own: evolution first, then a local model of the fitness. Every gene that acts may move, zeros too.", _POINT),
        base={"model": "yolov5n", "epochs": 10, "imgsz": 640, "batch": 16, "optimizer": "auto"},
        fitness={"map50": 0.1, "map50_95": 0.9},
        limits={"fl_gamma": (1, 0.0, 2.0), "perspective": (1, 0.0, 0.001), "fliplr": (1, 0.0, 1.0)},
    ),
    "yolov3-2019": Preset(
        said=(
            "ultralytics/yolov3 of July 2019 (issue #392): the best row, every gene times (1 + s z)^2.",
            "Bounds of lr0, iou_t, momentum, weight_decay, hsv_s, hsv_v, translate, scale are the program's.",
            "lrf, xy and wh did nothing under its default flags and drifted; lrf is fixed here, xy and wh act.",
            _YOLOV3_POINT[0].format(at="0.1, NMS at IoU 0.5"),
            _YOLOV3_POINT[1],
        ),
        base={"model": "yolov3-spp", "epochs": 1, "imgsz": 320, "batch": 64, "nominal_batch": 64, "optimizer": "SGD"},
        fitness={"map50": 0.5, "f1": 0.5},
        lineage="yolov3-2019",
    ),
    "yolov3-2020": Preset(
        said=(
            "ultralytics/yolov3 of January 2020: the best row, or the mean of ten, mutated by method 1, 2 or 3.",
            "Articles give method 3 or 2; the code of that day had 2, and 3 a day later. 273 epochs are the program's default.",
            "cls_pw and obj_pw were forced to 1, lrf and the geometry did nothing for a time: here all but lrf act.",
            "On COCO the program put mAP at IoU 0.5:0.95 in the place of F1: write {map50: 0.8, map50_95: 0.2} for that.",
            _YOLOV3_POINT[0].format(at="0.001"),
            _YOLOV3_POINT[1],
        ),
        base={"model": "yolov3-spp", "epochs": 273, "imgsz": 416, "batch": 16, "nominal_batch": 64, "optimizer": "SGD"},
        fitness={"map50": 0.8, "f1": 0.2},
        lineage="yolov3-2020",
    ),
    "yolov5-2021": Preset(
        said=(
            "ultralytics/yolov5 of September 2020 to 2023: one of the five fittest, genes times 1 + g b z u s.",
            "Articles say a gene probability of 0.9 and a variance of 0.04; the code has 0.8, and s^2/3 = 0.0133.",
            "Values that start at 0 stay there, since mutation multiplies.",
            _POINT,
        ),
        base=YOLOV5,
        fitness={"map50": 0.1, "map50_95": 0.9},
        start={"lrf": 0.2},
    ),
    "yolov5-2024": Preset(
        said=(
            "ultralytics/yolov5 since January 2024: populations of 50, of which only the 13 augmentation genes move.",
            "It selects by map50 alone, though it shows 0.1 map50 + 0.9 map50_95. Its 300 generations were 15,000 trainings.",
            _POINT,
        ),
        base=YOLOV5,
        fitness={"map50": 1.0},
        limits={"perspective": (1, 0.0, 0.001), "fliplr": (1, 0.0, 1.0)},
        evolved=TUNED[8:],
    ),
    "ultralytics-2025": Preset(
        said=("The ultralytics package of September 2025: a blend of nine, then log-normal factors.", _NOT_OURS, _POINT),
        base=ULTRALYTICS,
        fitness={"map50_95": 1.0},
        limits={
            "lr0": (1, 1e-5, 0.1),
            "lrf": (1, 1e-4, 0.1),
            "momentum": (0.3, 0.7, 0.98),
            "cls": (1, 0.2, 4.0),
            "perspective": (1, 0.0, 0.001),
            "fliplr": (1, 0.0, 1.0),
            "scale": (1, 0.0, 0.95),
        },
        evolved=TUNED,
        space_format="ultralytics",
    ),
    "ultralytics-2026": Preset(
        said=(
            "The ultralytics package of August 2026: normal steps on a linear unit cube, later along the elite's covariance.",
            _NOT_OURS,
            _POINT,
        ),
        base=ULTRALYTICS,
        fitness={"map50_95": 1.0},
        limits={
            "lr0": (1, 1e-5, 0.01),
            "momentum": (0.3, 0.7, 0.98),
            "cls": (1, 0.1, 4.0),
            "perspective": (1, 0.0, 0.001),
            "fliplr": (1, 0.0, 1.0),
            "scale": (1, 0.0, 0.95),
        },
        evolved=TUNED,
        space_format="ultralytics",
    ),
}
ALL = {**ALL, **dict.fromkeys(("cma-es", "random"), replace(ALL["hybrid"], said=(_POINT,)))}
PRESETS = tuple(ALL)

_MEANINGS = {
    "parents": "the fittest rows that a parent is drawn from",
    "parent": "single | weighted (the mean of the rows)",
    "mutation_probability": "per gene",
    "sigma": "size of a mutation step",
    "faithful": "true brings back the program's defect",
    "method": "1 one random size for all genes | 2 one per gene | 3 few genes",
    "population": "candidates of a generation",
    "generations": "over which the rates adapt",
    "steady": "true replaces the worst and never waits",
    "scaled": "true draws along the genes' scales",
}


def preset(
    name: str,
    *,
    name_of_campaign: str,
    data: str,
    base: Mapping[str, Any] | None = None,
    candidates: int = 300,
    seed: int = 0,
    hyp: str | None = None,
) -> str:
    """The text of a campaign file. ``base`` takes the place of parts of the preset's base scenario. ``hyp`` names a hyp file to
    start from; without it the preset's start is written out.

    Raises:
        ValueError: names an unknown preset and the known ones.
    """
    if name not in ALL:
        raise ValueError(f"preset '{name}' is unknown; {nearest(name, list(PRESETS))}")
    chosen = ALL[name]
    space = [_gene(chosen, gene) for gene in lineage_space(chosen.lineage)]
    options = create(name, {}).options
    lines = [f"# A campaign of preset {name}: one line per thing that acts. Reference: docs/EVOLUTION.md"]
    lines += [
        f"# {line}" for line in (chosen.said if name in ("hybrid", chosen.lineage) or chosen is not ALL["hybrid"] else ())
    ]
    lines += [f"name: {_quoted(name_of_campaign)}", "", "base:                          # what every candidate shares"]
    scenario = {"data": data, "model": "", "weights": "", **chosen.base, **(base or {})}
    if chosen.lineage != "yolov5":
        scenario["lineage"] = chosen.lineage
    lines += [_commented(f"  {key}: {_written(value)}", _BASE.get(key, "")) for key, value in scenario.items()]
    lines += [
        "",
        "trainer: detector              # built in; or {command: [..], results: ..}, or {python: 'module:function'}",
        "",
    ]
    if hyp is not None:
        lines += [f"hyp: {_quoted(hyp)}                  # candidate 0 trains these values unchanged", ""]
    else:
        lines += ["hyp:                           # candidate 0 trains these values unchanged"]
        lines += [_commented(f"  {gene.name}: {_number(gene, gene.start)}", gene.meaning) for gene in space]
        lines += [""]
    if chosen.space_format == "ultralytics":
        lines += ["space_format: ultralytics      # [min, max, gain]; gain 0 fixes a gene", "space:"]
    else:
        lines += ["space_format: yolov5           # [gain, lower, upper]; gain 0 fixes a gene", "space:"]
    for gene in space:
        ends = [yaml_float(gene.lower), yaml_float(gene.upper)]
        parts = [*ends, f"{gene.gain:g}"] if chosen.space_format == "ultralytics" else [f"{gene.gain:g}", *ends]
        lines.append(f"  {gene.name + ':':<16} [{', '.join(parts)}]")
    weighted = ", ".join(f"{metric}: {weight:g}" for metric, weight in chosen.fitness.items())
    lines += [
        "fixed: []                      # genes that keep their value",
        "",
        f"fitness: {{{weighted}}}",
        "evolve:",
        f"  strategy: {name}",
        f"  {f'seed: {seed}':<28}",
        *(_commented(f"  {option}: {_written(value)}", _MEANINGS[option]) for option, value in options.items()),
        f"budget: {{candidates: {candidates}}}",
        "retries: {failed: 1}           # how often a failed training is tried again; a lost node costs nothing",
        "lease: {heartbeat: 15s, expire: 60s}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


_BASE = {
    "data": "YOLO yaml, Darknet .data, VOC folder or COCO json",
    "weights": "'' trains from scratch",
    "epochs": "of each candidate",
    "imgsz": "pixels, long side",
    "nominal_batch": "images per optimizer step",
    "lineage": "whose loss, assignment and genes",
}


def _gene(chosen: Preset, gene: Gene) -> Gene:
    """A gene of the lineage as the preset has it."""
    gain, lower, upper = chosen.limits.get(gene.name, (gene.gain, gene.lower, gene.upper))
    if chosen.evolved and gene.name not in chosen.evolved:
        gain = 0.0
    start = chosen.start.get(gene.name, gene.start)
    return Gene(gene.name, start, gain, lower, upper, gene.scale, gene.integer, gene.meaning)


def _commented(line: str, comment: str) -> str:
    return f"{line:<30} # {comment}" if comment else line


def _number(gene: Gene, value: float) -> str:
    return str(int(value)) if gene.integer else yaml_float(value)


def _written(value: bool | float | str) -> str:
    """A value in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """``text`` as a YAML scalar: plain where that is safe, else quoted."""
    if text and text.isascii() and all(c.isalnum() or c in "._-/" for c in text) and text[0].isalpha():
        return text if text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n") else f"'{text}'"
    return json.dumps(text, ensure_ascii=False) if text else "''"
