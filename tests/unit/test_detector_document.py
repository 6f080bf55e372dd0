"""docs/DETECTOR.md says what the models and the measurements in docs/results say."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from benchmarks.record import ROOT

TEXT = (ROOT / "docs" / "DETECTOR.md").read_text()


def results(name: str):
    document = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    return document.get("results", document)


def cells(first: str) -> list[str]:
    """The cells after the first of the one table row that begins so."""
    (row,) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", TEXT, re.MULTILINE)
    return [cell.strip(" *") for cell in row.split("|")]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"(?:\d[\d,]*)?\.?\d+", text)]


def test_the_table_of_models():
    from detector.models import ARCHITECTURES, cost

    for name in ARCHITECTURES:
        row = cost(name)
        assert [number for cell in cells(name) for number in numbers(cell)] == [row["parameters"], row["gflops"], row["rows"]]


def test_the_table_of_the_base_scenario():
    from detector.scenario import Scenario

    for field in dataclasses.fields(Scenario):
        default = "–" if field.default is dataclasses.MISSING else str(field.default)
        default = {"None": "none", "False": "false", "": "''"}.get(default, default)
        assert cells(f"`{field.name}`")[0] == default


def test_where_a_step_goes():
    found = results("detector-step")
    for first, kind in (("bfloat16", "bf16"), ("float32", "fp32")):
        assert [float(cell) for cell in cells(first)] == list(found[kind]["cpu_ms"].values())
    ratio = found["bf16"]["cpu_ms"]["step"] / found["fp32"]["cpu_ms"]["step"]
    assert f"{ratio:.2f}".lstrip("0") + " of a step's time" in TEXT


@pytest.mark.parametrize(
    ("first", "name", "metric"),
    [
        ("map50 after 30 epochs of SGD, seeds 0 / 1", "detector-bccd-reference-setting", "map50"),
        ("map50_95, the same trainings", "detector-bccd-reference-setting", "map50_95"),
        ("map50 after 10 epochs of the recipe for short budgets, seeds 0 / 1", "detector-bccd", "map50"),
    ],
)
def test_accuracy(first: str, name: str, metric: str):
    assert numbers(cells(first)[0]) == [round(run["metrics"][metric], 3) for run in results(name)["runs"]]


def test_the_speedrun():
    rows = results("speedrun")
    for threshold in ("0.5", "0.75"):
        fastest = min(row["seen"][threshold]["training"] for row in rows if row["seen"][threshold])
        (shown,) = numbers(cells(f"CPU s until map50 {float(threshold):.2f}, median of 3 seeds")[0])
        assert shown == pytest.approx(fastest, abs=0.5)


def test_training_beside_the_usual_manner():
    found = results("detector-train")["summary"]
    for first, key, other in (
        ("training images per CPU second of a thread", "images_per_cpu_s_of_one_thread", "as_reference_1"),
        ("training images per second of the node, 2 processes", "images_per_s_of_the_node", "as_reference_2"),
        ("candidates per CPU hour", "candidates_per_cpu_hour", "as_reference_1"),
        ("candidates per hour of the node, 2 processes", "candidates_per_hour_of_the_node", "as_reference_2"),
    ):
        ours, theirs = cells(first)[:2]
        assert numbers(ours) == [found[key]["ours"]]
        assert (numbers(theirs)[0], numbers(theirs)[-1]) == (found[key][other], found[key]["ratio"])
