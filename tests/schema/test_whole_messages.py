"""schema/whole_messages.py: heads are as the library writes them, and nothing else is taken for a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from schema.whole_messages import KEY_BYTES, awaits_message, message_head, payload_start

SIZES = [0, 1, 124, 125, 126, 127, 65_535, 65_536]
KINDS = [Opcode.TEXT, Opcode.BINARY]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_written_as_the_library_writes_it(kind: Opcode, size: int) -> None:
    payload = bytes(size)
    assert message_head(0x80 | kind, size) + payload == Frame(kind, payload).serialize(mask=False)
    masked = Frame(kind, payload).serialize(mask=True)
    key = masked[len(masked) - size - KEY_BYTES : len(masked) - size]
    assert masked.startswith(message_head(0x80 | kind, size, key))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_payload_is_found_where_it_is(size: int, is_masked: bool) -> None:
    message = Frame(Opcode.BINARY, bytes(size)).serialize(mask=is_masked)
    assert payload_start(message, is_masked=is_masked) == len(message) - size
    assert payload_start(message, is_masked=not is_masked) is None


@given(st.binary(max_size=300), st.sampled_from(KINDS), st.booleans(), st.data())
def test_less_and_more_than_a_message_are_left_alone(
    payload: bytes, kind: Opcode, is_masked: bool, data: st.DataObject
) -> None:
    message = Frame(kind, payload).serialize(mask=is_masked)
    less = message[: data.draw(st.integers(0, len(message) - 1))]
    more = message + data.draw(st.binary(min_size=1, max_size=5))
    assert payload_start(less, is_masked=is_masked) is None
    assert payload_start(more, is_masked=is_masked) is None


@pytest.mark.parametrize("size", [1, 126, 65_536])
def test_the_librarys_parser_awaits_a_message_between_two_and_nowhere_else(size: int) -> None:
    """Not even where all that it was given is used up, as at the end of a head."""
    protocol = ClientProtocol(parse_uri("ws://relay"), state=State.OPEN)
    message = Frame(Opcode.BINARY, bytes(size)).serialize(mask=False)
    head = len(message) - size
    cuts = [*range(1, head + 1), head + size // 2 + 1]
    for cut in cuts:
        assert awaits_message(protocol.parser)
        protocol.receive_data(message[:cut])
        assert awaits_message(protocol.parser) is (cut == len(message))
        protocol.receive_data(message[cut:])
    assert awaits_message(protocol.parser)
    assert len(protocol.events_received()) == len(cuts)
