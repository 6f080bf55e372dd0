"""What is wrong with something a person wrote, said so that they can mend it: place, key, fault and remedy on one line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]

MOST = 100  # problems reported at once; a hostile file must not make a reply grow without end


@dataclass(frozen=True)
class Problem:
    """One fault. ``key`` is a dotted path such as ``space.lr0``, empty where the fault concerns the whole file."""

    source: str
    line: int | None
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        where = f"{place} {self.key}" if self.key else place
        text = f"{where}: {self.message}; {self.remedy}" if self.remedy else f"{where}: {self.message}"
        return " ".join(text.split())


class InvalidInput(ValueError):
    """Something a person wrote cannot be used. ``problems`` are all that were found; the text has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidCampaign(InvalidInput):
    """A campaign file, or a campaign sent to a coordinator, cannot be used."""


class Findings:
    """Collects the problems of one source, so that a person sees all of them at once.

    ``line`` gives the line of a path in that source, or None. A path that is not in the source (a missing key) is given the
    line of the nearest mapping around it.
    """

    def __init__(self, source: str, line: Callable[[Path], int | None] | None = None) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._line = line

    def add(self, path: Path, message: str, remedy: str) -> None:
        if len(self.problems) >= MOST:
            return
        line = None
        if self._line is not None:
            for length in range(len(path), 0, -1):
                line = self._line(path[:length])
                if line is not None:
                    break
        self.extend([Problem(self.source, line, dotted(path), message, remedy)])

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            if len(self.problems) < MOST and problem not in self.problems:
                self.problems.append(problem)

    def unknown(self, path: Path, known: Iterable[str], what: str = "key") -> None:
        """The last part of ``path`` is none of ``known``."""
        if len(self.problems) >= MOST:  # the search for the nearest name costs
            return
        names = list(known)
        self.add(path, f"unknown {what} {shown(path[-1])}", nearest(str(path[-1]), names))

    def refuse(self) -> None:
        """Raises InvalidCampaign where a problem was found."""
        if self.problems:
            raise InvalidCampaign(self.problems)


def nearest(name: str, known: list[str]) -> str:
    """The remedy for a name that is none of ``known``."""
    near = difflib.get_close_matches(name[:64], known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known)}" if known else "remove it"


def dotted(path: Path) -> str:
    """``("space", "lr0", 1)`` as ``space.lr0[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:80]}" if text else part[:80]
    return text


def shown(value: Any) -> str:
    """``value`` as a message quotes it: short, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:56]} ..."


def finite(value: Any) -> float | None:
    """``value`` as a finite float, or None where it is no such number; True and False are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
