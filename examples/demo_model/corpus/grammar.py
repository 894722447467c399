"""A tiny pattern language for writing many sentences at once.

`{a|b|c}` picks one alternative (they nest, and may be empty). `<animal>` puts in a word of the table
"animal"; the same slot gives the same word again in one expansion, `<animal2>` is a second word of that
table, `<a:animal>` adds "a" or "an", and `<Animal>` (or `<A:animal>`) starts it with a capital letter. A
backslash before a brace keeps the brace. This module knows nothing about dialogues or about which tables
exist.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias, TypeVar

T = TypeVar("T")

VOWEL_SOUNDS = ("a", "e", "i", "o", "u")
NOT_A_VOWEL_SOUND = ("uni", "use", "eu", "one", "once", "u-")
SILENT_H = ("hour", "honest", "honour", "heir")

_SLOT = re.compile(r"<(a:|A:)?([A-Za-z_]+)(\d*)>")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options`, uniformly. Faster than `rng.choice`, which the generator calls millions of times."""
    return options[int(rng.random() * len(options))]


def with_article(noun: str) -> str:
    """`noun` with "a" or "an" before it."""
    low = noun.lower()
    vowel = (low.startswith(VOWEL_SOUNDS) and not low.startswith(NOT_A_VOWEL_SOUND)) or low.startswith(
        SILENT_H
    )
    return f"{'an' if vowel else 'a'} {noun}"


def capital(text: str) -> str:
    """`text` with its first character in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Slot:
    """One `<…>`: the table it draws from, the name its value is remembered under, and how the value is
    written.
    """

    table: str
    name: str
    article: bool
    capital: bool


@dataclass(frozen=True)
class Choice:
    """One `{…|…}`: each alternative is a sequence of parts."""

    options: tuple["Parts", ...]


Part: TypeAlias = "str | Slot | Choice"
Parts: TypeAlias = tuple[Part, ...]
Tables: TypeAlias = Mapping[str, Sequence[str]]


class PatternError(ValueError):
    """A pattern with unbalanced braces, or a slot that no table fills."""


def _literal(text: str) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in _SLOT.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        article, word, digits = match.groups()
        table = word[0].lower() + word[1:]
        parts.append(Slot(table, table + digits, bool(article), word[0].isupper() or article == "A:"))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return parts


def _parse(source: str, at: int, depth: int) -> tuple[list[Parts], int]:
    """Read alternatives from `at` up to the closing brace (or the end at depth 0); return them and the
    next index.
    """
    options: list[Parts] = []
    parts: list[Part] = []
    text = ""
    while at < len(source):
        char = source[at]
        if char == "\\" and source[at + 1 : at + 2] in ("{", "}", "|"):
            text += source[at + 1]
            at += 2
            continue
        if char == "{":
            parts.extend(_literal(text))
            text = ""
            inner, at = _parse(source, at + 1, depth + 1)
            parts.append(Choice(tuple(inner)))
            continue
        if depth and char in "|}":
            parts.extend(_literal(text))
            options.append(tuple(parts))
            parts, text = [], ""
            if char == "}":
                return options, at + 1
        else:
            text += char
        at += 1
    if depth:
        raise PatternError(f"a brace is not closed in {source!r}")
    parts.extend(_literal(text))
    return [tuple(parts)], at


class Pattern:
    """A compiled pattern. Immutable; `expand` is the only thing to call."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._parts = _parse(source, 0, 0)[0][0]

    def expand(self, rng: Random, tables: Tables, slots: dict[str, str] | None = None) -> str:
        """One random sentence. `slots` fixes slot values beforehand and receives the ones drawn here."""
        out: list[str] = []
        _expand(self._parts, rng, tables, {} if slots is None else slots, out)
        return "".join(out)


def _expand(parts: Parts, rng: Random, tables: Tables, slots: dict[str, str], out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, Choice):
            _expand(pick(rng, part.options), rng, tables, slots, out)
        else:
            out.append(_fill(part, rng, tables, slots))


def _fill(slot: Slot, rng: Random, tables: Tables, slots: dict[str, str]) -> str:
    value = slots.get(slot.name)
    if value is None:
        words = tables.get(slot.table)
        if not words:
            raise PatternError(f"no table fills <{slot.name}>")
        value = pick(rng, words)
        if len(words) > 1 and slot.name != slot.table:  # <animal2> differs from <animal>
            while value == slots.get(slot.table):
                value = pick(rng, words)
        slots[slot.name] = value
    if slot.article:
        value = with_article(value)
    return capital(value) if slot.capital else value
