"""The binary frame: one WebSocket message from one hop of a route to the next.

How a step travels: the driver (the route's origin) sends a frame to stop 0, each hop sends its
output to the next stop, and the last hop sends to stop `len(hops)`, which is the origin again. The
sender writes the number of the stop that the frame goes TO into `hop`; the relay checks that the
sender is the stop before it and puts the same bytes on that peer's queue.

    header   40 bytes, little endian
             magic u16 | version u8 | type u8 | flags u8 | hop u8 | route_bytes u16
             session 16 bytes | step u32 | position u32 | epoch u32 | payload_bytes u32
    route    `route_bytes` bytes, see schema/routes.py
    payload  `payload_bytes` bytes, see the table below and schema/tensors.py

A FORWARD takes whole sequences through the blocks and leaves nothing behind: no KV cache. Any number of them
may be under way in a session, each at position 0.

A session may begin as a FORK of another one that its hops have kept (CLOSE with KEEP) instead of with its
first tokens: it then holds the first `position` tokens of that one. The payload names it by its id.

Or it begins with a RESUME, as what a broken session was on the hops that are left of that one's route. What
the new ones have missed comes in REPLAY frames behind it; see schema/resuming.py.

Of a step with the flag TIMED each hop tells the driver how long it was there, in a TRACE frame that it sends
right behind its answer; see schema/trace.py. Who does not know the flag passes it on, and says nothing.

`step` counts a session's frames from 0 and comes back on the answer. `position` is the number of
tokens that precede this frame's first token; a volunteer whose KV cache is longer rolls it back to
there. `epoch` is raised by the driver when it abandons what is in flight: older frames are ignored.

This module knows lengths and types. It does not open payloads, verify routes or know sockets.
"""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from schema.errors import MalformedFrame, TooLarge, UnsupportedVersion
from schema.ids import SESSION_ID_BYTES, SessionId
from schema.limits import MAX_HOPS, MAX_PAYLOAD_BYTES

MAGIC = 0xC07A
PROTOCOL_VERSION = 1
"""1: first published version."""

_HEADER = struct.Struct("<HBBBBH16sIIII")
HEADER_BYTES = _HEADER.size


class FrameType(IntEnum):
    """Every frame, its payload, and who may send it."""

    STEP = 1  # tensors: hidden states [batch, tokens, hidden], mask?   previous stop -> next stop
    PREFILL = 2  # tensors: as STEP; yields to STEP in every queue      previous stop -> next stop
    PROBE = 3  # tensors: as STEP; route is one hop, the origin itself  previous stop -> next stop
    CLOSE = 4  # empty; frees or keeps the session's KV cache           origin (or relay) -> all hops
    FAILURE = 5  # JSON: schema.messages.Failure                        hop (or relay) -> origin
    FORK = 6  # id of a kept session, which the new one begins as       previous stop -> next stop
    FORWARD = 7  # tensors: whole sequences; yields as PREFILL          previous stop -> next stop
    RESUME = 8  # id of a broken session, new stops: goes on as it      previous stop -> next stop
    REPLAY = 9  # new stops, what those have missed; yields as PREFILL  previous stop -> next stop
    TRACE = 10  # schema.trace.HopTrace: how long a step was at a hop   hop -> origin


KNOWN_TYPES = frozenset(int(kind) for kind in FrameType)
TRAVELLING_TYPES = frozenset(FrameType) - {FrameType.CLOSE, FrameType.FAILURE, FrameType.TRACE}
"""Frames that go from stop to stop along the route."""


class Flags(IntFlag):
    """What the last hop sends back. No flag: every position's hidden state. What a CLOSE leaves. And whether
    hops tell how long they took."""

    NONE = 0
    LAST_ONLY = 1  # only the last position: all that sampling needs
    NO_OUTPUT = 2  # a zero-token tensor: an acknowledgement, for all prefill chunks but the last
    KEEP = 4  # of a CLOSE: the KV cache stays for sessions that fork it, as long as there is room
    TIMED = 8  # of a STEP or PREFILL: every hop says in a TRACE frame how long it took


_TIMED = int(Flags.TIMED)


def is_timed(flags: int) -> bool:
    """Whether hops are to say how long a step takes. This is asked of every step, so it is asked of integers:
    enums take ten times as long to combine."""
    return int(flags) & _TIMED != 0


class Header(NamedTuple):
    """The fixed part of a frame, in wire order."""

    magic: int
    version: int
    type: int
    flags: int
    hop: int
    route_bytes: int
    session: SessionId
    step: int
    position: int
    epoch: int
    payload_bytes: int

    @property
    def payload_start(self) -> int:
        """Offset of the payload in the frame, bytes."""
        return HEADER_BYTES + self.route_bytes


class Frame(NamedTuple):
    """A frame's parts. `route` and `payload` may be views into the received message."""

    type: int
    hop: int
    session: SessionId
    step: int
    position: int
    route: bytes
    payload: bytes | memoryview
    flags: int = 0
    epoch: int = 0


def parse_header(message: bytes) -> Header:
    """The header of a received binary message, with every length checked against the message.

    An unknown type is returned as it is: the receiver skips and counts it.

    Raises:
        MalformedFrame: too short, wrong magic, or lengths that do not add up.
        UnsupportedVersion: another protocol version.
        TooLarge: a payload above the limit.
    """
    if len(message) < HEADER_BYTES:
        raise MalformedFrame(f"a frame has at least {HEADER_BYTES} bytes, this one has {len(message)}")
    header = Header(*_HEADER.unpack_from(message))
    if header.magic != MAGIC:
        raise MalformedFrame(f"a frame begins with {MAGIC:#06x}, not {header.magic:#06x}")
    if header.version != PROTOCOL_VERSION:
        raise UnsupportedVersion(
            f"frame of protocol version {header.version}; this side speaks {PROTOCOL_VERSION}: "
            "update the older one"
        )
    if header.payload_bytes > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"payload of {header.payload_bytes} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    if HEADER_BYTES + header.route_bytes + header.payload_bytes != len(message):
        raise MalformedFrame(
            f"header ({HEADER_BYTES}), route ({header.route_bytes}) and payload ({header.payload_bytes}) "
            f"do not add up to the message's {len(message)} bytes"
        )
    return header


def peek_header(message: bytes) -> Header:
    """The header of a frame that was checked before, of which the payload may be missing.

    Raises:
        MalformedFrame: too short for header and route.
    """
    if len(message) < HEADER_BYTES:
        raise MalformedFrame(f"a frame has at least {HEADER_BYTES} bytes, this one has {len(message)}")
    header = Header(*_HEADER.unpack_from(message))
    if len(message) < header.payload_start:
        raise MalformedFrame("the frame's route is cut off")
    return header


def decode_frame(message: bytes) -> Frame:
    """All parts of a received frame; the payload is a view, not a copy. Errors as `parse_header`."""
    return frame_of(parse_header(message), message)


def frame_of(header: Header, message: bytes) -> Frame:
    """All parts of a received frame whose header was parsed already."""
    start = header.payload_start
    return Frame(
        header.type,
        header.hop,
        header.session,
        header.step,
        header.position,
        message[HEADER_BYTES:start],
        memoryview(message)[start:],
        header.flags,
        header.epoch,
    )


def forked_session(payload: bytes | memoryview) -> SessionId:
    """The kept session that a FORK's payload names.

    Raises:
        MalformedFrame: it is no session id.
    """
    if len(payload) != SESSION_ID_BYTES:
        raise MalformedFrame(f"a fork names a session of {SESSION_ID_BYTES} bytes, not {len(payload)}")
    return SessionId(bytes(payload))


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame.

    Raises:
        MalformedFrame: a field outside its width, or a session id that is not 16 bytes.
        TooLarge: a payload above the limit.
    """
    payload_bytes = memoryview(frame.payload).nbytes
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"payload of {payload_bytes} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    if len(frame.session) != SESSION_ID_BYTES or not 0 <= frame.hop <= MAX_HOPS:
        raise MalformedFrame(f"a session id has {SESSION_ID_BYTES} bytes and a hop is at most {MAX_HOPS}")
    try:
        header = _HEADER.pack(
            MAGIC,
            PROTOCOL_VERSION,
            frame.type,
            frame.flags,
            frame.hop,
            len(frame.route),
            frame.session,
            frame.step,
            frame.position,
            frame.epoch,
            payload_bytes,
        )
    except struct.error as error:
        raise MalformedFrame(f"a frame field is outside its width: {error}") from error
    return b"".join((header, frame.route, frame.payload))
