"""Whatever comes, in whatever order: an event or a named error, and no way back from closed."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import messages
from schema.errors import CorollaError, UnexpectedMessage
from schema.frames import Header, encode_frame
from schema.protocol import PeerConnection, RelayConnection, SkippedFrame, State
from tests.schema.outcomes import result_or_refusal
from tests.schema.strategies import FRAMES, mutations, structs

Side = RelayConnection | PeerConnection
SIDES = pytest.mark.parametrize("side", [RelayConnection, PeerConnection])

HELLO = messages.Hello(protocol=1, software="s", instance="0" * 32, name="n")
WELCOME = messages.Welcome(peer="0" * 16, heartbeat_seconds=1.0, models=[], software="s")
VALID = st.just(HELLO) | st.just(WELCOME) | structs(messages.FromPeer) | structs(messages.FromRelay)
TEXTS = VALID.map(msgspec.json.encode)
BINARY = FRAMES.map(encode_frame)
INPUTS = st.one_of(
    st.tuples(st.just("text"), TEXTS | mutations(TEXTS) | st.binary(max_size=50)),
    st.tuples(st.just("frame"), BINARY | mutations(BINARY) | st.binary(max_size=50)),
    st.tuples(st.just("close"), st.just(b"")),
)
SEQUENCES = st.lists(INPUTS, max_size=8)

NEXT = {
    State.HANDSHAKE: set(State),
    State.OPEN: {State.OPEN, State.CLOSED},
    State.CLOSED: {State.CLOSED},
}


def feed(connection: Side, kind: str, raw: bytes) -> Any:
    calls: dict[str, Callable[[], Any]] = {
        "text": lambda: connection.receive_text(raw),
        "frame": lambda: connection.receive_frame(raw),
        "close": connection.close,
    }
    return result_or_refusal(calls[kind])


@SIDES
@given(inputs=SEQUENCES)
def test_every_input_is_an_event_or_is_refused(side: type[Side], inputs: list[tuple[str, bytes]]) -> None:
    connection = side()
    expected: dict[str, Any] = {
        "text": messages.FromPeer if side is RelayConnection else messages.FromRelay,
        "frame": Header | SkippedFrame,
        "close": type(None),
    }
    for kind, raw in inputs:
        assert isinstance(feed(connection, kind, raw), expected[kind] | CorollaError)


@SIDES
@given(inputs=SEQUENCES)
def test_states_only_go_forward(side: type[Side], inputs: list[tuple[str, bytes]]) -> None:
    connection = side()
    for kind, raw in inputs:
        before = connection.state
        feed(connection, kind, raw)
        assert connection.state in NEXT[before]


@SIDES
@given(inputs=SEQUENCES)
def test_refusal_changes_no_state(side: type[Side], inputs: list[tuple[str, bytes]]) -> None:
    connection = side()
    for kind, raw in inputs:
        before = connection.state
        refused = isinstance(feed(connection, kind, raw), CorollaError)
        assert not refused or connection.state is before


@SIDES
@given(inputs=SEQUENCES)
def test_nothing_is_taken_after_the_close(side: type[Side], inputs: list[tuple[str, bytes]]) -> None:
    connection = side()
    connection.close()
    assert all(
        isinstance(feed(connection, kind, raw), CorollaError) for kind, raw in inputs if kind != "close"
    )


@SIDES
@given(raw=BINARY)
def test_no_frame_passes_before_the_handshake(side: type[Side], raw: bytes) -> None:
    assert isinstance(feed(side(), "frame", raw), UnexpectedMessage)


@SIDES
@given(message=structs(messages.FromPeer) | structs(messages.FromRelay))
def test_only_its_first_message_opens_a_side(side: type[Side], message: Any) -> None:
    connection = side()
    feed(connection, "text", msgspec.json.encode(message))
    opening = messages.Hello if side is RelayConnection else messages.Welcome
    assert connection.state is not State.OPEN or isinstance(message, opening)
