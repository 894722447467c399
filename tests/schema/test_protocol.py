"""The connection's state machine, one promise at a time."""

import json
from typing import Any

import msgspec
import pytest

from schema.errors import MalformedFrame, MalformedMessage, TooLarge, UnexpectedMessage, UnsupportedVersion
from schema.frames import PROTOCOL_VERSION, Frame, FrameType, Header, encode_frame
from schema.ids import SessionId
from schema.limits import MAX_PAYLOAD_BYTES
from schema.messages import (
    Draining,
    ErrorInfo,
    Goodbye,
    Heartbeat,
    Hello,
    RouteRequest,
    Serving,
    Welcome,
    encode_message,
)
from schema.protocol import (
    MAX_FRAME_BYTES,
    Connection,
    PeerConnection,
    RelayConnection,
    SkippedFrame,
    State,
)

HELLO = Hello(protocol=PROTOCOL_VERSION, software="s", instance="0" * 32, name="n")
WELCOME = Welcome(peer="0" * 16, heartbeat_seconds=5.0, models=[], software="s")
GOODBYE = Goodbye(error=ErrorInfo(code="replaced", message="again"))
FRAME = Frame(FrameType.STEP, 0, SessionId(bytes(16)), 0, 0, b"", b"")
RAW = encode_frame(FRAME)


def relay_side(state: State = State.OPEN) -> RelayConnection:
    connection = RelayConnection()
    connection.state = state
    return connection


def peer_side(state: State = State.OPEN) -> PeerConnection:
    connection = PeerConnection()
    connection.state = state
    return connection


def test_connection_begins_with_the_handshake() -> None:
    assert RelayConnection().state is State.HANDSHAKE


def test_hello_opens_the_relays_side() -> None:
    connection = relay_side(State.HANDSHAKE)
    connection.receive_text(encode_message(HELLO))
    assert connection.state is State.OPEN


def test_welcome_opens_the_peers_side() -> None:
    connection = peer_side(State.HANDSHAKE)
    connection.receive_text(encode_message(WELCOME))
    assert connection.state is State.OPEN


@pytest.mark.parametrize("message", [Draining(), Heartbeat()], ids=repr)
def test_open_relay_side_takes_messages(message: Draining | Heartbeat) -> None:
    assert relay_side().receive_text(encode_message(message)) == message


@pytest.mark.parametrize("message", [Serving(), Heartbeat()], ids=repr)
def test_open_peer_side_takes_messages(message: Serving | Heartbeat) -> None:
    assert peer_side().receive_text(encode_message(message)) == message


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        pytest.param(relay_side(State.HANDSHAKE), Draining(), id="relay: message before hello"),
        pytest.param(relay_side(State.HANDSHAKE), Heartbeat(), id="relay: heartbeat before hello"),
        pytest.param(relay_side(State.OPEN), HELLO, id="relay: second hello"),
        pytest.param(relay_side(State.CLOSED), HELLO, id="relay: hello after close"),
        pytest.param(relay_side(State.CLOSED), Draining(), id="relay: message after close"),
        pytest.param(peer_side(State.HANDSHAKE), Serving(), id="peer: message before welcome"),
        pytest.param(peer_side(State.OPEN), WELCOME, id="peer: second welcome"),
        pytest.param(peer_side(State.CLOSED), WELCOME, id="peer: welcome after close"),
        pytest.param(peer_side(State.CLOSED), Serving(), id="peer: message after close"),
        pytest.param(peer_side(State.CLOSED), GOODBYE, id="peer: goodbye after close"),
    ],
)
def test_wrong_state_is_refused_by_name(connection: Any, message: Any) -> None:
    state = connection.state
    expected = f"'{message.__struct_config__.tag}' is not allowed in state {state.value}"
    with pytest.raises(UnexpectedMessage, match=expected):
        connection.receive_text(encode_message(message))
    assert connection.state is state


def test_refusal_names_the_message_as_it_is_on_the_wire() -> None:
    request = RouteRequest(request="r", model="m", session="0" * 32)
    with pytest.raises(UnexpectedMessage, match="'route_request'"):
        relay_side(State.HANDSHAKE).receive_text(encode_message(request))


@pytest.mark.parametrize("connection", [relay_side, peer_side])
@pytest.mark.parametrize("state", [State.HANDSHAKE, State.CLOSED])
def test_frame_is_refused_unless_open(connection: Any, state: State) -> None:
    with pytest.raises(UnexpectedMessage, match=f"a frame is not allowed in state {state.value}"):
        connection(state).receive_frame(RAW)


@pytest.mark.parametrize("state", [State.HANDSHAKE, State.OPEN])
def test_goodbye_closes_the_peers_side_in_every_state(state: State) -> None:
    connection = peer_side(state)
    connection.receive_text(encode_message(GOODBYE))
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, -1, 10**30])
def test_other_version_is_refused(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match="update the older one"):
        relay_side(State.HANDSHAKE).receive_text(
            encode_message(msgspec.structs.replace(HELLO, protocol=version))
        )


def test_other_version_is_refused_by_that_name_even_with_other_fields() -> None:
    with pytest.raises(UnsupportedVersion):
        relay_side(State.HANDSHAKE).receive_text('{"type":"hello","protocol":2,"identity":{}}')


def test_other_version_leaves_the_connection_in_its_handshake() -> None:
    connection = relay_side(State.HANDSHAKE)
    with pytest.raises(UnsupportedVersion):
        connection.receive_text('{"type":"hello","protocol":2}')
    assert connection.state is State.HANDSHAKE


@pytest.mark.parametrize("state", State)
def test_broken_hello_of_this_version_is_malformed(state: State) -> None:
    with pytest.raises(MalformedMessage, match="software"):
        relay_side(state).receive_text(json.dumps({"type": "hello", "protocol": PROTOCOL_VERSION}))


def test_frame_gives_its_header() -> None:
    header = relay_side().receive_frame(RAW)
    assert isinstance(header, Header)
    assert header.type == FrameType.STEP


@pytest.mark.parametrize("kind", FrameType)
def test_every_known_type_is_taken(kind: FrameType) -> None:
    assert isinstance(peer_side().receive_frame(encode_frame(FRAME._replace(type=kind))), Header)


@pytest.mark.parametrize("kind", [0, max(FrameType) + 1, 255])
def test_unknown_type_is_skipped(kind: int) -> None:
    connection = relay_side()
    assert connection.receive_frame(encode_frame(FRAME._replace(type=kind))) == SkippedFrame(kind)
    assert connection.state is State.OPEN


def test_unknown_type_with_wrong_lengths_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        relay_side().receive_frame(encode_frame(FRAME._replace(type=200)) + b"\0")


def test_frame_of_another_version_is_refused() -> None:
    with pytest.raises(UnsupportedVersion):
        relay_side().receive_frame(RAW[:2] + b"\2" + RAW[3:])


def test_largest_frame_is_taken() -> None:
    raw = encode_frame(FRAME._replace(route=bytes(0xFFFF), payload=bytes(MAX_PAYLOAD_BYTES)))
    assert len(raw) == MAX_FRAME_BYTES
    assert isinstance(relay_side().receive_frame(raw), Header)


def test_larger_frame_is_refused() -> None:
    with pytest.raises(TooLarge):
        relay_side().receive_frame(bytes(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("connection", [relay_side(), peer_side()], ids=lambda one: type(one).__name__)
def test_close(connection: Connection) -> None:
    connection.close()
    assert connection.state is State.CLOSED
