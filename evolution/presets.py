"""Campaign files for a start: everything that acts is written out, with its meaning beside it."""

from __future__ import annotations

import json

from evolution.fitness import WEIGHTS
from evolution.hyperparameters import lineage_space
from evolution.problems import nearest
from evolution.result_files import yaml_float
from evolution.strategy import create

PRESETS = ("yolov5-2021", "hybrid")
_MEANINGS = {
    "parents": "the fittest rows that a parent is drawn from",
    "parent": "single | weighted (the mean of the rows)",
    "mutation_probability": "per gene",
    "sigma": "size of a mutation step",
    "faithful": "true draws the parent as the program did: the same rank nearly always",
}


def preset(
    name: str,
    *,
    name_of_campaign: str,
    data: str,
    model: str = "yolov5n",
    weights: str = "",
    epochs: int = 10,
    imgsz: int = 640,
    batch: int = 16,
    candidates: int = 300,
    seed: int = 0,
    hyp: str | None = None,
) -> str:
    """The text of a campaign file. ``hyp`` names a hyp file to start from; without it the lineage's defaults are written out.

    Raises:
        ValueError: names an unknown preset and the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"preset '{name}' is unknown; {nearest(name, list(PRESETS))}")
    space = lineage_space()
    options = create(name, {}).options
    lines = [
        f"# A campaign of preset {name}: one line per thing that acts. Reference: docs/EVOLUTION.md",
        f"name: {_quoted(name_of_campaign)}",
        "",
        "base:                          # what every candidate shares",
        f"  {f'data: {_quoted(data)}':<28} # YOLO yaml, Darknet .data, VOC folder or COCO json",
        f"  {f'model: {_quoted(model)}':<28}",
        f"  {f'weights: {_quoted(weights)}':<28} # '' trains from scratch",
        f"  {f'epochs: {epochs}':<28} # of each candidate",
        f"  {f'imgsz: {imgsz}':<28} # pixels, long side",
        f"  {f'batch: {batch}':<28}",
        f"  {'optimizer: auto':<28}",
        "",
        "trainer: detector              # built in; or {command: [..], results: ..}, or {python: 'module:function'}",
        "",
    ]
    if hyp is not None:
        lines += [f"hyp: {_quoted(hyp)}                  # candidate 0 trains these values unchanged", ""]
    else:
        lines += ["hyp:                           # candidate 0 trains these values unchanged"]
        lines += [f"  {f'{gene.name}: {yaml_float(gene.start)}':<28} # {gene.meaning}" for gene in space]
        lines += [""]
    lines += ["space_format: yolov5           # [gain, lower, upper]; gain 0 fixes a gene", "space:"]
    for gene in space:
        limits = f"[{gene.gain:g}, {yaml_float(gene.lower)}, {yaml_float(gene.upper)}]"
        lines.append(f"  {gene.name + ':':<16} {limits}")
    weighted = ", ".join(f"{metric}: {weight:g}" for metric, weight in WEIGHTS.items())
    lines += [
        "fixed: []                      # genes that keep their value",
        "",
        f"fitness: {{{weighted}}}",
        "evolve:",
        f"  strategy: {name}",
        f"  {f'seed: {seed}':<28}",
        *(f"  {f'{option}: {_written(value)}':<28} # {_MEANINGS[option]}" for option, value in options.items()),
        f"budget: {{candidates: {candidates}}}",
        "retries: {failed: 1}           # how often a failed training is tried again; a lost node costs nothing",
        "lease: {heartbeat: 15s, expire: 60s}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _written(value: bool | float | str) -> str:
    """An option's value in YAML."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    """``text`` as a YAML scalar: plain where that is safe, else quoted."""
    if text and text.isascii() and all(c.isalnum() or c in "._-/" for c in text) and text[0].isalpha():
        return text if text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n") else f"'{text}'"
    return json.dumps(text, ensure_ascii=False) if text else "''"
