"""relay/routing.py: routes that are signed for one session, and refusals by name."""

import time
from typing import Any

import pytest

from schema.errors import RouteForged
from schema.frames import FrameType, decode_frame
from schema.ids import SessionId, model_key, new_session_id
from schema.messages import Draining, GrantedHop, Heartbeat, Refused, RouteGrant, RouteRequest
from schema.routes import verify_route
from tests.relay.core.peers import FACTS, MODEL, Journey, ScriptedPeer
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually


async def ask(driver: ScriptedPeer, session: SessionId | None = None, **changes: Any) -> RouteGrant | Refused:
    """What the relay answers to a request for a route over the whole model."""
    fields: dict[str, Any] = {
        "request": "r1",
        "model": MODEL,
        "session": (session or new_session_id()).hex(),
    } | changes
    await driver.say(RouteRequest(**fields))
    return await driver.hear(RouteGrant | Refused)  # pyright: ignore[reportArgumentType]


async def granted(driver: ScriptedPeer, session: SessionId | None = None, **changes: Any) -> RouteGrant:
    answer = await ask(driver, session, **changes)
    assert isinstance(answer, RouteGrant), answer
    return answer


async def refused(driver: ScriptedPeer, **changes: Any) -> Refused:
    answer = await ask(driver, **changes)
    assert isinstance(answer, Refused), answer
    return answer


async def test_a_route_covers_the_model_and_is_signed_for_the_session(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    first = await relay.serving(0, 4, name="first")
    second = await relay.serving(4, 8, name="second")
    session = new_session_id()
    grant = await granted(driver, session)
    assert grant.hops == [
        GrantedHop(peer=first.id, name="first", start=0, end=4),
        GrantedHop(peer=second.id, name="second", start=4, end=8),
    ]
    route = verify_route(grant.route, session, relay.services.secret)
    assert (route.origin, route.model_key, route.expires) == (driver.id, model_key(MODEL), grant.expires)
    assert [hop.peer for hop in route.hops] == [first.id, second.id]
    with pytest.raises(RouteForged):
        verify_route(grant.route, new_session_id(), relay.services.secret)


async def test_a_route_lives_as_long_as_the_settings_say(relay: RunningRelay, driver: ScriptedPeer) -> None:
    await relay.serving()
    before = time.time()
    grant = await granted(driver)
    seconds = relay.services.settings.route_seconds
    assert int(before) + seconds <= grant.expires <= time.time() + seconds


async def test_a_granted_route_is_forwarded(relay: RunningRelay, driver: ScriptedPeer) -> None:
    volunteer = await relay.serving()
    session = new_session_id()
    journey = Journey(session, (await granted(driver, session)).route)
    await driver.send(journey.frame(0))
    assert await volunteer.frame() == journey.frame(0)
    await volunteer.send(journey.frame(1))
    assert await driver.frame() == journey.frame(1)


async def test_a_head_may_drive_a_route_that_begins_at_itself(relay: RunningRelay) -> None:
    own = await relay.serving(0, 8, head=True, name="own")
    await relay.serving(0, 8, name="other")
    assert [hop.peer for hop in (await granted(own)).hops] == [own.id]


async def test_a_route_may_be_over_some_blocks(relay: RunningRelay, driver: ScriptedPeer) -> None:
    volunteer = await relay.serving()
    hops = (await granted(driver, start=2, end=5)).hops
    assert [(hop.peer, hop.start, hop.end) for hop in hops] == [(volunteer.id, 2, 5)]


async def test_a_volunteer_that_the_session_excludes_is_not_used(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    first, second = await relay.serving(name="first"), await relay.serving(name="second")
    for excluded, used in ((first, second), (second, first)):
        grant = await granted(driver, exclude=[excluded.id])
        assert [hop.peer for hop in grant.hops] == [used.id]


async def test_a_volunteer_that_the_driver_prefers_is_used(relay: RunningRelay, driver: ScriptedPeer) -> None:
    both = await relay.serving(name="first"), await relay.serving(name="second")
    for one in both:
        grant = await granted(driver, prefer=[one.id])
        assert [hop.peer for hop in grant.hops] == [one.id]


async def test_a_route_in_place_of_a_broken_one_is_counted_by_what_broke_it(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    await relay.serving()
    await granted(driver, repairs="peer_gone")
    assert await relay.metric("repairs_total", reason="peer_gone") == 1


async def test_routes_are_counted_as_sessions(relay: RunningRelay, driver: ScriptedPeer) -> None:
    await relay.serving()
    await granted(driver)
    assert await relay.metric("sessions_total") == 1


# ---- refusals: the connection lives on ----


async def test_a_missing_block_is_named_with_when_to_ask_again(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    await relay.serving(0, 7)
    answer = await refused(driver, request="mine")
    assert answer.request == "mine"
    assert (answer.error.code, answer.error.message) == ("model_unavailable", "block 7 has no volunteer")
    assert answer.error.retry_after
    assert relay.refusals("model_unavailable") == 1
    await driver.is_served()


async def test_a_model_that_no_volunteer_has_reported_is_unavailable(driver: ScriptedPeer) -> None:
    assert (await refused(driver)).error.code == "model_unavailable"


async def test_a_model_that_the_swarm_does_not_serve_is_not_found(driver: ScriptedPeer) -> None:
    assert (await refused(driver, model="other")).error.code == "not_found"


@pytest.mark.parametrize(("start", "end"), [(3, 3), (5, 2), (0, FACTS.blocks + 1)])
async def test_blocks_that_are_not_in_the_model_are_refused(
    relay: RunningRelay, driver: ScriptedPeer, start: int, end: int
) -> None:
    await relay.serving()
    assert (await refused(driver, start=start, end=end)).error.code == "invalid_request"


async def test_a_volunteer_that_drains_gets_no_new_routes(relay: RunningRelay, driver: ScriptedPeer) -> None:
    volunteer = await relay.serving()
    await volunteer.say(Draining())
    await volunteer.is_served()
    assert (await refused(driver)).error.code == "model_unavailable"


async def test_a_volunteer_that_drains_goes_on_with_its_sessions(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    volunteer = await relay.serving()
    session = new_session_id()
    journey = Journey(session, (await granted(driver, session)).route)
    await volunteer.say(Draining())
    await volunteer.is_served()
    await driver.send(journey.frame(0, kind=FrameType.STEP))
    assert decode_frame(await volunteer.frame()).session == session


async def test_a_volunteer_that_left_gets_no_new_routes(relay: RunningRelay, driver: ScriptedPeer) -> None:
    volunteer = await relay.serving()
    await volunteer.close()
    await eventually(lambda: not relay.services.swarm.volunteers())
    assert (await refused(driver)).error.code == "model_unavailable"


async def test_sessions_that_begin_before_the_next_heartbeat_are_spread(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    both = [(await relay.serving(name="one")).id, (await relay.serving(name="other")).id]
    for peer in both:
        there = relay.services.swarm.get(peer)
        assert there is not None
        there.peer.rtt = 0.01
        relay.services.swarm.refresh(there)
    used = [(await granted(driver)).hops[0].peer for _ in range(20)]
    assert [used.count(peer) for peer in both] == [10, 10]


async def test_a_heartbeat_says_what_became_of_the_routes_granted_before(
    relay: RunningRelay, driver: ScriptedPeer
) -> None:
    volunteer = await relay.serving()
    await granted(driver)
    assert relay.services.swarm.holders(MODEL)[0].sessions == 1
    await volunteer.say(Heartbeat(sessions=5))
    await volunteer.is_served()
    assert relay.services.swarm.holders(MODEL)[0].sessions == 5
