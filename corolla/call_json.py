"""JSON in a model's reply: where a value ends, and which calls it says. Pure.

What a model writes is hostile: it may be endless, nested too deep, or no JSON at all, as NaN is. Does not
know what stands around calls (corolla/calls.py).
"""

import json
import re
from collections.abc import Collection, Iterator
from math import isfinite
from typing import Any

from schema.messages import CallMade

_MARK = re.compile(r'[\[\]{}"\\]')


SPACES = " \n\r\t"
"""Of JSON."""


def _finite(number: str) -> float:
    """Raises ValueError: JSON has neither infinity nor NaN, and what told of them would be none."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is no number of JSON")
    return value


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


class Calls:
    """Numbers the calls of one reply."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._count = 0

    def of(self, value: Any) -> list[CallMade]:
        """The call, or the calls, that a JSON value says; none if it is anything else."""
        values = value if isinstance(value, list) else [value]
        parts = [_parts_of(one) for one in values]
        if not parts or any(part is None or part[0] not in self._names for part in parts):
            return []
        made = [
            CallMade(index=self._count + at, name=part[0], arguments=part[1]) for at, part in _filled(parts)
        ]
        self._count += len(made)
        return made

    def named(self, name: str, arguments: Any) -> list[CallMade]:
        return self.of({"name": name, "arguments": arguments})


def _filled(parts: list[tuple[str, str] | None]) -> Iterator[tuple[int, tuple[str, str]]]:
    return ((at, part) for at, part in enumerate(parts) if part is not None)


def _parts_of(value: Any) -> tuple[str, str] | None:
    """Name and arguments (JSON); None if it is no call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    for key in ("arguments", "parameters"):
        if key in value:
            arguments = _as_json(value[key])
            return None if arguments is None else (value["name"], arguments)
    return None


def _as_json(arguments: Any) -> str | None:
    """Some models write the arguments as JSON in a string. None: half a character, which no message holds."""
    try:
        told = json.dumps(arguments, ensure_ascii=False)
        if isinstance(arguments, str):
            found = parsed_value(arguments.strip(SPACES), 0)
            if found is not None and found[1] == len(arguments.strip(SPACES)):
                told = arguments
        told.encode()
    except (UnicodeEncodeError, RecursionError):
        return None
    return told


def parsed_value(text: str, start: int) -> tuple[Any, int] | None:
    """The JSON value that begins at `start`, and where it ends; None: not complete, or none."""
    try:
        return _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


class JsonEnd:
    """Finds where a JSON object or list ends. Looks at each character once, however they come."""

    def __init__(self, start: int) -> None:
        """`start`: where it begins, in a text that becomes longer."""
        self.start = self._at = start
        self._depth = 0
        self._is_string = False

    def end(self, text: str) -> int | None:
        """Behind its last bracket, if it is there."""
        while (found := _MARK.search(text, self._at)) is not None:
            mark, self._at = found[0], found.end()
            if mark == "\\":
                self._at += 1  # whatever is escaped
            elif mark == '"':
                self._is_string = not self._is_string
            elif not self._is_string:
                self._depth += 1 if mark in "{[" else -1
                if self._depth == 0:
                    return self._at
        self._at = max(self._at, len(text))
        return None
