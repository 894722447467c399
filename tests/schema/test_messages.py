"""Control messages, one promise at a time. That each type round-trips is in tests/vectors/."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schema import messages
from schema.errors import ContextTooLong, InvalidRequest, KVCacheFull, MalformedMessage, PeerGone, TooLarge
from schema.limits import MAX_BLOCKS, MAX_CONTROL_BYTES, MAX_HOPS, MAX_MODEL_NAME_CHARS, MAX_NAME_CHARS
from schema.messages import (
    Delta,
    Draining,
    ErrorInfo,
    Failure,
    decode_failure,
    decode_from_peer,
    decode_from_relay,
    encode_failure,
    encode_message,
    hello_version,
    peer_ids,
)

SESSION = "0" * 32


def text(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind} | fields)


def hello(**changed: Any) -> str:
    return text("hello", **({"protocol": 1, "software": "s", "instance": SESSION, "name": "n"} | changed))


def progress(**changed: Any) -> str:
    return text("progress", **({"phase": "loading", "done": 0, "total": 0} | changed))


def loaded(**changed: Any) -> str:
    fields = {"model": "m", "start": 0, "end": 1, "head": False, "dtype": "float32"}
    return text("loaded", **(fields | changed))


def route_request(**changed: Any) -> str:
    return text("route_request", **({"request": "r", "model": "m", "session": SESSION} | changed))


AT_THE_LIMIT = {
    "name": (hello, "name", "n" * MAX_NAME_CHARS, "n" * (MAX_NAME_CHARS + 1)),
    "software": (hello, "software", "s" * 64, "s" * 65),
    "instance": (hello, "instance", "f" * 32, "f" * 33),
    "count": (progress, "done", 2**53, 2**53 + 1),
    "count from": (progress, "done", 0, -1),
    "model": (loaded, "model", "m" * MAX_MODEL_NAME_CHARS, "m" * (MAX_MODEL_NAME_CHARS + 1)),
    "block": (loaded, "end", MAX_BLOCKS, MAX_BLOCKS + 1),
    "block from": (loaded, "start", 0, -1),
    "dtype": (loaded, "dtype", "d" * 16, "d" * 17),
    "request": (route_request, "request", "r" * 64, "r" * 65),
    "exclude": (route_request, "exclude", ["0" * 16] * 1000, ["0" * 16] * 1001),
}


@pytest.mark.parametrize(("of", "field", "largest", "over"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_value_at_the_limit_is_taken(of: Callable[..., str], field: str, largest: Any, over: Any) -> None:
    assert getattr(decode_from_peer(of(**{field: largest})), field) == largest


@pytest.mark.parametrize(("of", "field", "largest", "over"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_value_beyond_the_limit_is_refused(
    of: Callable[..., str], field: str, largest: Any, over: Any
) -> None:
    with pytest.raises(MalformedMessage, match=field):
        decode_from_peer(of(**{field: over}))


@pytest.mark.parametrize("field", ["name", "instance"])
def test_empty_name_is_refused(field: str) -> None:
    with pytest.raises(MalformedMessage, match=field):
        decode_from_peer(hello(**{field: ""}))


@pytest.mark.parametrize("instance", ["F" * 32, "g" * 32, "0" * 31 + "\n", "0" * 32 + "\n"], ids=repr)
def test_hex_is_lower_case_and_nothing_else(instance: str) -> None:
    with pytest.raises(MalformedMessage, match="instance"):
        decode_from_peer(hello(instance=instance))


@pytest.mark.parametrize("phase", ["fetching", "loading", "probing"])
def test_every_phase_is_taken(phase: str) -> None:
    assert msgspec.to_builtins(decode_from_peer(progress(phase=phase)))["phase"] == phase


@pytest.mark.parametrize("phase", ["resting", "loading\n", ""], ids=repr)
def test_other_phases_are_refused(phase: str) -> None:
    with pytest.raises(MalformedMessage, match="phase"):
        decode_from_peer(progress(phase=phase))


def test_missing_field_is_named() -> None:
    with pytest.raises(MalformedMessage, match="protocol"):
        decode_from_peer(text("hello"))


def test_unknown_field_is_ignored() -> None:
    assert decode_from_peer(text("draining", new=[1, {}])) == Draining()


def test_message_of_the_other_side_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="assignment"):
        decode_from_peer(text("assignment", model="m", start=0, end=1, head=False))


@pytest.mark.parametrize(
    "raw",
    ["", "null", "[]", "{}", '{"type":1}', '{"type":"nobody"}', b"\xff", "\ud800", '{"type":"draining"} x'],
    ids=ascii,
)
def test_what_is_no_message_is_refused(raw: str | bytes) -> None:
    with pytest.raises(MalformedMessage, match="not a control message of this protocol"):
        decode_from_relay(raw)


def test_depth_that_would_exhaust_the_stack_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="recursion"):
        decode_from_peer('{"type":"draining","x":' + "[" * 500_000)


def padded(size: int) -> str:
    return text("draining") + " " * (size - len(text("draining")))


def test_message_at_the_limit_is_taken() -> None:
    assert decode_from_peer(padded(MAX_CONTROL_BYTES)) == Draining()


def test_longer_message_is_refused() -> None:
    with pytest.raises(TooLarge):
        decode_from_peer(padded(MAX_CONTROL_BYTES + 1))


def delta(size: int) -> Delta:
    """A delta of `size` encoded bytes, in letters of two bytes each."""
    empty = len(encode_message(Delta(request="r", text="", tokens=0)))
    return Delta(request="r", text="é" * ((size - empty) // 2) + "x" * ((size - empty) % 2), tokens=0)


def test_message_of_as_many_bytes_as_the_limit_is_sent() -> None:
    assert len(encode_message(delta(MAX_CONTROL_BYTES)).encode()) == MAX_CONTROL_BYTES


def test_message_of_more_bytes_is_not_sent() -> None:
    with pytest.raises(TooLarge):
        encode_message(delta(MAX_CONTROL_BYTES + 1))


def test_failure_round_trips() -> None:
    failure = Failure(code="kv_cache_full", message="full", retry_after=0.5, hop=MAX_HOPS)
    assert decode_failure(memoryview(encode_failure(failure))) == failure


def test_failure_at_no_hop_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="hop"):
        decode_failure(encode_failure(Failure(code="c", message="m", hop=MAX_HOPS + 1)))


def test_longer_failure_is_refused() -> None:
    with pytest.raises(TooLarge):
        decode_failure(b" " * (MAX_CONTROL_BYTES + 1))


def test_error_keeps_its_class_on_the_wire() -> None:
    assert type(ErrorInfo.of(PeerGone("gone")).to_error()) is PeerGone


@pytest.mark.parametrize("kind", [InvalidRequest, ContextTooLong])
@pytest.mark.parametrize("param", ["logit_bias", None])
def test_an_error_keeps_the_field_at_fault(kind: type[InvalidRequest], param: str | None) -> None:
    error = ErrorInfo.of(kind("no", param=param)).to_error()
    assert isinstance(error, kind)
    assert error.param == param


def test_an_error_without_a_field_has_the_bytes_that_it_always_had() -> None:
    told = msgspec.json.encode(ErrorInfo.of(PeerGone("gone")))
    assert told == b'{"code":"peer_gone","message":"gone","retry_after":null}'


def test_error_keeps_its_words_and_its_retry_hint_on_the_wire() -> None:
    error = ErrorInfo.of(KVCacheFull("full", retry_after=2.5)).to_error()
    assert (error.message, error.retry_after) == ("full", 2.5)


def test_negative_retry_hint_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="retry_after"):
        decode_from_peer(text("failed", error={"code": "c", "message": "m", "retry_after": -1}))


def test_route_travels_as_base64() -> None:
    raw = text("probe", session=SESSION, route="AAH/")
    assert msgspec.to_builtins(decode_from_relay(raw))["route"] == "AAH/"


def test_bad_base64_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="route"):
        decode_from_relay(text("probe", session=SESSION, route="AAH"))


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        ('{"type":"hello","protocol":7,"name":[]}', 7),
        ('{"type":"draining","protocol":7}', None),
        ('{"type":"hello","protocol":"7"}', None),
        ('{"type":"hello"', None),
        ("\ud800", None),
    ],
    ids=ascii,
)
def test_version_of_any_hello_can_be_read(raw: str, version: int | None) -> None:
    assert hello_version(raw) == version


def test_peer_ids_are_a_set() -> None:
    assert peer_ids(["0" * 16, "0" * 16]) == {"0" * 16}


@pytest.mark.parametrize("union", [messages.FromPeer, messages.FromRelay])
def test_every_message_is_immutable(union: Any) -> None:
    assert all(kind.__struct_config__.frozen for kind in union.__args__)
