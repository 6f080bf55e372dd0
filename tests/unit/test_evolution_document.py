"""docs/EVOLUTION.md and the code say the same of every gene, and the library stays pure."""

import ast
import re
import sys
from pathlib import Path

import pytest

from evolution.campaign import Campaign
from evolution.hyperparameters import LINEAGES, lineage_space

ROOT = Path(__file__).parents[2]
LIBRARIES = {"evolution", "numpy", "scipy", "cmaes", "yaml"}
IMPURE = {"os", "pathlib", "time", "logging", "socket", "sys", "random", "subprocess", "io", "threading"}
CLOCKS = {
    "now",
    "utcnow",
    "today",
    "astimezone",
}  # datetime parses moments; what of it reads the clock or the machine's time zone


def gene_table(lineage):
    """The table between the lineage's marks in the document."""
    lines = ["| gene | default | gain | bounds | meaning |", "|---|---|---|---|---|"]
    for gene in lineage_space(lineage):
        lines.append(f"| {gene.name} | {gene.start:g} | {gene.gain:g} | {gene.lower:g} – {gene.upper:g} | {gene.meaning} |")
    return "\n".join(lines)


@pytest.mark.parametrize("lineage", LINEAGES)
def test_the_gene_tables_are_those_of_the_code(lineage):
    text = (ROOT / "docs" / "EVOLUTION.md").read_text(encoding="utf-8")
    table = text.split(f"<!-- genes {lineage} -->")[1].split(f"<!-- /genes {lineage} -->")[0].strip()
    assert table == gene_table(lineage), f"paste the table that gene_table({lineage!r}) gives"


def test_every_key_of_a_campaign_file_is_explained_with_its_default():
    text = (ROOT / "docs" / "EVOLUTION.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.split("<!-- keys -->")[1].split("<!-- /keys -->")[0].splitlines() if "`" in line]
    told = {}
    for _, keys, defaults, *_ in rows:
        names = re.findall(r"`([a-z_.]+)`", keys)
        values = defaults.split(",") if len(names) > 1 else [defaults]
        told |= {name: value.strip().strip("`") for name, value in zip(names, values, strict=True)}
    document = Campaign.from_document({"name": "toy", "base": {"epochs": 1}}).to_document()
    written = {**document, "hyp": None, "space": None, "space_format": None, "fixed": None, "seed_from": None}
    known = {}
    for key, value in written.items():
        if key in ("evolve", "budget", "retries", "lease"):
            known |= {f"{key}.{name}": default for name, default in value.items() if name != "requires"}
        elif key not in ("genes", "notes", "imported"):  # as they are stored, not as they are written
            known[key] = value
    known |= {f"lease.requires.{name}": default for name, default in document["lease"]["requires"].items()}
    assert set(told) == set(known)
    for name in (name for name in known if name.startswith(("budget.", "lease.", "retries."))):
        default = known[name]
        spelled = {"none", "any"} if default in (None, []) else {f"{default:g}", f"{default:g}s"}
        assert told[name] in spelled, (name, told[name], default)


def test_evolution_imports_nothing_that_has_a_clock_a_file_or_chance():
    for path in (ROOT / "evolution").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in CLOCKS, f"{path.name}:{node.lineno} asks for .{node.attr}"
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (name.split(".")[0] for name in names):
                assert name not in IMPURE, f"{path.name} imports {name}"
                assert name in sys.stdlib_module_names or name in LIBRARIES, f"{path.name} imports {name}"
