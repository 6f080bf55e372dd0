"""Reads one mapping of a campaign key by key: each key is asked for once, with its type; what is left over is unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evolution.problems import Findings, Path, finite, shown

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DEEPEST = 20


class Section:
    """The mapping at ``path``. A fault becomes a finding and the reader goes on with the default, so that all are found."""

    def __init__(self, findings: Findings, value: Any, path: Path = ()) -> None:
        self.findings = findings
        self.path = path
        self._asked: list[str] = []
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            findings.add(path, f"is {shown(value)}, not a mapping", "write it as 'key: value' lines")
            value = {}
        self._values: Mapping[Any, Any] = value

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def take(self, key: str, default: Any = None) -> Any:
        """The value as it stands; null counts as absent."""
        self._asked.append(key)
        value = self._values.get(key)
        return default if value is None else value

    def section(self, key: str) -> Section:
        return Section(self.findings, self.take(key), (*self.path, key))

    def text(self, key: str, default: str, choices: tuple[str, ...] = ()) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or (choices and value not in choices):
            remedy = f"write one of {', '.join(choices)}" if choices else "write a text"
            self.fault(key, f"is {shown(value)}", remedy)
            return default
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(key, f"is {shown(value)}", f"write a whole number from {least} to {most}")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.fault(key, f"is {shown(value)}", "write true or false")
            return default
        return value

    def number(self, key: str, default: float) -> float:
        value = self.take(key, default)
        number = finite(value)
        if number is None:
            self.fault(key, f"is {shown(value)}", "write a finite number")
            return default
        return number

    def duration(self, key: str, default: float, least: float, most: float) -> float:
        """Seconds, from a number of seconds or a text such as 15s or 5m."""
        value = self.take(key, default)
        seconds = finite(value)
        if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds is None or not least <= seconds <= most:
            self.fault(key, f"is {shown(value)}", f"write a time from {least:g}s to {most / 3600:g}h, such as 15s or 5m")
            return default
        return seconds

    def fault(self, key: str, message: str, remedy: str) -> None:
        self.findings.add((*self.path, key), message, remedy)

    def rest(self) -> dict[Any, Any]:
        """What has not been asked for."""
        return {key: value for key, value in self._values.items() if key not in self._asked}

    def close(self, also_known: tuple[str, ...] = ()) -> None:
        """Every key that nobody asked for is unknown."""
        for key in self.rest():
            self.findings.unknown((*self.path, str(key)), (*self._asked, *also_known))


def json_value(findings: Findings, value: Any, path: Path) -> Any:
    """A copy of ``value`` that JSON can carry: keys are text, numbers finite, nothing nested beyond 20 levels."""
    if len(path) > _DEEPEST:
        findings.add(path[:3], f"nested deeper than {_DEEPEST} levels", "flatten it")
        return None
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        if finite(value) is None:
            findings.add(path, f"is {shown(value)}", "write a finite number")
            return None
        return value
    if isinstance(value, list | tuple):
        return [json_value(findings, item, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                findings.add((*path, str(key)), f"key {shown(key)} is no text", f'quote it: "{key}"')
        return {str(key): json_value(findings, item, (*path, str(key))) for key, item in value.items()}
    findings.add(path, f"is a {type(value).__name__}", "write text, numbers, lists and mappings")
    return None
