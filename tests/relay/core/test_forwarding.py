"""relay/forwarding.py: the same bytes on the next hop's queue, and news of hops that leave."""

import random
import time

import pytest
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from relay import forwarding
from relay.peer import Peer
from schema.frames import FrameType, decode_frame
from schema.ids import SessionId, Span, model_key, new_session_id
from schema.limits import MAX_PAYLOAD_BYTES
from schema.messages import Failure, HopLost, encode_failure
from schema.routes import Hop, Route, sign_route
from tests.relay.core.peers import Journey, ScriptedPeer
from tests.relay.core.support import RunningRelay
from tests.relay.core.swarmlet import Swarmlet
from tests.relay.core.waiting import eventually

# ---- what passes ----


@pytest.mark.parametrize("kind", [FrameType.STEP, FrameType.PREFILL, FrameType.PROBE, FrameType.FORK])
async def test_a_frame_passes_byte_by_byte(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, kind: FrameType
) -> None:
    frame = relay.journey(driver, first).frame(0, random.randbytes(100_000), kind)
    await driver.send(frame)
    assert await first.frame() == frame


async def test_a_frame_of_the_largest_payload_passes(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    frame = relay.journey(driver, first).frame(0, bytes(MAX_PAYLOAD_BYTES))
    await driver.send(frame)
    assert await first.frame() == frame


async def test_a_step_goes_over_two_hops_and_back(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    stops = [driver, first, second, driver]
    for hop in range(3):
        frame = journey.frame(hop, f"after {hop} hops".encode())
        await stops[hop].send(frame)
        assert await stops[hop + 1].frame() == frame


async def test_a_driver_that_is_hop_0_itself_sends_to_hop_1(
    relay: RunningRelay, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(first, first, second)
    await first.send(journey.frame(1))
    assert await second.frame() == journey.frame(1)
    await second.send(journey.frame(2))
    assert await first.frame() == journey.frame(2)


async def test_frames_of_one_session_keep_their_order(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.send(*(journey.frame(0, step=step) for step in range(200)))
    assert [decode_frame(await first.frame()).step for _ in range(200)] == list(range(200))


async def test_a_failure_reaches_the_driver_from_any_hop(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    payload = encode_failure(Failure(code="kv_cache_full", message="no room", hop=1))
    await second.send(journey.frame(1, payload, FrameType.FAILURE))
    assert await driver.frame() == journey.frame(1, payload, FrameType.FAILURE)


async def test_what_a_hop_says_of_its_time_reaches_the_driver_from_any_hop(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    for hop, sender in enumerate((first, second)):
        trace = journey.frame(hop, bytes(8), FrameType.TRACE)
        await sender.send(trace)
        assert await driver.frame() == trace
    assert relay.services.metrics.frames_forwarded[FrameType.TRACE] == 2


async def test_what_a_hop_says_of_its_time_is_nobodys_failure_when_the_driver_is_gone(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.close()
    await eventually(lambda: relay.services.hub.get(driver.id) is None)
    await first.send(journey.frame(0, bytes(8), FrameType.TRACE))
    await first.is_served()
    assert sum(relay.services.metrics.refusals.values()) == 1  # the ping of `is_served`


async def test_a_close_reaches_all_hops_at_once(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    close = relay.journey(driver, first, second).frame(0, b"", FrameType.CLOSE)
    await driver.send(close)
    assert await first.frame() == close
    assert await second.frame() == close


async def test_a_close_passes_on_a_route_that_has_expired(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    close = relay.journey(driver, first, lives=-10).frame(0, b"", FrameType.CLOSE)
    await driver.send(close)
    assert await first.frame() == close


async def test_forwarded_frames_are_counted_by_type_and_bytes(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    sent = [journey.frame(0), journey.frame(0, bytes(1000), FrameType.PREFILL), journey.frame(0, step=1)]
    await driver.send(*sent)
    for _ in sent:
        await first.frame()
    assert await relay.metric("frames_forwarded_total", type="step") == 2
    assert await relay.metric("frames_forwarded_total", type="prefill") == 1
    assert await relay.metric("bytes_forwarded_total") == sum(map(len, sent))


# ---- a hop that leaves ----


async def test_the_driver_is_told_at_once_when_a_hop_of_its_session_leaves(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await driver.send(journey.frame(0))
    await first.frame()
    await second.close()
    assert await driver.hear(HopLost) == HopLost(session=journey.session.hex(), peer=second.id)


async def test_the_driver_is_told_when_a_hop_vanishes_in_the_middle_of_a_frame(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey, other = relay.journey(driver, first), relay.journey(driver, second)
    await driver.send(journey.frame(0))
    await first.frame()
    whole = WebSocketFrame(Opcode.BINARY, journey.frame(1, bytes(50_000))).serialize(mask=True)
    first.socket.transport.write(whole[: len(whole) // 2])
    await eventually(relay.unfinished_bytes)
    first.reset()
    assert await driver.hear(HopLost) == HopLost(session=journey.session.hex(), peer=first.id)
    await driver.send(other.frame(0))
    assert await second.frame() == other.frame(0)


async def test_a_driver_that_is_gone_is_not_told_of_its_own_leaving(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    await driver.send(relay.journey(driver, first).frame(0))
    await first.frame()
    await driver.close()
    await eventually(lambda: relay.services.hub.get(driver.id) is None)
    await first.is_served()  # and heard nothing else


async def test_the_sessions_of_a_driver_that_is_gone_are_closed_on_every_hop(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await driver.send(journey.frame(0))
    await first.frame()
    await driver.close()
    for hop in (first, second):
        frame = decode_frame(await hop.frame())
        assert (frame.type, frame.session) == (FrameType.CLOSE, journey.session)


async def test_what_is_left_of_a_broken_session_is_closed_when_its_driver_leaves_too(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await driver.send(journey.frame(0))
    await first.frame()
    await first.close()
    await driver.hear(HopLost)
    driver.reset()  # before it could close the session
    closed = decode_frame(await second.frame())
    assert (closed.type, closed.session) == (FrameType.CLOSE, journey.session)


async def test_other_drivers_are_not_told(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    await driver.send(relay.journey(driver, first).frame(0))
    await first.frame()
    await second.close()
    await eventually(lambda: relay.services.hub.get(second.id) is None)
    await driver.is_served()


async def test_a_closed_session_is_forgotten(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.send(journey.frame(0), journey.frame(0, b"", FrameType.CLOSE))
    await first.frame()
    await first.frame()
    await first.close()
    await eventually(lambda: relay.services.hub.get(first.id) is None)
    await driver.is_served()  # without a word about the session


# ---- soft state stays small ----


async def test_the_oldest_routes_are_forgotten_and_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MAX_CACHED_ROUTES", 2)
    swarmlet = Swarmlet()
    driver, volunteer, _ = swarmlet.peers
    for _ in range(5):
        session = new_session_id()
        route = Route(driver.id, (Hop(volunteer.id, Span(0, 1)),), model_key("m"), int(time.time()) + 100)
        frame = Journey(session, sign_route(route, session, swarmlet.secret)).frame(0)
        swarmlet.forwarder.forward(driver, frame)
    assert len(swarmlet.forwarder._routes) == 2
    swarmlet.forwarder.forward(driver, swarmlet.journey.frame(0))
    assert swarmlet.metrics.frames_forwarded[FrameType.STEP] == 6


async def test_only_routes_that_are_known_are_known_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgotten, closed, or lost with their driver: what is kept of a peer ends with its routes."""
    monkeypatch.setattr(forwarding, "MAX_CACHED_ROUTES", 3)
    swarmlet = Swarmlet()
    driver, volunteer, other = swarmlet.peers

    def passed(*peers: Peer) -> Journey:
        session = new_session_id()
        hops = tuple(Hop(peer.id, Span(number, number + 1)) for number, peer in enumerate(peers))
        route = Route(driver.id, hops, model_key("m"), int(time.time()) + 100)
        journey = Journey(session, sign_route(route, session, swarmlet.secret))
        swarmlet.forwarder.forward(driver, journey.frame(0))
        return journey

    for _ in range(3):
        passed(other)
    closed = passed(volunteer)
    passed(volunteer, other)
    passed(volunteer)
    swarmlet.forwarder.forward(driver, closed.frame(0, b"", FrameType.CLOSE))
    assert swarmlet.forwarder.peer_left(other.id) == 1
    assert swarmlet.forwarder.peer_left(other.id) == 0
    assert swarmlet.forwarder.peer_left(volunteer.id) == 2
    assert swarmlet.forwarder.peer_left(driver.id) == 0
    assert swarmlet.forwarder._routes == swarmlet.forwarder._passing == {}


async def test_probes_that_nobody_waits_for_are_not_remembered() -> None:
    swarmlet = Swarmlet()
    last = swarmlet.peers[2]
    swarmlet.forwarder.forward(last, swarmlet.journey.frame(2, kind=FrameType.PROBE))
    assert not swarmlet.forwarder.probe_passed(swarmlet.journey.session)


async def test_an_expected_probe_has_passed_when_its_answer_went_back() -> None:
    swarmlet = Swarmlet()
    session = SessionId(swarmlet.journey.session)
    swarmlet.forwarder.expect_probe(session)
    for hop, sender in enumerate(swarmlet.peers):
        assert not swarmlet.forwarder.probe_passed(session)
        swarmlet.forwarder.forward(sender, swarmlet.journey.frame(hop, kind=FrameType.PROBE))
    assert swarmlet.forwarder.probe_passed(session)


async def test_a_probes_route_is_not_kept() -> None:
    """Nobody closes it, and there is one every few minutes for as long as a volunteer serves."""
    swarmlet = Swarmlet()
    volunteer = swarmlet.peers[1]
    for _ in range(3):
        session = new_session_id()
        route = Route(volunteer.id, (Hop(volunteer.id, Span(0, 1)),), model_key("m"), int(time.time()) + 100)
        journey = Journey(session, sign_route(route, session, swarmlet.secret))
        swarmlet.forwarder.expect_probe(session)
        for hop in range(2):
            swarmlet.forwarder.forward(volunteer, journey.frame(hop, kind=FrameType.PROBE))
        assert swarmlet.forwarder.probe_passed(session) is True
    assert len(swarmlet.forwarder._routes) == 0


async def test_a_close_that_does_not_fit_a_full_queue_is_counted() -> None:
    swarmlet = Swarmlet()
    driver = swarmlet.peers[0]
    slow = swarmlet.connect(swarmlet.peers[1].id, queue_bytes=-(2**40))
    swarmlet.forwarder.forward(driver, swarmlet.journey.frame(0, b"", FrameType.CLOSE))
    assert slow.queued_bytes == 0
    assert swarmlet.metrics.refusals["queue_full"] == 1
