"""relay/forwarding.py: any bytes whatever are forwarded, counted, or end the connection they came by."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.peer import Peer
from schema.errors import ProtocolViolation
from schema.frames import HEADER_BYTES, FrameType, decode_frame
from schema.limits import MAX_CONTROL_BYTES
from schema.protocol import MAX_FRAME_BYTES
from tests.relay.core.peers import Journey, ScriptedPeer
from tests.relay.core.support import RunningRelay
from tests.relay.core.swarmlet import Swarmlet
from tests.relay.core.waiting import eventually

PROTOCOL_ERRORS = {
    "malformed_frame": 1002,
    "malformed_message": 1002,
    "unexpected_message": 1002,
    "unsupported_version": 4406,
    "too_large": 1009,
}


# ---- what ends the connection ----


def frame_with(journey: Journey, offset: int, value: bytes) -> bytes:
    frame = bytearray(journey.frame(0))
    frame[offset : offset + len(value)] = value
    return bytes(frame)


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        pytest.param(0, b"\0\0", "malformed_frame", id="magic"),
        pytest.param(2, b"\x02", "unsupported_version", id="version"),
        pytest.param(5, b"\x02", "malformed_frame", id="a stop that the route has not"),
        pytest.param(6, b"\xff\xff", "malformed_frame", id="route length"),
        pytest.param(36, b"\0\0\0\0", "malformed_frame", id="payload length"),
        pytest.param(36, b"\xff\xff\xff\xff", "too_large", id="payload length above the limit"),
        pytest.param(HEADER_BYTES, b"\x09", "malformed_frame", id="route version"),
        pytest.param(HEADER_BYTES + 1, b"\x05", "malformed_frame", id="number of hops"),
    ],
)
async def test_a_malformed_frame_ends_the_connection_by_name(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, offset: int, value: bytes, code: str
) -> None:
    await driver.send(frame_with(relay.journey(driver, first), offset, value))
    assert await driver.goodbye() == (code, PROTOCOL_ERRORS[code])
    assert await relay.metric("refusals_total", reason=code) == 1


@pytest.mark.parametrize("kind", [FrameType.CLOSE, FrameType.FAILURE])
async def test_a_stop_that_the_route_has_not_ends_the_connection_whatever_the_type(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, kind: FrameType
) -> None:
    await driver.send(relay.journey(driver, first).frame(2, b"", kind))
    assert await driver.goodbye() == ("malformed_frame", 1002)


async def test_an_empty_binary_message_ends_the_connection_by_name(driver: ScriptedPeer) -> None:
    await driver.send(b"")
    assert await driver.goodbye() == ("malformed_frame", 1002)


async def test_a_message_above_the_limit_is_refused_before_it_has_come(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    final_binary, masked_64_bit_length = 0x82, 0xFF
    head = bytes([final_binary, masked_64_bit_length]) + (MAX_FRAME_BYTES + 1).to_bytes(8, "big")
    driver.socket.transport.write(head + b"mask")  # and not one byte of the message itself
    assert await driver.closed() == 1009
    await eventually(lambda: relay.refusals("too_large") == 1)


async def test_a_control_message_above_the_limit_ends_the_connection_by_name(driver: ScriptedPeer) -> None:
    await driver.socket.send("x" * (MAX_CONTROL_BYTES + 1))
    assert await driver.goodbye() == ("too_large", 1009)


async def test_fuzzed_frames_end_at_most_the_connection_that_sent_them(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    chance = random.Random(20261123)
    journey = relay.journey(driver, first)
    token = await relay.token("client")
    for number in range(60):
        fuzzer = await relay.dial(token)
        await fuzzer.socket.send(fuzzed(chance, relay.journey(fuzzer, first).frame(0)))
        await fuzzer.socket.send("no message")  # so that every one of them is ended
        code, close_code = await fuzzer.goodbye()
        assert PROTOCOL_ERRORS[code] == close_code
        await driver.send(journey.frame(0, step=number))
        while decode_frame(frame := await first.frame()).session != journey.session:
            pass  # a fuzzed frame that is still a good one
        assert frame == journey.frame(0, step=number)


def fuzzed(chance: random.Random, frame: bytes) -> bytes:
    """Random bytes, or a frame with a few bytes changed, cut off or added."""
    match chance.randrange(4):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return frame[: chance.randrange(len(frame))]
        case 2:
            return frame + chance.randbytes(1 + chance.randrange(20))
        case _:
            changed = bytearray(frame)
            for _ in range(1 + chance.randrange(4)):
                changed[chance.randrange(len(frame))] = chance.randrange(256)
            return bytes(changed)


# ---- for any bytes whatever ----


@pytest.fixture(scope="module")
def swarmlet() -> Swarmlet:
    return Swarmlet()


@given(message=st.binary(max_size=400))
def test_any_bytes_are_forwarded_counted_or_a_violation(swarmlet: Swarmlet, message: bytes) -> None:
    assert_forwarded_counted_or_violation(swarmlet, swarmlet.peers[0], message)


@given(data=st.data())
def test_any_change_to_a_good_frame_is_forwarded_counted_or_a_violation(
    swarmlet: Swarmlet, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(FrameType))
    frame = bytearray(swarmlet.journey.frame(data.draw(st.integers(0, 3)), b"payload", kind))
    for position in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[position] = data.draw(st.integers(0, 255))
    sender = data.draw(st.sampled_from(swarmlet.peers))
    assert_forwarded_counted_or_violation(swarmlet, sender, bytes(frame))


def assert_forwarded_counted_or_violation(swarmlet: Swarmlet, sender: Peer, message: bytes) -> None:
    before = swarmlet.counted()
    try:
        swarmlet.forwarder.forward(sender, message)
    except ProtocolViolation:
        return
    assert swarmlet.counted() > before
