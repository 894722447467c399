"""relay/sockets.py: what becomes of a volunteer that connects again."""

import pytest

from relay.reply import repairing
from schema.errors import GenerationFailed
from schema.generation import GenerationRequest, Message
from schema.ids import new_instance_key
from schema.messages import Generate, HopLost, RouteGrant, RouteRequest
from tests.relay.core.peers import MODEL, ScriptedPeer, answer
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import DEADLINE, eventually

QUESTION = GenerationRequest(model=MODEL, messages=[Message("user", "hello")])


async def serving_twice(relay: RunningRelay) -> tuple[ScriptedPeer, ScriptedPeer]:
    """A volunteer that serves, and the same one connecting again."""
    older = await relay.serving(head=True, name="older")
    newer = await relay.dial(older.token, instance=older.instance, name="newer")
    return older, newer


async def test_the_older_connection_is_closed_as_replaced(relay: RunningRelay) -> None:
    older, newer = await serving_twice(relay)
    assert newer.id == older.id
    assert await older.goodbye() == ("replaced", 4410)
    assert await relay.metric("refusals_total", reason="replaced") == 1
    await newer.is_served()


async def test_the_newer_connection_serves_in_the_olders_place(relay: RunningRelay) -> None:
    older, newer = await serving_twice(relay)
    await older.goodbye()
    await newer.join(0, 8, head=True)
    driver = await relay.dial(kind="client")
    await driver.say(RouteRequest(request="r", model=MODEL, session="0" * 32))
    hops = (await driver.hear(RouteGrant)).hops
    assert [(hop.peer, hop.name) for hop in hops] == [(newer.id, "newer")]
    journey = relay.journey(driver, newer)
    await driver.send(journey.frame(0))
    assert await newer.frame() == journey.frame(0)
    rows = await relay.services.store.volunteers()
    assert [(row.peer, row.state) for row in rows] == [(newer.id, "serving")]


async def test_the_newer_connection_is_in_no_route_before_it_serves_itself(relay: RunningRelay) -> None:
    _, newer = await serving_twice(relay)
    await newer.is_served()
    assert relay.services.swarm.holders(MODEL) == []
    assert relay.services.swarm.volunteers() == []


async def test_drivers_are_told_that_what_was_on_its_way_to_the_older_is_lost(relay: RunningRelay) -> None:
    older, driver = await relay.serving(), await relay.dial(kind="client")
    journey = relay.journey(driver, older)
    await driver.send(journey.frame(0))
    await older.frame()
    await relay.dial(older.token, instance=older.instance)
    assert await driver.hear(HopLost) == HopLost(session=journey.session.hex(), peer=older.id)


@pytest.mark.usefixtures("one_head_only")
async def test_the_replies_of_the_older_connection_end_with_an_error(relay: RunningRelay) -> None:
    older = await relay.serving(head=True)
    async with relay.services.replies.start(QUESTION) as reply:
        await older.hear(Generate)
        await relay.dial(older.token, instance=older.instance)
        events = reply.events(DEADLINE)
        assert await anext(events) == repairing(reply.request)
        with pytest.raises(GenerationFailed, match="has left"):
            await anext(events)


async def test_replies_go_to_the_newer_connection(relay: RunningRelay) -> None:
    _, newer = await serving_twice(relay)
    await newer.join(0, 8, head=True)
    async with relay.services.replies.start(QUESTION) as reply:
        await answer(newer, "Hi")
        assert [type(event).__name__ async for event in reply.events(DEADLINE)] == ["Delta", "Finished"]


async def test_the_older_connections_departure_leaves_the_newer_alone(relay: RunningRelay) -> None:
    older, newer = await serving_twice(relay)
    await newer.join(0, 8, head=True)
    await older.closed()
    await eventually(lambda: relay.services.metrics.connections["volunteer"] == 1)
    assert [volunteer.state for volunteer in relay.services.swarm.volunteers()] == ["serving"]
    assert len(await relay.services.store.volunteers()) == 1


async def test_a_volunteer_that_connects_again_and_again_ends_up_serving(relay: RunningRelay) -> None:
    token, instance = await relay.token(), new_instance_key()
    peers = [await relay.dial(token, instance=instance) for _ in range(5)]
    for peer in peers[:-1]:
        assert await peer.goodbye() == ("replaced", 4410)
    await peers[-1].join(0, 8)
    assert len(relay.services.hub) == 1
