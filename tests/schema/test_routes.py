"""Signed routes, one promise at a time."""

from dataclasses import replace
from typing import Any

import pytest

from schema.errors import MalformedFrame, MalformedMessage, RouteForged
from schema.ids import PeerId, SessionId, Span
from schema.limits import MAX_BLOCKS, MAX_HOPS
from schema.routes import Hop, Route, read_route, sign_route, verify_route

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
SESSION, OTHER_SESSION = SessionId(b"1" * 16), SessionId(b"2" * 16)
DRIVER, FIRST, SECOND = PeerId("d" * 16), PeerId("1" * 16), PeerId("2" * 16)
ROUTE = Route(DRIVER, (Hop(FIRST, Span(0, 2)), Hop(SECOND, Span(2, 4))), b"modelkey", 1000)
RAW = sign_route(ROUTE, SESSION, SECRET)


def with_hops(count: int) -> Route:
    return replace(ROUTE, hops=tuple(Hop(FIRST, Span(index, index + 1)) for index in range(count)))


def test_round_trip() -> None:
    assert verify_route(RAW, SESSION, SECRET) == ROUTE


def test_route_can_be_read_without_the_secret() -> None:
    assert read_route(RAW) == ROUTE


def test_stops_are_the_hops_and_then_the_driver() -> None:
    assert [ROUTE.stop(index) for index in range(3)] == [FIRST, SECOND, DRIVER]


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_other_stop(index: int) -> None:
    with pytest.raises(MalformedFrame):
        ROUTE.stop(index)


def test_mac_of_another_session_is_forged() -> None:
    with pytest.raises(RouteForged):
        verify_route(RAW, OTHER_SESSION, SECRET)


def test_mac_of_another_secret_is_forged() -> None:
    with pytest.raises(RouteForged):
        verify_route(RAW, SESSION, OTHER_SECRET)


@pytest.mark.parametrize("byte", range(4, len(RAW)))
def test_no_byte_can_be_changed(byte: int) -> None:
    changed = RAW[:byte] + bytes([RAW[byte] ^ 1]) + RAW[byte + 1 :]
    with pytest.raises((RouteForged, MalformedFrame)):
        verify_route(changed, SESSION, SECRET)


def test_reserved_bytes_are_signed() -> None:
    with pytest.raises(RouteForged):
        verify_route(RAW[:2] + b"\1\0" + RAW[4:], SESSION, SECRET)


def test_reserved_bytes_are_not_looked_at_by_those_without_the_secret() -> None:
    assert read_route(RAW[:2] + b"\1\0" + RAW[4:]) == ROUTE


def test_other_route_version_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="version 2"):
        read_route(b"\2" + RAW[1:])


def test_hops_at_the_limit_are_taken() -> None:
    route = with_hops(MAX_HOPS)
    assert verify_route(sign_route(route, SESSION, SECRET), SESSION, SECRET) == route


@pytest.mark.parametrize("count", [0, MAX_HOPS + 1])
def test_no_hop_and_too_many_are_not_signed(count: int) -> None:
    with pytest.raises(MalformedFrame):
        sign_route(with_hops(count), SESSION, SECRET)


def test_more_hops_than_the_limit_are_refused() -> None:
    raw = RAW[:1] + bytes([MAX_HOPS + 1]) + RAW[2:24] + RAW[24:36] * (MAX_HOPS + 1) + bytes(16)
    with pytest.raises(MalformedFrame):
        read_route(raw)


@pytest.mark.parametrize("wrong", [b"", RAW[:51], RAW[:-1], RAW + b"\0"], ids=len)
def test_lengths_that_do_not_add_up_are_refused(wrong: bytes) -> None:
    with pytest.raises(MalformedFrame):
        read_route(wrong)


@pytest.mark.parametrize(("start", "end"), [(2, 2), (3, 2), (0, 0), (0, MAX_BLOCKS + 1)])
def test_impossible_span_is_refused_as_a_malformed_frame(start: int, end: int) -> None:
    raw = RAW[:32] + start.to_bytes(2, "little") + end.to_bytes(2, "little") + RAW[36:]
    with pytest.raises(MalformedFrame, match="impossible span"):
        read_route(raw)


@pytest.mark.parametrize(
    "wrong",
    [{"expires": -1}, {"expires": 2**32}, {"model_key": b""}, {"model_key": b"nine byte"}],
    ids=str,
)
def test_field_outside_its_width_is_not_signed(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        sign_route(replace(ROUTE, **wrong), SESSION, SECRET)


def test_session_id_of_another_length_is_not_signed() -> None:
    with pytest.raises(MalformedFrame):
        sign_route(ROUTE, SessionId(b"short"), SECRET)


def test_peer_id_that_is_none_is_not_signed() -> None:
    with pytest.raises(MalformedMessage):
        sign_route(replace(ROUTE, origin=PeerId("D" * 16)), SESSION, SECRET)


@pytest.mark.parametrize("secret", [b"", b"s" * 31, b"s" * 33], ids=len)
def test_secret_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        verify_route(RAW, SESSION, secret)
