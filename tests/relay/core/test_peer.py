"""relay/peer.py: what is urgent goes first, a full queue is news, and a slow reader harms nobody else."""

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from relay import sockets
from relay.peer import MAX_REASON_CHARS, Identity, Peer
from schema.errors import CorollaError, MalformedMessage, Replaced
from schema.frames import FrameType, decode_frame
from schema.ids import PeerId
from schema.messages import Cancel, Goodbye, Heartbeat, HopLost, decode_from_relay
from schema.outbox import CONTROL_RESERVE_BYTES, Urgency
from schema.protocol import RelayConnection
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE, eventually

QUEUE_BYTES = 1 << 20


class Recorder:
    """A socket that takes everything, or that waits when the test says so."""

    def __init__(self) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        await self.open.wait()
        self.sent.append(message)

    def contents(self) -> list[Any]:
        return [message.get("bytes") or message.get("text") for message in self.sent]


def new_peer(queue_bytes: int = 1000) -> Peer:
    identity = Identity(PeerId("a" * 16), "tester", "token", "volunteer")
    return Peer(identity, RelayConnection(), queue_bytes, now=asyncio.get_running_loop().time())


async def sent_until_ended(peer: Peer, recorder: Recorder) -> None:
    await asyncio.wait_for(peer.send_loop(recorder), DEADLINE)


# ---- the send loop ----


async def test_the_most_urgent_message_is_sent_first() -> None:
    peer, recorder = new_peer(), Recorder()
    recorder.open.clear()
    sending = asyncio.create_task(peer.send_loop(recorder))
    peer.enqueue(b"begun", Urgency.PREFILL)
    await eventually(lambda: peer.queued_bytes == 0)
    for message, urgency in ((b"p", Urgency.PREFILL), (b"d", Urgency.DECODE), ("c", Urgency.CONTROL)):
        assert peer.enqueue(message, urgency)
    recorder.open.set()
    await eventually(lambda: len(recorder.sent) == 4)
    sending.cancel()
    assert recorder.contents() == [b"begun", "c", b"d", b"p"]


async def test_a_full_queue_is_told_to_who_enqueues_and_makes_nobody_wait() -> None:
    peer = new_peer(queue_bytes=10)
    assert peer.enqueue(b"1234567890", Urgency.DECODE)
    assert not peer.enqueue(b"1", Urgency.DECODE)
    assert peer.queued_bytes == 10


async def test_an_ended_peer_gets_the_reason_and_nothing_else() -> None:
    peer, recorder = new_peer(), Recorder()
    peer.enqueue(b"activations", Urgency.DECODE)
    peer.end(Replaced("again"))
    await sent_until_ended(peer, recorder)
    goodbye, close = recorder.sent
    said = decode_from_relay(goodbye["text"])
    assert isinstance(said, Goodbye)
    assert (said.error.code, said.error.message) == ("replaced", "again")
    assert close == {"type": "websocket.close", "code": 4410, "reason": "replaced"}


async def test_the_first_reason_is_the_one_that_is_told() -> None:
    peer, recorder = new_peer(), Recorder()
    peer.end(Replaced("first"))
    peer.end(CorollaError("second"))
    await sent_until_ended(peer, recorder)
    assert recorder.sent[-1]["reason"] == "replaced"


async def test_nothing_is_queued_for_a_peer_that_is_going() -> None:
    peer = new_peer()
    peer.end(Replaced("again"))
    assert not peer.send_message(Heartbeat())
    assert peer.queued_bytes == 0


async def test_a_reason_longer_than_a_message_is_cut() -> None:
    peer, recorder = new_peer(), Recorder()
    peer.end(MalformedMessage("x" * 10_000_000))
    await sent_until_ended(peer, recorder)
    said = decode_from_relay(recorder.sent[0]["text"])
    assert isinstance(said, Goodbye)
    assert said.error.message == "x" * MAX_REASON_CHARS


async def test_who_cannot_be_told_what_it_waits_for_is_ended() -> None:
    peer = new_peer(queue_bytes=0)
    peer.enqueue("x" * CONTROL_RESERVE_BYTES, Urgency.CONTROL)
    peer.tell(Cancel(request="one"))
    assert peer.ending is not None
    assert peer.ending.code == "unresponsive"


# ---- is it stuck? ----


async def test_a_peer_without_mail_is_not_stuck_however_long() -> None:
    assert not new_peer().is_stuck(now=1e9, patience=1.0)


async def test_a_peer_whose_mail_waits_too_long_is_stuck() -> None:
    peer = new_peer()
    peer.enqueue(b"activations", Urgency.DECODE)
    assert not peer.is_stuck(peer.drained + 1.0, patience=1.0)
    assert peer.is_stuck(peer.drained + 1.1, patience=1.0)


async def test_a_peer_that_was_idle_for_long_is_not_stuck_with_its_first_mail() -> None:
    peer, recorder = new_peer(), Recorder()
    sending = asyncio.create_task(peer.send_loop(recorder))
    peer.enqueue("wake up", Urgency.CONTROL)
    await eventually(lambda: recorder.sent)
    peer.drained = -1e9
    recorder.open.clear()
    peer.enqueue(b"first", Urgency.DECODE)
    peer.enqueue(b"second", Urgency.DECODE)
    await eventually(lambda: peer.queued_bytes == len(b"second"))
    assert not peer.is_stuck(asyncio.get_running_loop().time(), patience=DEADLINE)
    sending.cancel()


# ---- names ----


@pytest.mark.parametrize("name", ["two\nlines", "nul\0", "\x1b[31mred", "right\u202eto left"])
def test_a_name_with_control_characters_is_refused(name: str) -> None:
    with pytest.raises(MalformedMessage, match="cannot be shown"):
        Identity(PeerId("a" * 16), name, "token", "volunteer")


def test_a_name_may_be_in_any_language() -> None:
    assert Identity(PeerId("a" * 16), "Überall 花 🌸", "token", "client").name


# ---- a slow reader, on real sockets ----


@pytest.fixture
async def relay(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    monkeypatch.setattr(sockets, "GOODBYE_SECONDS", 0.01)
    async with running_relay(sqlite_file, queue_bytes=QUEUE_BYTES) as running:
        yield running


async def slow_reader(relay: RunningRelay) -> ScriptedPeer:
    """A peer that will not read, with little room on the way to it."""
    small = socket.create_connection(("127.0.0.1", relay.port))
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    small.setblocking(False)
    return await relay.dial(name="slow", sock=small, max_queue=1)


async def fill(relay: RunningRelay, driver: ScriptedPeer, slow: ScriptedPeer) -> None:
    """Send to a slow reader until its queue is full."""
    journey = relay.journey(driver, slow)
    frame = journey.frame(0, bytes(100_000))
    sent = 0
    while not relay.refusals("queue_full"):
        await driver.send(frame)
        await driver.is_served()
        sent += len(frame)
        if sent > 100 * QUEUE_BYTES:
            raise AssertionError("its queue does not fill up")


async def test_the_session_of_a_slow_reader_gets_a_failure_by_name(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    await fill(relay, driver, slow)
    assert (await driver.failure()).code == "queue_full"


async def test_no_more_waits_for_a_slow_reader_than_its_queue_holds(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    await fill(relay, driver, slow)
    journey = relay.journey(driver, slow)
    for _ in range(20):
        await driver.send(journey.frame(0, bytes(100_000)))
    await driver.is_served()
    assert QUEUE_BYTES * 0.8 < await relay.metric("queue_bytes") <= QUEUE_BYTES


async def test_other_sessions_keep_their_order_and_lose_nothing_beside_a_slow_reader(
    relay: RunningRelay,
) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    other, quick = await relay.dial(kind="client"), await relay.dial(name="quick")
    await fill(relay, driver, slow)
    there, back = relay.journey(other, quick), []
    for step in range(100):
        await driver.send(relay.journey(driver, slow).frame(0, bytes(100_000)))
        await other.send(there.frame(0, step=step))
        await quick.send(there.frame(1, step=decode_frame(await quick.frame()).step))
        back.append(decode_frame(await other.frame()).step)
    assert back == list(range(100))


async def test_other_sessions_of_the_same_driver_go_on_beside_a_slow_reader(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    quick = await relay.dial(name="quick")
    await fill(relay, driver, slow)
    frame = relay.journey(driver, quick).frame(0)
    await driver.send(frame)
    assert await quick.frame() == frame


async def test_a_slow_reader_that_reads_again_gets_what_waited_in_order(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await relay.dial(name="slow", max_queue=1)
    journey = relay.journey(driver, slow)
    sent = 0
    while not relay.refusals("queue_full"):
        await driver.send(journey.frame(0, bytes(100_000), step=sent))
        await driver.is_served()
        sent += 1
    steps = [decode_frame(await slow.frame()).step for _ in range(sent - 1)]
    assert steps == list(range(sent - 1))


async def test_a_slow_reader_is_ended_at_last_and_its_drivers_told_at_once(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    await fill(relay, driver, slow)
    assert (await driver.failure()).code == "queue_full"
    later = asyncio.get_running_loop().time() + 1000.0
    for peer in relay.services.hub:
        peer.heard = later  # only its reading is in question
        if peer.id != slow.id:
            peer.drained = later
    relay.services.hub.look_at_some(later)
    assert (await driver.hear(HopLost)).peer == slow.id
    assert relay.services.hub.get(slow.id) is None
    assert await relay.metric("refusals_total", reason="unresponsive") == 1
    await eventually(lambda: relay.services.metrics.connections["volunteer"] == 0)


async def test_a_slow_reader_that_is_ended_is_not_listened_to_any_more(relay: RunningRelay) -> None:
    driver, slow = await relay.dial(kind="client"), await slow_reader(relay)
    await fill(relay, driver, slow)
    peer = relay.services.hub.get(slow.id)
    assert peer is not None
    peer.end(Replaced("for the test"))
    await eventually(lambda: relay.services.hub.get(slow.id) is None)
    before = relay.services.metrics.frames_forwarded[FrameType.STEP]
    await slow.send(relay.journey(driver, slow).frame(1))
    await eventually(lambda: relay.services.metrics.connections["volunteer"] == 0)
    assert relay.services.metrics.frames_forwarded[FrameType.STEP] == before
