"""How much a JSON Schema may ask for, so that making its grammar is sure to end soon. Pure.

What costs more than its text says was measured (docs/decisions.md): an automaton for the multiples of n has n
states, those of several numbers that meet in one place as many as their common multiple; time grows with the
square of an object's properties; and before a text of which every letter is certain, each token of it costs
time for all of the text. Does not know whether a schema can be honoured.
"""

import re
from decimal import Decimal
from math import lcm
from typing import Any

from schema.errors import InvalidRequest

MAX_SCHEMA_BYTES = 256 * 1024
"""Of one request's format, or of all its functions, as JSON."""
MAX_LEVELS = 100
"""Objects and lists in each other. The library takes 128, some of which are for calls."""
MAX_PROPERTIES = 2000
"""Of all objects in it."""
MAX_MULTIPLE = 10_000
"""The least common multiple of every `multipleOf` in it, of which the decimal point and zeros at the end of a
fraction do not count: 0.01 is 1, 2.50 is 25. All that can be made of them by `allOf` divides it."""
MAX_TEXT_CHARS = 10_000
"""One text in it, and what a pattern says with all that it counts: `(ab{9}){100}` says 1000."""
_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])*+\]?|\{(\d{1,9})(?:,(\d{0,9}))?\}|.", re.DOTALL)
"""Of a pattern: an escape, a class, a count, or a letter. A class that does not end is all of the rest, so
that no letter is looked at again and again."""


def check_bounds(schema: Any, param: str) -> None:
    """Whether a schema, or a list of them, is within the bounds. `param`: the request's field with it.

    Raises InvalidRequest, which says what of it is too much.
    """
    properties, multiple = 0, 1
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, level = waiting.pop()
        if level > MAX_LEVELS and isinstance(value, dict | list):
            raise _too_much(f"it is more than {MAX_LEVELS} levels deep", param)
        if isinstance(value, str):
            _check_text(value, param)
        elif isinstance(value, list):
            waiting += [(part, level + 1) for part in value]
        elif isinstance(value, dict):
            waiting += [(part, level + 1) for part in (*value, *value.values())]
            properties += _properties(value)
            if properties > MAX_PROPERTIES:
                raise _too_much(f"its objects have more than {MAX_PROPERTIES} properties", param)
            multiple = lcm(multiple, _digits(value.get("multipleOf")))
            if multiple > MAX_MULTIPLE:
                raise _too_much(f"its multipleOf have no common multiple up to {MAX_MULTIPLE}", param)


def check_size(text: bytes, param: str) -> None:
    """As `check_bounds`, of a schema as JSON."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise _too_much(f"it has {len(text)} bytes, and may have {MAX_SCHEMA_BYTES}", param)


def _check_text(text: str, param: str) -> None:
    """A text of a schema, which may be a pattern."""
    if len(text) > MAX_TEXT_CHARS:
        raise _too_much(f"a text in it has more than {MAX_TEXT_CHARS} characters", param)
    if pattern_length(text) > MAX_TEXT_CHARS:
        raise _too_much(f"a pattern in it counts to more than {MAX_TEXT_CHARS} characters", param)


def pattern_length(pattern: str) -> int:
    """How many letters and classes a pattern says, as often as it counts them."""
    groups, last = [0], 0
    for part in _PART.finditer(pattern):
        if part[1] is not None:
            times = max(int(part[1]), int(part[2] or 0))
            groups[-1] += last * (times - 1)
            last *= times
        elif part[0] == "(":
            groups.append(0)
        else:
            last = groups.pop() if part[0] == ")" and len(groups) > 1 else 1
            groups[-1] += last
    return sum(groups)


def _properties(schema: dict[str, Any]) -> int:
    """How many an object of this schema may have by name."""
    required = schema.get("required")
    names = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set[str]()
    for key in ("properties", "patternProperties"):
        if isinstance(found := schema.get(key), dict):
            names.update(found)
    return len(names)


def _digits(number: Any) -> int:
    """The digits of a number as a whole number; 1 for what is none."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
        return 1
    if isinstance(number, int):
        return number
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    return int("".join(map(str, digits))) * 10 ** max(0, int(exponent))


def _too_much(cause: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"No reply can be held to this JSON Schema: {cause}. Use a simpler one.", param=param
    )
