"""What the speedrun counts as reached."""

from __future__ import annotations

import json

import pytest

from benchmarks.record import ROOT
from benchmarks.speedrun import BASE, _values, command, reached, summary


def run(*map50):
    return {"curve": [{"training": 10.0 * i, "total": 11.0 * i, "map50": v, "map50_95": v / 2} for i, v in enumerate(map50, 1)]}


@pytest.mark.parametrize(
    ("values", "seen", "held"),
    [((0.1, 0.5, 0.4, 0.6, 0.7), 20, 40), ((0.5, 0.6), 10, 10), ((0.1, 0.6, 0.2), 20, None), ((0.1, 0.2), None, None)],
)
def test_a_threshold_is_seen_first_and_held_last(values, seen, held):
    curve = run(*values)["curve"]
    assert (reached(curve, 0.5, False) or {}).get("training") == seen
    assert (reached(curve, 0.5, True) or {}).get("training") == held


def test_the_median_counts_a_run_that_never_arrives():
    runs = [run(0.6, 0.8), run(0.1, 0.6), run(0.1, 0.2)]
    found = summary(runs)
    assert found["seen"]["0.5"] == {"training": 20.0, "total": 22.0}
    assert found["seen"]["0.75"] is None
    assert found["end"]["map50"] == 0.6


def test_each_row_names_the_command_that_makes_it():
    for row in json.loads((ROOT / "docs" / "results" / "speedrun.json").read_text())["results"]:
        assert row["command"] == command(row)
        assert row["commit"]
        words = row["command"].partition("--base ")[2].partition(" --")[0].split()
        assert BASE | _values(words) == row["base"]
