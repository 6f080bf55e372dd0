"""Checks of a strategy's options; each raises OptionError, which names the option and what it may be."""

from __future__ import annotations

from typing import Any

from evolution.problems import finite, shown
from evolution.strategy import OptionError


def whole(option: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise OptionError(option, f"is {shown(value)}", f"write a whole number from {least} to {most}")


def number(option: str, value: Any, least: float, most: float) -> float:
    """The value as a float."""
    given = finite(value)
    if given is None or not least <= given <= most:
        raise OptionError(option, f"is {shown(value)}", f"write a number from {least:g} to {most:g}")
    return given


def choice(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    if isinstance(value, bool) or value not in choices:
        raise OptionError(option, f"is {shown(value)}", f"write {', '.join(map(str, choices[:-1]))} or {choices[-1]}")


def flag(option: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise OptionError(option, f"is {shown(value)}", "write true or false")
