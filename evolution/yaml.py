"""A strict YAML reader: text in, values out.

PyYAML reads YAML 1.1, where ``1e-5`` is text, ``no`` is False and a key given twice silently keeps its last value. Here scalars
follow YAML 1.2's core schema, and whatever makes a file mean something else than it seems to say is refused: duplicate keys,
aliases, merge keys, explicit tags, several documents. Values are None, bool, int, float, str, list, and dict with keys that are
str or int.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from evolution.problems import InvalidInput, Path, Problem, dotted, shown

LARGEST = 256 * 1024  # bytes
DEEPEST = 20  # nested collections

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = {".nan", ".NaN", ".NAN"}
_LONGEST_INT = 400  # digits; Python refuses to read integers of thousands of digits


class YamlError(InvalidInput):
    """The text is no YAML that this reader accepts. One problem, one line: ``file:line: what is wrong; remedy``."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__([problem])


@dataclass(frozen=True)
class Document:
    """A value, and where its parts stand in the text."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict, repr=False)

    def line(self, path: Path) -> int | None:
        """The line (from 1) of the key, or list item, at ``path``; None where the text has no such path."""
        return self.lines.get(tuple(path))


def load(text: str, source: str) -> Any:
    """The value of a YAML text; an empty text is None.

    Raises:
        YamlError: names ``source``, line, fault and remedy.
    """
    return load_document(text, source).value


def load_document(text: str, source: str) -> Document:
    """As ``load``, with the line of every key."""
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise YamlError(Problem(source, None, "", f"larger than {LARGEST // 1024} KB", "keep only what the file is for"))
    try:
        return _Builder(source, iter(yaml.parse(text, Loader=yaml.SafeLoader))).document()
    except yaml.reader.ReaderError as error:
        # For text (not bytes) PyYAML gives the code point and its index.
        line = text.count("\n", 0, int(error.position)) + 1
        fault = f"character #x{int(error.character):04x} is not allowed"
        raise YamlError(Problem(source, line, "", fault, "save the file as plain UTF-8 text")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fault = " ".join(part for part in (error.problem, error.context) if part) or "no YAML"
        raise YamlError(Problem(source, mark.line + 1 if mark else None, "", fault, _remedy(fault))) from None


def _remedy(fault: str) -> str:
    if "'\\t'" in fault:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in fault:
        return "check the indentation, and quote a text that holds ': '"
    return "check indentation, quotes and brackets here and on the line above"


class _Builder:
    """Builds values from PyYAML's parse events: no constructor, so no tag can ever make an object."""

    def __init__(self, source: str, events: Iterator[Any]) -> None:
        self._source = source
        self._events = events
        self._lines: dict[Path, int] = {}

    def document(self) -> Document:
        next(self._events)  # stream start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return Document(None)
        value = self._value(next(self._events), (), 0)
        next(self._events)  # document end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._error(after, (), "a second document starts here", "keep one document in a file")
        return Document(value, self._lines)

    def _value(self, event: Any, path: Path, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            raise self._error(event, path, f"alias '*{str(event.anchor)[:60]}' is not allowed", "write the value out")
        if event.anchor is not None:
            raise self._error(
                event, path, f"anchor '&{event.anchor[:60]}' is not allowed", "write the value out where it is used"
            )
        if event.tag is not None:
            raise self._error(event, path, f"tag '{event.tag[:60]}' is not allowed", "write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth >= DEEPEST:
            raise self._error(event, path, f"nested deeper than {DEEPEST} levels", "flatten it")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path, depth)
        return self._mapping(path, depth)

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            place = (*path, len(items))
            self._lines[place] = event.start_mark.line + 1
            items.append(self._value(event, place, depth + 1))
        return items

    def _mapping(self, path: Path, depth: int) -> dict[str | int, Any]:
        entries: dict[str | int, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                raise self._error(event, path, "a list or mapping is used as a key", "quote texts that start with [ or {")
            key = self._value(event, path, depth + 1)
            if key == "<<" and event.style is None:
                raise self._error(event, path, "merge key '<<' is not allowed", "write the keys out")
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise self._error(event, path, f"key {shown(event.value)} is no text", "quote it")
            place = (*path, key)
            if key in entries:
                fault = f"key {shown(key)} is given twice, first on line {self._lines[place]}"
                raise self._error(event, path, fault, "keep one of them")
            self._lines[place] = event.start_mark.line + 1
            entries[key] = self._value(next(self._events), place, depth + 1)
        return entries

    def _scalar(self, event: Any, path: Path) -> Any:
        text: str = event.value
        if event.style is not None:  # quoted or block text
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            if len(text) > _LONGEST_INT:
                raise self._error(event, path, f"a number of {len(text)} digits", "write a number that fits, or quote it")
            return int(text)
        if _OTHER_INT.fullmatch(text) and len(text) <= _LONGEST_INT:
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        if infinite := _INFINITE.fullmatch(text):
            return float(f"{infinite[1]}inf")
        return float("nan") if text in _NAN else text

    def _error(self, event: Any, path: Path, fault: str, remedy: str) -> YamlError:
        return YamlError(Problem(self._source, event.start_mark.line + 1, dotted(path), fault, remedy))
