"""The arrows between packages, read from docs/ARCHITECTURE.md and held against every import statement."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("evolution", "hypevolve", "detector", "worker", "server", "migrations")


def _rules() -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Package -> (ours it may import, others it may import, what it must never import)."""
    rules = {}
    for line in (ROOT / "docs/ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].strip("`") in OURS:
            ours, others, never = ({name.strip() for name in cell.split(",")} for cell in cells[2:])
            rules[cells[0].strip("`")] = (ours - {"nothing"}, others, never)
    return rules


def _imports(tree: ast.Module, *, inside_functions: bool) -> set[str]:
    """Dotted names imported by a module; those inside functions only where asked for."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child)

    visit(tree)
    return found


def violations(package: str, source: str) -> list[str]:
    """Imports in ``source``, a module of ``package``, that the table forbids."""
    ours, others, never = _rules()[package]
    # hypevolve's commands import programs inside functions, on purpose; nothing else may.
    inside = package != "hypevolve"
    wrong = []
    for name in sorted(_imports(ast.parse(source), inside_functions=inside)):
        top = name.split(".")[0]
        if top in OURS:
            # `hypevolve` alone in a row is the package itself and its version, not its modules.
            whole = {arrow for arrow in ours if arrow != "hypevolve"}
            allowed = top == package or any(name == arrow or name.startswith(f"{arrow}.") for arrow in whole)
            allowed = allowed or ("hypevolve" in ours and name == "hypevolve.__version__")
        elif top in sys.stdlib_module_names:
            allowed = top not in never
        else:
            allowed = top in others
        if not allowed:
            wrong.append(f"{package} may not import {name}: see the map in docs/ARCHITECTURE.md")
    return wrong


def test_the_map_names_every_package() -> None:
    assert set(_rules()) == set(OURS)


@pytest.mark.parametrize("package", OURS)
def test_imports_follow_the_map(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        wrong += [f"{path.relative_to(ROOT)}: {text}" for text in violations(package, path.read_text())]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "planted"),
    [
        ("server", "import torch"),
        ("server", "def f():\n    import torch"),
        ("server", "from detector.trainer import train"),
        ("server", "from hypevolve.client import Client"),
        ("worker", "import psycopg2"),
        ("worker", "from server.tables import candidate"),
        ("worker", "from evolution.strategy import create"),
        ("detector", "from evolution.strategy import create"),
        ("detector", "import httpx"),
        ("evolution", "import os"),
        ("evolution", "from hypevolve import messages"),
        ("hypevolve", "import server.app"),
        ("migrations", "from server.database import migrate"),
    ],
)
def test_a_planted_bad_import_is_caught(package: str, planted: str) -> None:
    assert len(violations(package, planted)) == 1


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_server_loads_no_torch() -> None:
    assert not _loaded("import server.app, server.api_campaigns, server.__main__") & {"torch", "cv2", "detector", "worker"}


def test_a_worker_environment_needs_no_database_driver() -> None:
    """With SQLAlchemy, psycopg2 and fastapi impossible to import, the worker still is."""
    block = "[sys.modules.__setitem__(m, None) for m in ('sqlalchemy', 'psycopg2', 'fastapi', 'alembic')]"
    modules = ", ".join(f"worker.{path.stem}" for path in (ROOT / "worker").glob("*.py") if path.stem != "__init__")
    assert not _loaded(f"{block}; import {modules}") & {"server"}


def test_importing_hypevolve_loads_nothing_else_of_ours() -> None:
    assert not _loaded("import hypevolve.cli, hypevolve.client") & (set(OURS) - {"hypevolve"})


def test_the_wheel_contains_hypevolve_alone(tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not re.fullmatch(r"hypevolve-.*\.dist-info", top)} == {"hypevolve"}


def test_each_generic_name_is_ours() -> None:
    """A stranger's package called `server` or `worker` would shadow ours; say so before anything stranger happens."""
    import detector
    import evolution
    import server
    import worker

    for package in (detector, evolution, server, worker):
        assert Path(str(package.__file__)).is_relative_to(ROOT)
