"""Conversations, tools, formats and scores of chats: what becomes of them, and what is refused."""

import json
from typing import Any

import msgspec
import pytest

from schema.api.chat import ChatCompletionRequest
from schema.api.errors import not_understood
from schema.errors import InvalidRequest
from schema.generation import GenerationRequest, JsonFormat, Message, Tool, ToolCall, Tools
from schema.limits import MAX_BIASES, MAX_TOOLS

USER = {"role": "user", "content": "x"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
OTHER = {"type": "function", "function": {"name": "g"}}
F, G = Tool("f", None, {"type": "object"}), Tool("g")
SCHEMA = {"type": "object"}


def read(**fields: Any) -> list[GenerationRequest]:
    body = {"model": "m", "messages": [USER]} | fields
    try:
        return msgspec.json.decode(json.dumps(body), type=ChatCompletionRequest).to_generations()
    except msgspec.ValidationError as error:
        raise not_understood(error) from error


def chat(**fields: Any) -> GenerationRequest:
    (only,) = read(**fields)
    return only


def refused(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value.param


# ---- conversations ----


def test_calls_and_their_results_are_kept_with_the_functions_name() -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "sun"}]}
    spoken = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert chat(messages=[USER, spoken, result]).messages == [
        Message("user", "x"),
        Message("assistant", "", [ToolCall("c", "f", "{}")]),
        Message("tool", "sun", tool_call_id="c", name="f"),
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": None}],
        [{"role": "assistant"}],
        [{"role": "assistant", "tool_calls": []}],
        [{"role": "tool", "tool_call_id": "c", "content": "x"}],
        [{"role": "tool", "tool_call_id": "c", "content": "x"}, {"role": "assistant", "tool_calls": [CALL]}],
        [{"role": "tool", "content": "x"}],
        [{"role": "assistant", "tool_calls": [CALL | {"type": "custom"}]}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "x", "made_up": 1}],
        [{"role": "assistant", "content": "x", "audio": {"id": "a"}}],
        [{"role": "function", "name": "f", "content": "x"}],
        [],
    ],
    ids=str,
)
def test_conversations_that_make_no_sense_are_refused_by_name(messages: Any) -> None:
    assert refused(messages=messages) in ("messages", "made_up")


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_who_speaks_is_passed_on(role: str) -> None:
    messages = chat(messages=[{"role": role, "content": "x", "name": "ada"}]).messages
    assert messages
    assert [message.name for message in messages] == ["ada"]


# ---- tools ----


@pytest.mark.parametrize(
    ("fields", "tools"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"tools": [TOOL]}, Tools([F])),
        ({"tools": [TOOL], "tool_choice": None}, Tools([F])),
        ({"tools": [TOOL], "tool_choice": "auto"}, Tools([F])),
        ({"tools": [TOOL], "tool_choice": "none"}, None),
        ({"tools": [TOOL, OTHER], "tool_choice": "required"}, Tools([F, G], must_call=True)),
        (
            {"tools": [TOOL, OTHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            Tools([G], must_call=True),
        ),
        ({"tools": [TOOL], "parallel_tool_calls": False}, Tools([F], is_parallel=False)),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, None),
    ],
    ids=str,
)
def test_forms_of_tools(fields: dict[str, Any], tools: Tools | None) -> None:
    assert chat(**fields).tools == tools


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(MAX_TOOLS + 1)]},
            "tools",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [], "tool_choice": "auto"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_tools_that_make_no_sense_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


# ---- formats ----


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonFormat()),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, JsonFormat(SCHEMA)),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
            JsonFormat(SCHEMA),
        ),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, JsonFormat()),
    ],
    ids=str,
)
def test_forms_of_format(asked: Any, given: JsonFormat | None) -> None:
    assert chat(response_format=asked).format == given


@pytest.mark.parametrize(
    "asked",
    [{"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}, 5],
    ids=str,
)
def test_other_formats_are_refused_by_name(asked: Any) -> None:
    assert refused(response_format=asked) == "response_format"


def test_a_reply_that_must_be_calls_has_no_format() -> None:
    fields = {"tools": [TOOL], "response_format": {"type": "json_object"}}
    assert refused(**fields, tool_choice="required") == "response_format"
    assert chat(**fields).format == JsonFormat()


# ---- how long ----


def test_two_lengths_are_refused() -> None:
    assert refused(max_tokens=5, max_completion_tokens=6) == "max_tokens"


# ---- how many, and how likely ----


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": None}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
    ids=str,
)
def test_forms_of_logprobs(fields: dict[str, Any], given: int | None) -> None:
    assert chat(**fields).logprobs == given


@pytest.mark.parametrize(
    "fields",
    [{"top_logprobs": 1}, {"logprobs": False, "top_logprobs": 1}, {"logprobs": True, "top_logprobs": 21}],
)
def test_other_logprobs_are_refused_by_name(fields: dict[str, Any]) -> None:
    assert refused(**fields) == "top_logprobs"


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [(None, [None, None]), (5, [5, 6]), (2**63 - 1, [2**63 - 1, -(2**63)]), (-1, [-1, 0])],
)
def test_n_replies_have_seeds_of_their_own(seed: int | None, seeds: list[int | None]) -> None:
    assert [one.sampling.seed for one in read(n=2, seed=seed)] == seeds


@pytest.mark.parametrize(
    "bias",
    [
        {"x": 1},
        {"-1": 1},
        {"5": 101},
        {"5": -101},
        {str(2**31): 1},
        {str(n): 1 for n in range(MAX_BIASES + 1)},
    ],
    ids=lambda bias: str(bias)[:20],
)
def test_other_biases_are_refused_by_name(bias: Any) -> None:
    assert refused(logit_bias=bias) == "logit_bias"


def test_options_of_a_stream_are_for_streams() -> None:
    assert refused(stream_options={"include_usage": True}) == "stream_options"
    assert refused(stream=True, stream_options={"include_obfuscation": True}) == "include_obfuscation"
    assert chat(stream=True, stream_options={"include_obfuscation": False}) == chat()


@pytest.mark.parametrize("name", ["temperature", "n", "tools", "messages"])
def test_a_field_of_another_type_is_refused_by_name(name: str) -> None:
    assert refused(**{name: "nonsense"}) == name
