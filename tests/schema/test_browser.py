"""A page's messages, one promise at a time. That each type round-trips is in tests/vectors/."""

import json
from typing import Any

import pytest

from schema.browser import Chat, Stop, decode_from_page
from schema.errors import MalformedMessage, TooLarge
from schema.limits import MAX_CONTROL_BYTES, MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS


def chat(**changed: Any) -> str:
    fields = {"type": "chat", "id": "1", "model": "m", "messages": [{"role": "user", "content": "x"}]}
    return json.dumps(fields | changed)


def decode_chat(**changed: Any) -> Chat:
    message = decode_from_page(chat(**changed))
    assert isinstance(message, Chat)
    return message


def test_chat_needs_only_its_messages() -> None:
    assert decode_chat().sampling.temperature == 1.0


def test_stop() -> None:
    assert decode_from_page('{"type":"stop","id":"1"}') == Stop(id="1")


def test_id_at_the_limit_is_taken() -> None:
    assert decode_chat(id="i" * 64).id == "i" * 64


@pytest.mark.parametrize(
    "changed",
    [
        {"id": ""},
        {"id": "i" * 65},
        {"messages": []},
        {"messages": [{"role": "function", "content": "x"}]},
        {"model": ""},
        {"sampling": {"temperature": 2.1}},
        {"sampling": {"top_p": -0.1}},
        {"sampling": {"repetition_penalty": 0}},
        {"sampling": {"seed": 2**63}},
        {"stopping": {"max_tokens": -1}},
        {"stopping": {"max_tokens": 2**31}},
        {"stopping": {"stop": [""]}},
        {"stopping": {"stop": ["s" * (MAX_STOP_CHARS + 1)]}},
        {"stopping": {"stop": ["s"] * (MAX_STOP_STRINGS + 1)}},
        {"stopping": {"stop_token_ids": [-1]}},
        {"stopping": {"stop_token_ids": [2**31]}},
        {"stopping": {"stop_token_ids": [0] * (MAX_STOP_TOKEN_IDS + 1)}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_value_out_of_range_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        decode_from_page(chat(**changed))


def test_stop_strings_at_the_limit_are_taken() -> None:
    stops = ["s" * MAX_STOP_CHARS] * MAX_STOP_STRINGS
    assert decode_chat(stopping={"stop": stops}).stopping.stop == stops


def test_peers_message_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="not a message that a page may send"):
        decode_from_page('{"type":"draining"}')


def test_message_at_the_limit_is_taken() -> None:
    stop = '{"type":"stop","id":"1"}'
    assert decode_from_page(stop.ljust(MAX_CONTROL_BYTES)) == Stop(id="1")


def test_longer_message_is_refused() -> None:
    with pytest.raises(TooLarge):
        decode_from_page(" " * (MAX_CONTROL_BYTES + 1))
