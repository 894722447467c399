"""Any text is a message or a named error, on both sides, from a page and in a FAILURE frame."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import browser, messages
from schema.errors import CorollaError
from schema.limits import MAX_CONTROL_BYTES
from tests.schema.outcomes import peak_bytes, result_or_refusal
from tests.schema.strategies import JSON, mutations, structs

Decode = Callable[[Any], Any]

SIDES = pytest.mark.parametrize(
    ("decode", "union"),
    [
        pytest.param(messages.decode_from_peer, messages.FromPeer, id="peer"),
        pytest.param(messages.decode_from_relay, messages.FromRelay, id="relay"),
        pytest.param(messages.decode_failure, messages.Failure, id="failure"),
        pytest.param(browser.decode_from_page, browser.FromPage, id="page"),
    ],
)
TAGS = [
    kind.__struct_config__.tag
    for union in (messages.FromPeer, messages.FromRelay, browser.FromPage)
    for kind in union.__args__
]
TAGGED = st.builds(
    lambda tag, fields: json.dumps(fields | {"type": tag}).encode("utf-8", "surrogatepass"),
    st.sampled_from(TAGS),
    st.dictionaries(st.sampled_from(["request", "session", "model", "id", "messages", "start"]), JSON),
)


@SIDES
@given(data=st.data())
def test_round_trip(decode: Decode, union: Any, data: st.DataObject) -> None:
    message = data.draw(structs(union))
    assert decode(msgspec.json.encode(message)) == message


@SIDES
@given(raw=st.binary(max_size=200) | TAGGED | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_are_refused(decode: Decode, union: Any, raw: bytes) -> None:
    assert isinstance(result_or_refusal(lambda: decode(raw)), (CorollaError, union))


@SIDES
@given(data=st.data())
def test_any_mutation_is_a_message_or_is_refused(decode: Decode, union: Any, data: st.DataObject) -> None:
    raw = data.draw(mutations(structs(union).map(msgspec.json.encode)))
    assert isinstance(result_or_refusal(lambda: decode(raw)), (CorollaError, union))


TEXTS = pytest.mark.parametrize(
    ("decode", "union"),
    [
        pytest.param(messages.decode_from_peer, messages.FromPeer, id="peer"),
        pytest.param(messages.decode_from_relay, messages.FromRelay, id="relay"),
        pytest.param(browser.decode_from_page, browser.FromPage, id="page"),
    ],
)


@TEXTS
@given(text=st.text(st.characters(exclude_categories=[]), max_size=100))
def test_any_text_is_a_message_or_is_refused(decode: Decode, union: Any, text: str) -> None:
    assert isinstance(result_or_refusal(lambda: decode(text)), (CorollaError, union))


@TEXTS
@given(data=st.data())
def test_what_is_taken_can_be_passed_on(decode: Decode, union: Any, data: st.DataObject) -> None:
    raw = data.draw(mutations(structs(union).map(msgspec.json.encode)))
    message = result_or_refusal(lambda: decode(raw))
    if not isinstance(message, CorollaError):
        assert decode(msgspec.json.encode(message).decode()) == message


@given(structs(browser.ToPage))
def test_what_a_page_gets_is_json_of_its_type(message: Any) -> None:
    assert msgspec.json.decode(browser.encode_to_page(message), type=browser.ToPage) == message


FILLERS = {
    "depth": "[" * MAX_CONTROL_BYTES,
    "strings": '{"type":"hop_lost","models":[' + '"a",' * (MAX_CONTROL_BYTES // 4),
    "welcome": '{"type":"welcome","models":[' + '"a",' * (MAX_CONTROL_BYTES // 4),
    "exclude": '{"type":"route_request","exclude":[' + '"0000000000000000",' * (MAX_CONTROL_BYTES // 19),
    "hops": '{"type":"route","hops":[' + "{}," * (MAX_CONTROL_BYTES // 3),
    "tokens": '{"type":"generate","body":{"prompt":[' + "999," * (MAX_CONTROL_BYTES // 4),
    "messages": '{"type":"chat","messages":[' + '{"role":"user","content":""},' * (MAX_CONTROL_BYTES // 29),
    "digits": '{"type":"hello","protocol":' + "9" * MAX_CONTROL_BYTES,
    "escapes": '{"type":"hello","name":"' + r"\u00e9" * (MAX_CONTROL_BYTES // 6),
}


@pytest.mark.parametrize("filler", FILLERS.values(), ids=FILLERS)
@pytest.mark.parametrize(
    "decode", [messages.decode_from_peer, messages.decode_from_relay, browser.decode_from_page]
)
def test_largest_message_takes_memory_in_proportion(decode: Decode, filler: str) -> None:
    text = filler[:MAX_CONTROL_BYTES]
    assert peak_bytes(lambda: decode(text)) < 32 * MAX_CONTROL_BYTES


@TEXTS
def test_too_long_a_text_costs_nothing(decode: Decode, union: Any) -> None:
    text = "x" * (MAX_CONTROL_BYTES + 1)
    assert peak_bytes(lambda: decode(text)) < 64 * 1024
