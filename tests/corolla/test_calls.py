"""Calls in a reply's text are found in every form, however it is cut; all else stays text."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from corolla import calls
from corolla.calls import CallReader, forced_reader, form_of
from schema.messages import CallMade

NAMES = ["weather", "now"]
HERMES = "{% if tools %}<tools>…</tools> … <tool_call></tool_call>{% endif %}"
MISTRAL = "{{ '[AVAILABLE_TOOLS]' }} … {{ '[TOOL_CALLS]' }}"
LLAMA = '{"name": function name, "parameters": dictionary}'


def hermes() -> CallReader:
    return form_of(HERMES).reader(NAMES)


def mistral() -> CallReader:
    return form_of(MISTRAL).reader(NAMES)


def llama() -> CallReader:
    return form_of(LLAMA).reader(NAMES)


def forced() -> CallReader:
    return forced_reader(NAMES)


def read(reader: CallReader, pieces: list[str]) -> tuple[str, list[CallMade]]:
    said, made = "", list[CallMade]()
    for piece in pieces:
        text, calls = reader.push(piece)
        said, made = said + text, made + calls
    text, calls = reader.flush()
    return said + text, made + calls


KOELN, NOW = (
    CallMade(index=0, name="weather", arguments='{"city": "Köln"}'),
    '{"name": "now", "arguments": {}}',
)
CALL = '{"name": "weather", "arguments": {"city": "Köln"}}'
SECOND = CallMade(index=1, name="now", arguments="{}")
Case = tuple[Callable[[], CallReader], str, str, list[CallMade]]
CASES: dict[str, Case] = {
    "hermes, one": (hermes, f"<tool_call>\n{CALL}\n</tool_call>", "", [KOELN]),
    "hermes, two": (
        hermes,
        f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>",
        "",
        [KOELN, SECOND],
    ),
    "hermes, behind text": (hermes, f"Let me see.\n<tool_call>{CALL}</tool_call>", "Let me see.\n", [KOELN]),
    "hermes, before text": (hermes, f"<tool_call>{CALL}</tool_call> Done.", " Done.", [KOELN]),
    "hermes, before lines": (
        hermes,
        f"<tool_call>{CALL}</tool_call>\n\nIt is  so.\n\n Is it not? \n",
        "\n\nIt is  so.\n\n Is it not? \n",
        [KOELN],
    ),
    "hermes, text between": (
        hermes,
        f"<tool_call>{CALL}</tool_call> \n and \n<tool_call>{NOW}</tool_call>\n ",
        " \n and \n",
        [KOELN, SECOND],
    ),
    "hermes, behind it no call": (
        hermes,
        f"<tool_call>{CALL}</tool_call>\n<tool_call>now()</tool_call> \n",
        "\n<tool_call>now()</tool_call> \n",
        [KOELN],
    ),
    "hermes, behind it one cut off": (
        hermes,
        f"<tool_call>{CALL}</tool_call>\n<tool_call>now",
        "\n<tool_call>now",
        [KOELN],
    ),
    "hermes, not closed": (hermes, f"<tool_call>\n{CALL}\n", "", [KOELN]),
    "hermes, no JSON": (hermes, "<tool_call>now()</tool_call>", "<tool_call>now()</tool_call>", []),
    "hermes, cut off": (hermes, '<tool_call>{"name": "n', '<tool_call>{"name": "n', []),
    "hermes, text alone": (hermes, "5 < 6 <tool> and <tool_cal", "5 < 6 <tool> and <tool_cal", []),
    "hermes, a function that nobody has": (
        hermes,
        '<tool_call>{"name": "x", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "x", "arguments": {}}</tool_call>',
        [],
    ),
    "mistral, a list": (mistral, f"[TOOL_CALLS] [{CALL}, {NOW}]", "", [KOELN, SECOND]),
    "mistral, behind text": (mistral, f"Well. [TOOL_CALLS][{CALL}]", "Well. ", [KOELN]),
    "mistral, names": (
        mistral,
        '[TOOL_CALLS]weather[ARGS]{"city": "Köln"}[TOOL_CALLS]now[ARGS]{}',
        "",
        [KOELN, SECOND],
    ),
    "mistral, text alone": (mistral, "[TOOL] or [TOOL_CAL", "[TOOL] or [TOOL_CAL", []),
    "mistral, no call": (mistral, "[TOOL_CALLS] [1] or so", "[TOOL_CALLS] [1] or so", []),
    "mistral, a long story": (mistral, "[TOOL_CALLS] " + "so " * 90, "[TOOL_CALLS] " + "so " * 90, []),
    "mistral, cut off": (mistral, '[TOOL_CALLS][{"name": "n', '[TOOL_CALLS][{"name": "n', []),
    "llama, one": (llama, CALL.replace("arguments", "parameters"), "", [KOELN]),
    "llama, with its tag": (llama, f"<|python_tag|>{CALL}", "", [KOELN]),
    "llama, two": (llama, f"{CALL}; {NOW}", "", [KOELN, SECOND]),
    "llama, a list": (llama, f"[{CALL}, {NOW}]", "", [KOELN, SECOND]),
    "llama, text alone": (llama, " A rose {is} a rose.", " A rose {is} a rose.", []),
    "llama, other JSON": (llama, '{"rose": [1, 2]} indeed', '{"rose": [1, 2]} indeed', []),
    "llama, a list of others": (llama, "[1, 2]", "[1, 2]", []),
    "llama, before text": (llama, f"{CALL}\n\nThat is all.", "\n\nThat is all.", [KOELN]),
    "llama, a list before text": (llama, f"[{CALL}] That is all.", " That is all.", [KOELN]),
    "llama, a list before another call": (llama, f"[{CALL}] {NOW}", "", [KOELN, SECOND]),
    "llama, spaces alone": (llama, " \n", " \n", []),
    "llama, a set": (llama, "{ x} is a set", "{ x} is a set", []),
    "llama, nothing in it": (llama, "{} is empty", "{} is empty", []),
    "llama, brackets in strings": (
        llama,
        '{"name": "now", "parameters": {"a": "}]\\"{[", "b\\\\": []}}',
        "",
        [CallMade(index=0, name="now", arguments='{"a": "}]\\"{[", "b\\\\": []}')],
    ),
    "llama, cut off": (llama, '{"name": "weather", "par', '{"name": "weather", "par', []),
    "llama, nothing": (llama, "", "", []),
    "forced, one": (forced, f"[{CALL}]", "", [KOELN]),
    "forced, two": (forced, f"[ {CALL} ,\n {NOW.replace(' ', '')}\n]", "", [KOELN, SECOND]),
    "forced, cut off in the second": (forced, f'[{CALL}, {{"name"', ', {"name"', [KOELN]),
}
any_case = pytest.mark.parametrize(("make", "text", "said", "made"), CASES.values(), ids=CASES)


@any_case
@pytest.mark.parametrize("length", [1, 2, 7, 1000])
def test_calls_and_text_are_told_apart_however_they_are_cut(
    make: Callable[[], CallReader], text: str, said: str, made: list[CallMade], length: int
) -> None:
    pieces = [text[start : start + length] for start in range(0, len(text), length)]
    found_text, found = read(make(), pieces)
    assert found == made
    assert found_text == said


def test_text_is_not_held_back_for_longer_than_it_may_be_a_mark() -> None:
    reader = hermes()
    assert [reader.push(piece)[0] for piece in ("Hello <", "b> and <tool_", "box>")] == [
        "Hello ",
        "<b> and ",
        "<tool_box>",
    ]


def test_what_begins_as_a_set_is_told_as_it_comes() -> None:
    reader = llama()
    assert [reader.push(piece)[0] for piece in ("{", " ", "x", "} is", " a set")] == [
        "",
        "",
        "{ x",
        "} is",
        " a set",
    ]


@pytest.mark.parametrize("make", [hermes, mistral, llama, forced])
def test_a_long_call_is_looked_at_once(
    make: Callable[[], CallReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its pieces have brackets."""
    parsed = 0
    parse = calls.parsed_value

    def counting(text: str, start: int) -> Any:
        nonlocal parsed
        parsed += 1
        return parse(text, start)

    monkeypatch.setattr(calls, "parsed_value", counting)
    call = '{"name": "now", "arguments": {"a": [' + ", ".join(["{}"] * 500) + "]}}"
    text = {hermes: f"<tool_call>{call}</tool_call>", mistral: f"[TOOL_CALLS][{call}]"}.get(make, f"[{call}]")
    _, made = read(make(), [text[at : at + 2] for at in range(0, len(text), 2)])
    assert [one.name for one in made] == ["now"]
    assert parsed == 1


def test_a_call_is_told_when_it_is_complete() -> None:
    reader = forced()
    pieces = ['[{"name":"now","arguments":{', "}}", ",", '{"name":"now","arguments":{"a":{}', "}}", "]"]
    assert [len(reader.push(piece)[1]) for piece in pieces] == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('"not JSON"', '"not JSON"'),
        ("null", "null"),
        ('{"ö": "😀"}', '{"ö": "😀"}'),
        ('" {\\"a\\": 1.5e3} "', ' {"a": 1.5e3} '),
        ('"{\\"a\\": NaN}"', '"{\\"a\\": NaN}"'),
        ('"[1e999]"', '"[1e999]"'),
    ],
)
def test_arguments_are_json(arguments: str, told: str) -> None:
    _, made = read(llama(), [f'{{"name": "now", "arguments": {arguments}}}'])
    assert [one.arguments for one in made] == [told]
    json.loads(told)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"\\ud800"'])
def test_what_no_message_can_tell_is_no_call(number: str) -> None:
    text = f'{{"name": "now", "arguments": {{"a": [{number}]}}}}'
    assert read(llama(), [text]) == (text, [])


@pytest.mark.parametrize("value", ["3", "[]", '["now"]', "{}", '{"name": 3}', '{"name": "now"}'])
def test_what_is_no_call_is_text(value: str) -> None:
    text = f"<tool_call>{value}</tool_call>"
    assert read(hermes(), [text]) == (text, [])


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000 + "}"])
@pytest.mark.parametrize("make", [hermes, mistral, llama, forced])
def test_what_is_nested_too_deep_is_text(make: Callable[[], CallReader], deep: str) -> None:
    text, made = read(make(), [deep])
    assert made == []
    assert text in (deep, deep[1:])
