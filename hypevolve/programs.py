"""Where the programs and libraries are that commands start or borrow: beside this package, in a checkout or an image.

The wheel holds ``hypevolve`` alone, and a stranger's package called ``server`` must not be taken for ours.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hypevolve.console import CommandFailed

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {
    "server": ("server,embedded", ("fastapi", "uvicorn", "sqlalchemy", "psycopg2", "alembic", "numpy", "matplotlib")),
    "worker": ("worker", ("httpx", "numpy")),
    "evolution": ("server", ("numpy", "yaml")),
    "detector": ("worker", ("numpy", "cv2", "torch")),
}


def missing(package: str) -> str:
    """What is missing for one of our packages and what to do about it, in one line; nothing where it can be used."""
    extra, modules = NEEDS[package]
    if not (ROOT / package / "__init__.py").is_file():
        return f"the package {package} is not installed here; in a checkout of hypevolve: pip install -e '.[{extra}]'"
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{package} needs {', '.join(absent)}; in {ROOT}: pip install -e '.[{extra}]'" if absent else ""


def require(*packages: str) -> None:
    """Raises CommandFailed with the remedy where one of our packages cannot be used."""
    for package in packages:
        if lacking := missing(package):
            raise CommandFailed(lacking)
