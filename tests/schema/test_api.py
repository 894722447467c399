"""REST bodies in OpenAI's shapes, one promise at a time."""

import json
from typing import Any

import msgspec
import pytest

from schema.api import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionRequest,
    ChatDelta,
    CompletionRequest,
    ModelEntry,
    ModelList,
    error_body,
)
from schema.api.chat import EarlierReply
from schema.errors import (
    ContextTooLong,
    CorollaError,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    Unauthorized,
    all_errors,
)
from schema.generation import GenerationRequest, Message, Sampling, Stopping, Usage
from schema.limits import MAX_MODEL_NAME_CHARS, MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS


def decode_chat(**fields: Any) -> ChatCompletionRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    return msgspec.json.decode(json.dumps(body), type=ChatCompletionRequest)


def decode_text(**fields: Any) -> CompletionRequest:
    return msgspec.json.decode(json.dumps({"model": "m", "prompt": "x"} | fields), type=CompletionRequest)


def chat(**fields: Any) -> GenerationRequest:
    (only,) = decode_chat(**fields).to_generations()
    return only


def text(**fields: Any) -> GenerationRequest:
    (only,) = decode_text(**fields).to_generations()
    return only


# ---- what is asked for --------------------------------------------------------------------------


def test_smallest_chat() -> None:
    assert chat() == GenerationRequest(model="m", messages=[Message("user", "x")])


def test_smallest_completion_has_the_default_length() -> None:
    assert text() == GenerationRequest(model="m", prompt="x", stopping=Stopping(max_tokens=16))


def test_prompt_may_be_token_ids() -> None:
    assert text(prompt=[1, 2]).prompt == [1, 2]


@pytest.mark.parametrize("prompt", [[-1], [2**31], [[-1]], [[["a"]]], [], None, 5], ids=str)
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="prompt"):
        decode_text(prompt=prompt)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_role_is_kept(role: str) -> None:
    assert chat(messages=[{"role": role, "content": "x"}]).messages == [Message(role, "x")]  # type: ignore[arg-type]


def test_developer_is_the_system() -> None:
    assert chat(messages=[{"role": "developer", "content": "x"}]).messages == [Message("system", "x")]


@pytest.mark.parametrize("role", ["function", "operator"])
def test_other_roles_are_refused(role: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="role"):
        decode_chat(messages=[{"role": role, "content": "x"}])


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages == [Message("user", "ab")]


def test_image_parts_are_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://picture.example"}}
    with pytest.raises(msgspec.ValidationError):
        decode_chat(messages=[{"role": "user", "content": [part]}])


def test_chat_without_messages_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="messages"):
        decode_chat(messages=[])


def test_our_own_reply_can_be_sent_back_as_history() -> None:
    reply = msgspec.to_builtins(AssistantMessage(content="hi"))
    assert chat(messages=[reply]).messages == [Message("assistant", "hi")]


SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": -1.0,
    "frequency_penalty": 2.0,
    "seed": -5,
    "logit_bias": {"5": -100, "7": 0.5},
}


def test_sampling_fields_are_passed_on() -> None:
    given: dict[str, Any] = SAMPLING | {"logit_bias": {5: -100, 7: 0.5}}
    assert chat(**SAMPLING).sampling == Sampling(**given)


def test_every_sampling_field_can_be_set() -> None:
    assert set(SAMPLING) == {field.name for field in msgspec.structs.fields(Sampling)}


@pytest.mark.parametrize("name", SAMPLING)
def test_null_is_the_default(name: str) -> None:
    assert chat(**{name: None}).sampling == Sampling()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.01),
        ("temperature", -0.01),
        ("top_p", 1.01),
        ("min_p", -0.01),
        ("top_k", -1),
        ("top_k", 2**31),
        ("repetition_penalty", 0),
        ("repetition_penalty", 10.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("seed", 2**63),
        ("max_tokens", 0),
        ("max_tokens", 2**31),
        ("max_completion_tokens", 0),
        ("model", ""),
        ("model", "m" * (MAX_MODEL_NAME_CHARS + 1)),
    ],
)
def test_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=name):
        decode_chat(**{name: value})


@pytest.mark.parametrize(("asked", "given"), [(None, []), ("a", ["a"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_forms_of_stop(asked: Any, given: list[str]) -> None:
    assert chat(stop=asked).stopping.stop == given


def test_stop_strings_at_the_limit_are_taken() -> None:
    stops = ["s" * MAX_STOP_CHARS] * MAX_STOP_STRINGS
    assert chat(stop=stops).stopping.stop == stops


@pytest.mark.parametrize(
    "stop",
    ["", [""], "s" * (MAX_STOP_CHARS + 1), ["s"] * (MAX_STOP_STRINGS + 1)],
    ids=lambda stop: str(len(stop)),
)
def test_other_stop_strings_are_refused_by_name(stop: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(stop=stop)
    assert caught.value.param == "stop"


@pytest.mark.parametrize(("asked", "given"), [(None, []), ([], []), ([0, 7], [0, 7])])
def test_forms_of_stop_token_ids(asked: Any, given: list[int]) -> None:
    assert chat(stop_token_ids=asked).stopping.stop_token_ids == given
    assert text(stop_token_ids=asked).stopping.stop_token_ids == given


def test_stop_token_ids_at_the_limit_are_taken() -> None:
    ids = [2**31 - 1] * MAX_STOP_TOKEN_IDS
    assert chat(stop_token_ids=ids).stopping.stop_token_ids == ids


@pytest.mark.parametrize(
    "ids", [[-1], [2**31], ["2"], [1.5], 2, [0] * (MAX_STOP_TOKEN_IDS + 1)], ids=lambda ids: str(ids)[:8]
)
def test_other_stop_token_ids_are_refused_by_name(ids: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="stop_token_ids"):
        decode_chat(stop_token_ids=ids)
    with pytest.raises(msgspec.ValidationError, match="stop_token_ids"):
        decode_text(stop_token_ids=ids)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 4, "max_completion_tokens": 4}, 4),
    ],
    ids=str,
)
def test_length_of_a_chats_reply(fields: dict[str, int], expected: int | None) -> None:
    assert chat(**fields).stopping.max_tokens == expected


def test_stream_options() -> None:
    options = decode_chat(stream=True, stream_options={"include_usage": True}).stream_options
    assert options is not None
    assert options.include_usage


# ---- what is not served --------------------------------------------------------------------------

HARMLESS = {
    "functions": [[]],
    "function_call": [],
    "modalities": [["text"]],
    "audio": [],
    "moderation": [],
    "prediction": [],
    "prompt_cache_options": [{}],
    "prompt_cache_retention": ["in_memory"],
    "reasoning_effort": [],
    "verbosity": ["medium"],
    "web_search_options": [],
    "service_tier": ["auto", "default"],
    "store": [False],
}
ASKING = {
    "functions": [[{"name": "f"}]],
    "function_call": ["auto"],
    "modalities": [["text", "audio"]],
    "audio": [{"voice": "alloy"}],
    "moderation": [{"model": "m"}],
    "prediction": [{"type": "content", "content": ""}],
    "prompt_cache_options": [{"prewarm": True}],
    "prompt_cache_retention": ["24h"],
    "reasoning_effort": ["low"],
    "verbosity": ["low"],
    "web_search_options": [{"search_context_size": "low"}],
    "service_tier": ["flex"],
    "store": [True],
}
TEXT_HARMLESS = {"suffix": []}
TEXT_ASKING = {"suffix": ["s"]}
MESSAGE_ASKING = {
    "refusal": ["no"],
    "annotations": [[{"type": "url_citation"}]],
    "audio": [{"id": "a"}],
    "function_call": [{"name": "f"}],
}
NOT_USED = {
    "n": 1,
    "user": "someone",
    "metadata": {"a": "b"},
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "response_format": {"type": "text"},
    "stream": False,
}


def pairs(fields: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in fields.items() for value in values]


def unsupported(kind: Any) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET}


def test_every_unsupported_field_is_tried() -> None:
    assert set(HARMLESS) == set(ASKING) == unsupported(ChatCompletionRequest)
    assert set(TEXT_HARMLESS) == set(TEXT_ASKING) == unsupported(CompletionRequest)
    assert set(MESSAGE_ASKING) == unsupported(EarlierReply)


@pytest.mark.parametrize(("name", "value"), pairs(HARMLESS) + [(name, None) for name in HARMLESS])
def test_field_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert chat(**{name: value}) == chat()


@pytest.mark.parametrize(("name", "value"), pairs(ASKING))
def test_field_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' is not supported") as caught:
        chat(**{name: value})
    assert caught.value.param == name


@pytest.mark.parametrize(("name", "value"), pairs(TEXT_HARMLESS) + [(name, None) for name in TEXT_HARMLESS])
def test_completions_field_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert text(**{name: value}) == text()


@pytest.mark.parametrize(("name", "value"), pairs(TEXT_ASKING))
def test_completions_field_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' is not supported"):
        text(**{name: value})


@pytest.mark.parametrize(("name", "value"), pairs(MESSAGE_ASKING))
def test_messages_field_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' is not supported"):
        chat(messages=[{"role": "assistant", "content": "x", name: value}])


def test_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="temprature"):
        decode_chat(temprature=1)


@pytest.mark.parametrize("name", NOT_USED)
def test_what_asks_for_nothing_is_accepted_and_not_used(name: str) -> None:
    assert chat(**{name: NOT_USED[name]}) == chat() == chat(**{name: None})


# ---- answers ------------------------------------------------------------------------------------


def test_chat_completion() -> None:
    choice = ChatChoice(index=0, message=AssistantMessage(content="hi"), finish_reason="stop")
    answer = ChatCompletion(id="c", created=1, model="m", choices=[choice], usage=Usage(1, 2, 3))
    assert msgspec.to_builtins(answer) == {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "system_fingerprint": None,
    }


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (ChatDelta(role="assistant", content=""), {"role": "assistant", "content": ""}),
        (ChatDelta(content="hi"), {"content": "hi"}),
        (ChatDelta(), {}),
    ],
    ids=str,
)
def test_delta_holds_only_what_is_new(delta: ChatDelta, expected: dict[str, str]) -> None:
    chunk = ChatChunk(id="c", created=1, model="m", choices=[ChatChunkChoice(index=0, delta=delta)])
    assert msgspec.to_builtins(chunk)["choices"][0]["delta"] == expected


def test_model_list() -> None:
    assert msgspec.to_builtins(ModelList(data=[ModelEntry(id="m", created=1)])) == {
        "object": "list",
        "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "corolla"}],
    }


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (InvalidRequest("w"), "invalid_request_error", "invalid_request"),
        (ContextTooLong("w"), "invalid_request_error", "context_length_exceeded"),
        (NotFound("w"), "invalid_request_error", "not_found"),
        (Unauthorized("w"), "authentication_error", "unauthorized"),
        (Forbidden("w"), "permission_error", "forbidden"),
        (ModelUnavailable("w"), "server_error", "model_unavailable"),
        (GenerationFailed("w"), "server_error", "generation_failed"),
        (CorollaError("w"), "server_error", "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_error_has_openais_shape(error: CorollaError, kind: str, code: str) -> None:
    body = {"error": {"message": "w", "type": kind, "param": None, "code": code}}
    assert msgspec.to_builtins(error_body(error)) == body


def test_error_names_the_field_at_fault() -> None:
    assert error_body(InvalidRequest("w", param="stop")).error.param == "stop"


@pytest.mark.parametrize("error", all_errors().values(), ids=all_errors())
def test_every_error_has_a_body(error: type[CorollaError]) -> None:
    assert error_body(error("words")).error.message == "words"
