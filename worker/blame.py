"""Names the line of the user's code that an exception came from, so that one line of a log is enough to find it."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_OURS = tuple(_ROOT / package for package in ("worker", "evolution", "hypevolve"))
_CHARACTERS = 500
_DETECTOR = _ROOT / "detector"
_LIBRARIES = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def place(error: BaseException, root: Path) -> str:
    """``mytrain.py:12``, relative to ``root`` where it lies in it; '' where no file is to be named."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(Path(error.filename), root)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    files = [(Path(frame.filename).resolve(), frame.lineno) for frame in frames if not frame.filename.startswith("<")]
    theirs = [(file, line) for file, line in files if not _below(file, _OURS)]
    own_code = [(file, line) for file, line in theirs if not _below(file, (_DETECTOR, *_LIBRARIES))]
    detector = [(file, line) for file, line in theirs if _below(file, (_DETECTOR,))]
    # A trainer that is installed looks like a library: what we called first is its own.
    for found in (own_code[-1:], detector[-1:], theirs[:1]):
        for file, line in found:
            return f"{_shown(file, root)}:{line}"
    return ""


def one_line(error: BaseException, root: Path) -> str:
    """``RuntimeError: the moon is full (mytrain.py:12)``."""
    lines = [line for line in traceback.format_exception_only(error) if not line.startswith(" ")]  # those quote the code
    words = " ".join(lines[0].split())[:_CHARACTERS]
    where = place(error, root)
    return f"{words} ({where})" if where else words


def _below(file: Path, folders: tuple[Path, ...]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _shown(file: Path, root: Path) -> str:
    file, root = file.resolve(), root.resolve()
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
