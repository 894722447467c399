"""relay/forwarding.py: a frame that may not pass is refused by name, and harms nobody."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from relay import forwarding
from schema.frames import FrameType, decode_frame
from schema.ids import SessionId, new_session_id
from schema.messages import decode_failure
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually

# ---- what is refused, the connection living on ----


async def assert_refused(relay: RunningRelay, sender: ScriptedPeer, frame: bytes, code: str) -> None:
    """The frame goes nowhere, is counted by its code, and its sender is served as before."""
    before = relay.refusals(code)
    await sender.send(frame)
    await sender.is_served()
    assert relay.refusals(code) == before + 1
    assert sum(relay.services.metrics.frames_forwarded.values()) == 0


async def test_a_route_that_no_relay_signed_is_refused(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    forged = relay.journey(driver, first, secret=b"x" * 32)
    await assert_refused(relay, driver, forged.frame(0), "route_forged")


async def test_a_route_with_a_changed_hop_is_refused(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    changed = journey.route.replace(bytes.fromhex(first.id), bytes.fromhex(second.id))
    await assert_refused(relay, driver, replace(journey, route=changed).frame(0), "route_forged")


async def test_another_sessions_route_is_refused(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await assert_refused(relay, driver, replace(journey, session=new_session_id()).frame(0), "route_forged")


async def test_another_sessions_route_is_refused_after_it_was_used(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.send(journey.frame(0))
    await first.frame()
    await driver.send(replace(journey, session=new_session_id()).frame(0))
    await driver.is_served()
    assert relay.refusals("route_forged") == 1


async def test_a_frame_at_the_wrong_hop_is_refused(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await assert_refused(relay, second, journey.frame(1), "wrong_hop")


async def test_a_driver_cannot_send_in_a_hops_name(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    await assert_refused(relay, driver, relay.journey(driver, first, second).frame(1), "wrong_hop")


async def test_who_is_not_on_the_route_cannot_send_on_it(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    await assert_refused(relay, second, relay.journey(driver, first).frame(0), "wrong_hop")


@pytest.mark.parametrize("kind", [FrameType.CLOSE, FrameType.FAILURE, FrameType.TRACE])
async def test_who_is_not_on_the_route_has_nothing_to_say_of_its_session(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer, kind: FrameType
) -> None:
    await assert_refused(relay, second, relay.journey(driver, first).frame(0, b"", kind), "wrong_hop")


async def test_a_hop_cannot_fork_what_its_driver_had_kept(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    fork = relay.journey(driver, first, second).frame(0, bytes(16), FrameType.FORK)
    await assert_refused(relay, first, fork, "wrong_hop")


async def test_a_hop_cannot_close_a_session_that_it_does_not_drive(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    close = relay.journey(driver, first).frame(0, b"", FrameType.CLOSE)
    await assert_refused(relay, first, close, "wrong_hop")


async def test_a_hop_cannot_tell_anothers_failure(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    failure = relay.journey(driver, first, second).frame(0, b"{}", FrameType.FAILURE)
    await assert_refused(relay, second, failure, "wrong_hop")


async def test_a_driver_cannot_tell_itself_a_failure(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    failure = relay.journey(driver, first).frame(1, b"{}", FrameType.FAILURE)
    await assert_refused(relay, driver, failure, "wrong_hop")


async def test_a_failure_whose_driver_has_left_is_counted(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.close()
    await eventually(lambda: relay.services.hub.get(driver.id) is None)
    await assert_refused(relay, first, journey.frame(0, b"{}", FrameType.FAILURE), "peer_gone")


async def test_a_frame_of_an_unknown_type_is_skipped_and_counted(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    await driver.send(relay.journey(driver, first).frame(0, kind=99))
    await driver.is_served()
    assert await relay.metric("skipped_frames_total") == 1


# ---- what is refused, the driver being told ----


async def assert_failed(
    relay: RunningRelay, driver: ScriptedPeer, refused: bytes, code: str, *, hop: int
) -> None:
    """The driver gets a FAILURE that names the reason and belongs to the refused frame."""
    told, sent = decode_frame(await driver.frame()), decode_frame(refused)
    assert told.type == FrameType.FAILURE
    assert (told.session, told.step, told.position, told.epoch, told.route) == (
        sent.session,
        sent.step,
        sent.position,
        sent.epoch,
        sent.route,
    )
    failure = decode_failure(told.payload)
    assert (failure.code, failure.hop) == (code, hop)
    assert relay.refusals(code) == 1


async def test_an_expired_route_is_refused_and_the_driver_told(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    frame = relay.journey(driver, first, lives=-1).frame(0, step=3, position=7, epoch=2)
    await driver.send(frame)
    await assert_failed(relay, driver, frame, "route_expired", hop=0)


async def test_a_route_that_expires_while_it_is_used_is_refused_from_then_on(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    journey = relay.journey(driver, first, lives=100)
    await driver.send(journey.frame(0))
    await first.frame()
    later = time.time() + 100
    monkeypatch.setattr(forwarding.time, "time", lambda: later)
    await driver.send(journey.frame(0, step=1))
    await assert_failed(relay, driver, journey.frame(0, step=1), "route_expired", hop=0)


async def test_a_frame_to_a_hop_that_is_not_connected_is_refused_and_the_driver_told(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await second.close()
    await eventually(lambda: relay.services.hub.get(second.id) is None)
    await first.send(journey.frame(1, step=5))
    await assert_failed(relay, driver, journey.frame(1, step=5), "peer_gone", hop=1)


async def test_an_answer_whose_driver_has_left_is_counted(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.close()
    await eventually(lambda: relay.services.hub.get(driver.id) is None)
    await assert_refused(relay, first, journey.frame(1), "peer_gone")


# ---- what the log says ----


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[SessionId, int]]]:
    """Sessions and steps of the forwarder's warnings so far."""
    caplog.set_level(logging.DEBUG, forwarding.__name__)

    def read() -> list[tuple[SessionId, int]]:
        lines = [line.__dict__ for line in caplog.records if line.name == forwarding.__name__]
        return [(line["session"], line["step"]) for line in lines if line["levelname"] == "WARNING"]

    return read


async def test_a_session_whose_steps_are_stopped_is_warned_of_once_by_session_and_step(
    relay: RunningRelay,
    driver: ScriptedPeer,
    first: ScriptedPeer,
    warned: Callable[[], list[tuple[SessionId, int]]],
) -> None:
    journey, other = (relay.journey(driver, first, lives=-1) for _ in range(2))
    await driver.send(journey.frame(0, step=3), journey.frame(0, step=4), other.frame(0, step=7))
    await driver.is_served()
    assert relay.refusals("route_expired") == 3
    assert warned() == [(journey.session, 3), (other.session, 7)]


async def test_a_warning_says_who_sent_the_step_and_why_it_was_stopped(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    await driver.send(relay.journey(driver, first, lives=-1).frame(0))
    await driver.is_served()
    (line,) = [line.__dict__ for line in caplog.records if line.name == forwarding.__name__]
    assert (line["levelname"], line["peer"], line["reason"]) == ("WARNING", driver.id, "route_expired")


async def test_only_the_last_sessions_that_were_warned_of_are_remembered(
    relay: RunningRelay,
    driver: ScriptedPeer,
    first: ScriptedPeer,
    warned: Callable[[], list[tuple[SessionId, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "MAX_WARNED_SESSIONS", 2)
    journeys = [relay.journey(driver, first, lives=-1) for _ in range(3)]
    for journey in (*journeys, journeys[2], journeys[0]):
        await driver.send(journey.frame(0))
    await driver.is_served()
    assert [session for session, _ in warned()] == [journeys[i].session for i in (0, 1, 2, 0)]


async def test_a_frame_that_nobody_is_told_of_is_not_warned_of(
    relay: RunningRelay,
    driver: ScriptedPeer,
    first: ScriptedPeer,
    warned: Callable[[], list[tuple[SessionId, int]]],
) -> None:
    await driver.send(relay.journey(driver, first, secret=b"x" * 32).frame(0))
    await driver.is_served()
    assert relay.refusals("route_forged") == 1
    assert warned() == []
