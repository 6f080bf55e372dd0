"""Prints what one program needs, from pyproject.toml: ``python requirements.py server``.

The images install this list and copy the code beside it. Installing the project itself would put code and packages into one
layer, so that every changed line would download everything again.
"""

import sys
import tomllib
from pathlib import Path

here = Path(__file__).resolve().parent
found = next(folder / "pyproject.toml" for folder in (here, here.parent) if (folder / "pyproject.toml").is_file())
project = tomllib.loads(found.read_text(encoding="utf-8"))["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")
