"""The frame codec, one promise at a time."""

import re
from pathlib import Path
from typing import Any

import pytest

import schema.frames
from schema.errors import MalformedFrame, TooLarge, UnsupportedVersion
from schema.frames import (
    HEADER_BYTES,
    KNOWN_TYPES,
    TRAVELLING_TYPES,
    Flags,
    Frame,
    FrameType,
    decode_frame,
    encode_frame,
    forked_session,
    parse_header,
)
from schema.ids import SessionId
from schema.limits import MAX_HOPS, MAX_PAYLOAD_BYTES

FRAME = Frame(FrameType.STEP, 1, SessionId(b"s" * 16), 2, 3, b"route", b"payload", Flags.LAST_ONLY, 4)
RAW = encode_frame(FRAME)


def test_header_has_forty_bytes() -> None:
    assert HEADER_BYTES == 40


@pytest.mark.parametrize("kind", FrameType)
def test_every_type_round_trips(kind: FrameType) -> None:
    frame = FRAME._replace(type=kind)
    assert decode_frame(encode_frame(frame)) == frame


def test_payload_of_a_received_frame_is_not_copied() -> None:
    payload = decode_frame(RAW).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is RAW


def test_payload_may_be_a_view_of_wider_items() -> None:
    payload = memoryview(bytes(8)).cast("f")
    assert parse_header(encode_frame(FRAME._replace(payload=payload))).payload_bytes == 8


def test_unknown_type_is_returned_for_the_receiver_to_skip() -> None:
    assert parse_header(encode_frame(FRAME._replace(type=200))).type == 200


def test_known_types_are_those_of_the_table() -> None:
    assert {*FrameType} == KNOWN_TYPES


def test_what_travels_along_the_route() -> None:
    assert {*FrameType} - {FrameType.CLOSE, FrameType.FAILURE, FrameType.TRACE} == TRAVELLING_TYPES


def test_a_fork_names_a_session() -> None:
    assert forked_session(memoryview(bytes(16))) == bytes(16)


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_fork_that_names_none_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame, match=f"not {length}"):
        forked_session(bytes(length))


def test_every_type_of_the_table_says_its_payload_and_its_sender() -> None:
    table = Path(schema.frames.__file__).read_text(encoding="utf-8")
    told = re.findall(r"^    ([A-Z]+) = \d+  # \w.* {2,}\S.* -> \S", table, re.MULTILINE)
    assert told == [kind.name for kind in FrameType]


def test_shorter_than_a_header_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="at least 40"):
        parse_header(RAW[: HEADER_BYTES - 1])


def test_other_magic_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="begins with"):
        parse_header(b"\xc0\x7a" + RAW[2:])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_version_is_refused(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match="update the older one"):
        parse_header(RAW[:2] + bytes([version]) + RAW[3:])


@pytest.mark.parametrize("wrong", [RAW[:-1], RAW + b"\0"], ids=["short", "long"])
def test_lengths_that_do_not_add_up_are_refused(wrong: bytes) -> None:
    with pytest.raises(MalformedFrame, match="do not add up"):
        parse_header(wrong)


def test_payload_at_the_limit_is_taken() -> None:
    raw = encode_frame(FRAME._replace(payload=bytes(MAX_PAYLOAD_BYTES)))
    assert parse_header(raw).payload_bytes == MAX_PAYLOAD_BYTES


def test_payload_above_the_limit_is_not_sent() -> None:
    with pytest.raises(TooLarge):
        encode_frame(FRAME._replace(payload=bytes(MAX_PAYLOAD_BYTES + 1)))


def test_payload_above_the_limit_is_refused_before_it_is_there() -> None:
    with pytest.raises(TooLarge):
        parse_header(RAW[:36] + (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little") + RAW[40:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"session": b"short"},
        {"hop": MAX_HOPS + 1},
        {"hop": -1},
        {"type": 256},
        {"flags": 256},
        {"step": -1},
        {"step": 2**32},
        {"position": 2**32},
        {"epoch": 2**32},
        {"epoch": -1},
        {"route": bytes(0x10000)},
    ],
    ids=str,
)
def test_field_outside_its_width_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        encode_frame(FRAME._replace(**wrong))


def test_hop_at_the_limit_is_taken() -> None:
    assert parse_header(encode_frame(FRAME._replace(hop=MAX_HOPS))).hop == MAX_HOPS
