"""Where an access token comes from, and how it is kept out of sight.

A token on a command line can be read by every user of the machine. A program that is given one there starts itself again with
the token in its environment, which only its own user can read; ``HYPEVOLVE_TOKEN`` or a file of mode 0600 avoid even that.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypevolve.errors import Invalid

VARIABLE = "HYPEVOLVE_TOKEN"
FILE_VARIABLE = "HYPEVOLVE_TOKEN_FILE"
_FORM = re.compile(r"hyp_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


def token(given: str | None, file: Path | str | None, environment: Mapping[str, str]) -> str | None:
    """The access token: given, from a file, from the environment, from a file that the environment names; None without one.

    Raises:
        Invalid: what was given is no token, or its file can be read by others.
    """
    file = file or (None if given or environment.get(VARIABLE) else environment.get(FILE_VARIABLE))
    if given:
        return _checked(given, "--token")
    if file:
        return _checked(_read(Path(file)), str(file))
    return _checked(environment[VARIABLE], VARIABLE) if environment.get(VARIABLE) else None


def _checked(text: str, source: str) -> str:
    text = text.strip()
    if _FORM.fullmatch(text) is None:
        raise Invalid(f"{source}: is no access token, which begins with hyp_ and has 60 characters; was it cut off?")
    return text


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISFIFO(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Invalid(f"{path}: others may read this token; chmod 600 {path}")
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Invalid(f"{path}: cannot read the access token: {error.strerror}") from None


def hide(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start this program again without the token among ``arguments``; returns where there is none."""
    kept = list(arguments)
    for index, argument in enumerate(arguments):
        if argument == "--token" and index + 1 < len(arguments):
            secret, kept[index : index + 2] = arguments[index + 1], []
        elif argument.startswith("--token="):
            secret, kept[index : index + 1] = argument.partition("=")[2], []
        else:
            continue
        before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
        os.execve(sys.executable, [*before, *kept], {**environment, VARIABLE: secret})  # noqa: S606 - no shell is wanted
