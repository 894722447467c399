"""How a reply is judged: one small class per kind of answer.

Pure text work; knows no model and no generator.

Every check is strict about what can be known: the exact number, the exact order, the exact letters. For free
text it asks for the phrases without which the answer would not be right. A reply that never ends, or that
repeats itself, fails in `evaluate.py` before a check is asked.
"""

import ast
import re
from dataclasses import dataclass
from typing import Protocol

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+[.)])\s+(.+?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


class Check(Protocol):
    """Anything that can say whether a reply is right."""

    def passes(self, reply: str) -> bool:
        """Whether `reply` answers the question."""
        ...


def numbers_in(text: str) -> list[str]:
    """All whole or decimal numbers in `text`, as written, in order."""
    return _NUMBER.findall(text.replace("\u2212", "-"))


@dataclass(frozen=True, slots=True)
class Says:
    """Every group must be met by one of its phrases (separated by "|"); case does not matter."""

    groups: tuple[str, ...]

    def passes(self, reply: str) -> bool:
        low = reply.lower()
        return all(any(phrase in low for phrase in group.split("|")) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Number:
    """The last number of the reply is `value`, and no other number appears than it and the `given` ones."""

    value: int
    given: tuple[int, ...] = ()

    def passes(self, reply: str) -> bool:
        found = numbers_in(reply)
        allowed = {str(n) for n in (self.value, *self.given)}
        return bool(found) and found[-1] == str(self.value) and all(n in allowed for n in found)


@dataclass(frozen=True, slots=True)
class Series:
    """The reply has exactly these numbers in this order, and no others."""

    values: tuple[int, ...]

    def passes(self, reply: str) -> bool:
        return numbers_in(reply) == [str(value) for value in self.values]


@dataclass(frozen=True, slots=True)
class Contains:
    """The reply has this exact text, capitals included, not glued to other letters."""

    text: str

    def passes(self, reply: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(self.text)}(?!\w)", reply) is not None


@dataclass(frozen=True, slots=True)
class Items:
    """The reply is a list of exactly `count` different entries, all of them from `allowed`."""

    count: int
    allowed: frozenset[str]

    def passes(self, reply: str) -> bool:
        items = [item.rstrip(".").lower() for item in _ITEM.findall(reply)]
        return len(items) == self.count == len(set(items)) and all(item in self.allowed for item in items)


@dataclass(frozen=True, slots=True)
class Tale:
    """A story or poem: long enough, about the subject, and not the same sentence twice."""

    subject: str
    words: int

    def passes(self, reply: str) -> bool:
        sentences = [part.strip() for part in re.split(r"[.!?]\s", reply) if part.strip()]
        fresh = len(sentences) == len(set(sentences))
        return fresh and len(reply.split()) >= self.words and self.subject.lower() in reply.lower()


@dataclass(frozen=True, slots=True)
class Code:
    """One fenced block in `language` that has all of `parts`; Python must also parse."""

    language: str
    parts: tuple[str, ...]

    def passes(self, reply: str) -> bool:
        blocks = _FENCE.findall(reply)
        if len(blocks) != 1 or blocks[0][0] != self.language:
            return False
        code = blocks[0][1]
        return all(part in code for part in self.parts) and (self.language != "python" or _parses(code))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
