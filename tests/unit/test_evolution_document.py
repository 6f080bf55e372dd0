"""docs/EVOLUTION.md and the code say the same of every gene, and the library stays pure."""

import ast
import sys
from pathlib import Path

from evolution.hyperparameters import lineage_space

ROOT = Path(__file__).parents[2]
LIBRARIES = {"evolution", "numpy", "scipy", "cmaes", "yaml"}
IMPURE = {"os", "pathlib", "time", "logging", "socket", "sys", "random", "subprocess", "io", "datetime", "threading"}


def gene_table():
    """The table between the marks of the document."""
    lines = ["| gene | default | gain | bounds | meaning |", "|---|---|---|---|---|"]
    for gene in lineage_space("yolov5"):
        lines.append(f"| {gene.name} | {gene.start:g} | {gene.gain:g} | {gene.lower:g} – {gene.upper:g} | {gene.meaning} |")
    return "\n".join(lines)


def test_the_gene_table_is_that_of_the_code():
    text = (ROOT / "docs" / "EVOLUTION.md").read_text(encoding="utf-8")
    table = text.split("<!-- genes -->")[1].split("<!-- /genes -->")[0].strip()
    assert table == gene_table(), "paste the table that gene_table() gives"


def test_evolution_imports_nothing_that_has_a_clock_a_file_or_chance():
    for path in (ROOT / "evolution").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (name.split(".")[0] for name in names):
                assert name not in IMPURE, f"{path.name} imports {name}"
                assert name in sys.stdlib_module_names or name in LIBRARIES, f"{path.name} imports {name}"
