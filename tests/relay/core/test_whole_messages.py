"""relay/whole_messages.py: what is one message is read as the library would, and all else is left to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from benchmarks.raw_websocket import masked
from relay.whole_messages import whole_message

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]
KINDS = [Opcode.TEXT, Opcode.BINARY]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_any_length_is_read(kind: Opcode, size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    assert whole_message(masked(payload, kind)) == (0x80 | kind, payload)


@given(st.binary(max_size=300), st.sampled_from(KINDS), st.data())
def test_less_and_more_than_a_message_are_left_alone(
    payload: bytes, kind: Opcode, data: st.DataObject
) -> None:
    message = masked(payload, kind)
    assert whole_message(message[: data.draw(st.integers(0, len(message) - 1))]) is None
    assert whole_message(message + data.draw(st.binary(min_size=1, max_size=5))) is None


FIRST_FRAGMENT, LAST_FRAGMENT, COMPRESSED, PING, CLOSE = 0x02, 0x80, 0xC2, 0x89, 0x88


@pytest.mark.parametrize("first_byte", [FIRST_FRAGMENT, LAST_FRAGMENT, COMPRESSED, PING, CLOSE])
def test_what_is_no_whole_message_is_left_alone(first_byte: int) -> None:
    assert whole_message(bytes([first_byte]) + masked(b"payload")[1:]) is None


def test_so_is_what_is_not_masked() -> None:
    assert whole_message(Frame(Opcode.BINARY, b"payload").serialize(mask=False)) is None


@given(st.binary(max_size=40))
def test_nothing_makes_it_fail(data: bytes) -> None:
    found = whole_message(data)
    assert found is None or len(found[1]) <= len(data) - 6
