"""relay/websocket.py: a connection that has ended is let go of, whether or not the other side reads."""

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from websockets.frames import CloseCode, Frame, Opcode

from benchmarks.raw_websocket import masked
from relay import sockets, websocket
from relay.peer import PING_SECONDS, Peer
from relay.websocket import WebSocketProtocol
from schema import messages
from schema.errors import Unresponsive
from schema.frames import FrameType, decode_frame
from schema.ids import PeerId
from tests.relay.core.peers import ScriptedPeer, offer
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def relay(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    monkeypatch.setattr(sockets, "GOODBYE_SECONDS", 0.01)
    async with running_relay(sqlite_file, WebSocketProtocol, queue_bytes=1 << 20) as running:
        yield running


async def stuck(relay: RunningRelay) -> ScriptedPeer:
    """A peer that does not read, and whose queue is full."""
    driver, slow = await relay.dial(kind="client"), await relay.dial(max_queue=1)
    frame = relay.journey(driver, slow).frame(0, bytes(100_000))
    while not relay.refusals("queue_full"):
        await driver.send(frame)
        await driver.is_served()
    await driver.close()
    await eventually(lambda: len(connections(relay)) == 1)
    return slow


def connections(relay: RunningRelay) -> list[asyncio.Protocol]:
    return list(relay.server.server_state.connections)


def end(relay: RunningRelay, peer: ScriptedPeer) -> None:
    ended = relay.services.hub.get(peer.id)
    assert ended is not None
    ended.end(Unresponsive("for the test"))


def hold_offers(relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have the relay work on every offer until the event is set, as when its database does not answer."""
    answered = asyncio.Event()

    async def wait(*_: object) -> None:
        await answered.wait()

    monkeypatch.setattr(relay.services.joining, "offer", wait)
    return answered


async def test_a_peer_that_does_not_read_is_let_go_of(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "LINGER_SECONDS", 0.01)
    end(relay, await stuck(relay))
    await eventually(lambda: not connections(relay))


async def test_a_server_that_stops_lets_go_of_those_who_do_not_read(relay: RunningRelay) -> None:
    end(relay, await stuck(relay))
    await eventually(lambda: not relay.server.server_state.tasks)
    (lingering,) = relay.server.server_state.connections
    lingering.shutdown()
    await eventually(lambda: not connections(relay))


async def test_who_reads_gets_all_of_it_and_the_goodbye(relay: RunningRelay) -> None:
    peer = await relay.dial()
    end(relay, peer)
    assert await peer.goodbye() == ("unresponsive", 4408)
    await eventually(lambda: not connections(relay))


SIZES = [
    pytest.param(0, id="a frame's header alone"),
    pytest.param(126, id="a length of 16 bits"),
    pytest.param(1 << 16, id="a length of 64 bits"),
]


@pytest.mark.parametrize("size", SIZES)
async def test_a_frame_of_any_length_arrives_as_it_was_sent(relay: RunningRelay, size: int) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    frame = relay.journey(driver, hop).frame(0, bytes(range(256)) * (size // 256 + 1))
    await driver.send(frame)
    assert await hop.frame() == frame


async def test_a_message_in_fragments_is_one_frame(relay: RunningRelay) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    frame = relay.journey(driver, hop).frame(0, b"activations")
    await driver.socket.send([frame[:7], frame[7:20], frame[20:]])
    assert await hop.frame() == frame


def server_side(relay: RunningRelay, peer: ScriptedPeer) -> WebSocketProtocol:
    """The relay's end of a peer's connection."""
    port = peer.socket.local_address[1]
    for one in connections(relay):
        if isinstance(one, WebSocketProtocol) and one.client is not None and one.client[1] == port:
            return one
    raise LookupError(f"nobody has connected from port {port}")


async def test_a_read_that_is_one_message_spares_the_librarys_parser(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.serving()
    there = relay.services.hub.get(hop.id)
    assert there is not None
    there.heard = 0.0  # else it has just said something, and another text has to wait
    for peer in (driver, hop):
        monkeypatch.setattr(server_side(relay, peer).conn, "receive_data", _Broken())
    frame = relay.journey(driver, hop).frame(0, bytes(300))
    text = b'{"type":"heartbeat","blocks_per_second":12.5}'
    server_side(relay, hop).data_received(masked(text, Opcode.TEXT))
    server_side(relay, driver).data_received(masked(frame))
    assert await hop.frame() == frame
    assert await speed_of(relay, hop) == 12.5


@pytest.mark.parametrize("seed", range(8))
async def test_frames_arrive_in_order_wherever_reads_end(relay: RunningRelay, seed: int) -> None:
    chance = random.Random(seed)
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    journey, there = relay.journey(driver, hop), server_side(relay, driver)
    sent = [masked(journey.frame(0, bytes(chance.choice((0, 60, 400))), step=step)) for step in range(40)]
    stream, ends = b"".join(sent), list(accumulate(map(len, sent)))
    between = chance.sample(ends, 25)
    within = [chance.randrange(len(stream)) for _ in range(chance.choice((2, 20)))]
    for start, end in pairwise(sorted({0, *between, *within, len(stream)})):
        there.data_received(stream[start:end])
    assert [decode_frame(await hop.frame()).step for _ in sent] == list(range(len(sent)))


async def test_a_message_between_the_fragments_of_another_is_refused(relay: RunningRelay) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    frame, there = relay.journey(driver, hop).frame(0), server_side(relay, driver)
    there.data_received(Frame(Opcode.BINARY, frame[:10], fin=False).serialize(mask=True))
    there.data_received(masked(frame))
    await driver.closed()
    assert driver.socket.close_code == CloseCode.PROTOCOL_ERROR
    assert relay.services.metrics.frames_forwarded[FrameType.STEP] == 0


async def test_a_message_that_is_too_long_is_refused_though_it_is_whole(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    frame, there = relay.journey(driver, hop).frame(0), server_side(relay, driver)
    monkeypatch.setattr(there.config, "ws_max_size", len(frame) - 1)
    there.conn.max_message_size = len(frame) - 1
    there.data_received(masked(frame))
    await driver.closed()
    assert driver.socket.close_code == CloseCode.MESSAGE_TOO_BIG


async def test_frames_arrive_in_order_though_some_had_to_wait(relay: RunningRelay) -> None:
    """The socket of who does not read is full at some point; what waits goes before what comes later."""
    driver, hop = await relay.dial(kind="client"), await relay.dial(max_queue=1)
    journey = relay.journey(driver, hop)
    count = 0
    while not relay.services.hub.get(hop.id).queued_bytes:  # pyright: ignore[reportOptionalMemberAccess]
        await driver.send(journey.frame(0, bytes(50_000), step=count))
        await driver.is_served()
        count += 1
    for step in range(count, count + 5):
        await driver.send(journey.frame(0, bytes(10), step=step))
    steps = [decode_frame(await hop.frame()).step for _ in range(count + 5)]
    assert steps == list(range(count + 5))
    assert relay.refusals("queue_full") == 0


async def test_frames_go_on_while_the_relay_works_on_a_text(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer holds up who joins, and no token."""
    answered = hold_offers(relay, monkeypatch)
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    await hop.say(offer())
    await hop.say(messages.Heartbeat())  # waits for the offer's answer
    journey = relay.journey(driver, hop)
    await driver.send(journey.frame(0))
    await hop.send(journey.frame(1))
    assert decode_frame(await driver.frame()).hop == 1
    answered.set()


async def test_who_says_too_much_while_the_relay_works_on_a_text_is_not_read(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = hold_offers(relay, monkeypatch)
    hop = await relay.dial()
    await hop.say(offer())
    (server_side,) = connections(relay)
    assert isinstance(server_side, WebSocketProtocol)
    for _ in range(3 * websocket.WAITING_TEXTS):
        await hop.say(messages.Heartbeat())
    await eventually(lambda: server_side.read_paused)
    answered.set()
    await hop.is_served()


async def test_after_a_full_read_others_have_their_turn_and_nothing_is_lost(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "FULL_READ_BYTES", 1)
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    journey = relay.journey(driver, hop)
    was_reading: list[bool] = []
    read_on = WebSocketProtocol._read_on

    def note(server_side: WebSocketProtocol) -> None:
        was_reading.append(server_side.transport.is_reading())
        read_on(server_side)

    monkeypatch.setattr(WebSocketProtocol, "_read_on", note)
    for step in range(20):
        await driver.send(journey.frame(0, bytes(30_000), step=step))
    assert [decode_frame(await hop.frame()).step for _ in range(20)] == list(range(20))
    assert was_reading
    assert not any(was_reading)


async def test_a_peer_that_broke_the_protocol_sends_no_more_frames(relay: RunningRelay) -> None:
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    good = relay.journey(driver, hop).frame(0)
    await driver.send(b"garbage", good)
    assert (await driver.goodbye())[0] == "malformed_frame"
    await hop.is_served()
    assert relay.services.metrics.frames_forwarded[FrameType.STEP] == 0


async def test_frames_of_an_ended_peer_go_nowhere(relay: RunningRelay) -> None:
    """Not even those that were read together with its last one."""
    driver, hop = await relay.dial(kind="client"), await relay.dial()
    forward = relay.services.forwarder.forward
    forwarded: list[bytes] = []

    def revoke_after(sender: Peer, message: bytes) -> None:
        forward(sender, message)
        forwarded.append(message)
        sender.end(Unresponsive("for the test"))

    relay.services.forwarder.forward = revoke_after
    frame = relay.journey(driver, hop).frame(0)
    driver.socket.transport.write(masked(frame) * 3)
    assert (await driver.goodbye())[0] == "unresponsive"
    assert forwarded == [frame]


async def test_a_peer_that_leaves_by_itself_is_gone(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.close()
    await eventually(lambda: not connections(relay))


# ---- heartbeats ----


class _Broken:
    """What fails where it should not."""

    def __call__(self, *_: object) -> None:
        raise ZeroDivisionError("a mistake")


async def speed_of(relay: RunningRelay, peer: ScriptedPeer) -> float:
    found = relay.services.swarm.get(PeerId(peer.id))
    assert found is not None
    return found.blocks_per_second


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"type":"heartbeat","blocks_per_second":12.5}', id="as this project writes it"),
        pytest.param('{"blocks_per_second":12.5, "type":"heartbeat"}', id="as others may"),
    ],
)
async def test_a_heartbeat_is_heard_however_it_is_written(relay: RunningRelay, text: str) -> None:
    peer = await relay.serving()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    there.heard = -1.0
    await peer.socket.send(text)
    await peer.is_served()
    assert await speed_of(relay, peer) == 12.5
    assert there.heard > 0


async def test_a_heartbeat_in_fragments_is_one(relay: RunningRelay) -> None:
    peer = await relay.serving()
    await peer.socket.send(['{"type":"heart', 'beat","blocks_per', '_second":12.5}'])
    await peer.is_served()
    assert await speed_of(relay, peer) == 12.5


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"type":"heartbeat","sessions":-1}', "malformed_message"),
        ('{"type":"heartbeat"', "malformed_message"),
    ],
)
async def test_a_broken_heartbeat_ends_its_connection_by_name(
    relay: RunningRelay, text: str, code: str
) -> None:
    peer, other = await relay.serving(), await relay.serving()
    await peer.socket.send(text)
    assert (await peer.goodbye())[0] == code
    await other.is_served()


async def test_a_heartbeat_that_the_relay_fails_at_ends_its_connection_alone(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other = await relay.serving(), await relay.serving()
    with monkeypatch.context() as patched:
        patched.setattr(relay.services.joining, "heartbeat", _Broken())
        await peer.socket.send('{"type":"heartbeat"}')
        assert (await peer.goodbye())[0] == "internal_error"
    await other.is_served()


# ---- the way there and back ----


async def test_how_far_a_peer_is_gets_measured_when_it_comes(relay: RunningRelay) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    await eventually(lambda: there.rtt is not None)
    assert there.rtt is not None
    assert there.rtt >= 0


async def test_round_trips_are_smoothed(relay: RunningRelay) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    await eventually(lambda: there.rtt is not None)
    there.rtt = 8.0
    there.ping(0.0)
    await eventually(lambda: there.rtt != 8.0)
    assert 6.9 < there.rtt < 8.0


async def test_round_trips_are_measured_again_with_heartbeats_but_not_with_each(relay: RunningRelay) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    await eventually(lambda: there.rtt is not None)
    now = asyncio.get_running_loop().time()
    there.rtt = 8.0
    there.greet(now + PING_SECONDS * 0.9)
    there.greet(now + PING_SECONDS * 1.1)
    await eventually(lambda: there.rtt != 8.0)
    assert 6.9 < there.rtt < 8.0  # one answer's share


async def test_an_answer_to_no_ping_is_not_believed(relay: RunningRelay) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    await eventually(lambda: there.rtt is not None)
    there.rtt = 8.0
    await peer.socket.pong(b"four")
    await peer.is_served()
    assert there.rtt == 8.0
