"""A schema that would take long to compile, or to follow, is refused before anything is made of it."""

from typing import Any

import pytest

from corolla.schema_bounds import (
    MAX_LEVELS,
    MAX_MULTIPLE,
    MAX_PROPERTIES,
    MAX_SCHEMA_BYTES,
    MAX_TEXT_CHARS,
    check_bounds,
    check_size,
    pattern_length,
)
from schema.errors import InvalidRequest


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def multiples(*numbers: float) -> dict[str, Any]:
    return {"anyOf": [{"type": "number", "multipleOf": number} for number in numbers]}


def named(count: int) -> dict[str, Any]:
    return {str(index): {} for index in range(count)}


FITTING: dict[str, Any] = {
    "none": None,
    "any": {},
    "money, seconds and percent": multiples(0.01, 3600, 5, 2.50, 0.001),
    "many of the same": multiples(*[MAX_MULTIPLE] * 50),
    "what is no number": {"multipleOf": {"type": "string"}, "enum": [{"multipleOf": True}]},
    "as deep as may be": deep(MAX_LEVELS),
    "as many properties as may be": {"properties": named(MAX_PROPERTIES), "required": ["0", "1", {}]},
    "a long text": {"const": "x" * MAX_TEXT_CHARS},
    "a pattern that counts": {"pattern": r"^[a-z]{1,5000}-(\d{2}){100}$"},
}
TOO_MUCH: dict[str, tuple[Any, str]] = {
    "one multiple": (multiples(199_999), "multipleOf"),
    "multiples that meet": ({"allOf": [multiples(97), multiples(101), {"multipleOf": 103}]}, "multipleOf"),
    "a fraction with many digits": (multiples(0.99991), "multipleOf"),
    "a huge one": (multiples(1e308), "multipleOf"),
    "levels": (deep(MAX_LEVELS + 1), f"{MAX_LEVELS} levels"),
    "endless levels": (deep(100_000), f"{MAX_LEVELS} levels"),
    "properties": ({"properties": named(MAX_PROPERTIES + 1)}, "properties"),
    "properties by requirement": ({"required": list(named(MAX_PROPERTIES + 1))}, "properties"),
    "properties of several": ([{"properties": named(MAX_PROPERTIES // 2 + 1)}] * 2, "properties"),
    "a text": ({"enum": ["x" * (MAX_TEXT_CHARS + 1)]}, "text"),
    "a name": ({"properties": {"x" * (MAX_TEXT_CHARS + 1): {}}}, "text"),
    "a count": ({"pattern": "x{10001}"}, "pattern"),
    "counts in each other": ({"pattern": "^((ab{100}){10}){10}$"}, "pattern"),
    "a property's pattern": ({"patternProperties": {"(x{500}){500}": {}}}, "pattern"),
}


@pytest.mark.parametrize("schema", FITTING.values(), ids=FITTING)
def test_what_is_usual_is_within_the_bounds(schema: Any) -> None:
    check_bounds(schema, "tools")


@pytest.mark.parametrize(("schema", "said"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_too_much_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{said}.* Use a simpler one") as caught:
        check_bounds(schema, "tools")
    assert caught.value.param == "tools"


def test_a_large_schema_is_refused_with_the_numbers() -> None:
    check_size(b"x" * MAX_SCHEMA_BYTES, "tools")
    with pytest.raises(InvalidRequest, match=f"{MAX_SCHEMA_BYTES + 1} bytes"):
        check_size(b"x" * (MAX_SCHEMA_BYTES + 1), "tools")


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("", 0),
        ("abc", 3),
        ("a{3}", 3),
        ("a{3,}b{1,4}", 7),
        ("(ab{9}){100}", 1000),
        (r"[a-z\]]{5}\d{2}\(", 8),
        ("a)b{2}", 4),
        ("{2}{a}", 3),
        ("(((a{9999}){9999}){9999}", 9999**3),
        (r"a[b\]", 2),
        ("a[b\\", 3),
        ("[" * 1000, 1),
    ],
)
def test_what_a_pattern_counts_is_counted(pattern: str, length: int) -> None:
    assert pattern_length(pattern) == length
