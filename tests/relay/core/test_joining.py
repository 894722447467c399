"""relay/joining.py: from the offer to serving, and out again."""

import asyncio
import dataclasses
import time

from msgspec import UNSET

from relay.joining import STALE_SECONDS
from relay.store import Store
from schema.errors import Unavailable
from schema.ids import SessionId
from schema.messages import (
    Assignment,
    Draining,
    ErrorInfo,
    Failed,
    Heartbeat,
    Probe,
    Progress,
    Refused,
    RouteGrant,
    RouteRequest,
    Serving,
)
from schema.routes import verify_route
from tests.relay.core.joining_steps import assigned, loaded, refusal, rows, states
from tests.relay.core.peers import FACTS, MODEL, ScriptedPeer, offer
from tests.relay.core.support import RunningRelay, database_away
from tests.relay.core.waiting import eventually

# ---- the way in ----


async def test_the_whole_way_from_the_offer_to_serving(relay: RunningRelay) -> None:
    peer = await relay.dial(name="Ada")
    given = await assigned(peer, offer(head=True))
    assert given == Assignment(model=MODEL, start=0, end=FACTS.blocks, head=True)
    assert (states(relay), [row.state for row in await rows(relay)]) == (["loading"], ["loading"])

    await peer.load(given)
    probe = await peer.hear(Probe)
    assert (states(relay), [row.state for row in await rows(relay)]) == (["probing"], ["probing"])

    await peer.pass_probe(probe)
    await peer.hear(Serving)
    assert states(relay) == ["serving"]
    (row,) = await rows(relay)
    assert (row.peer, row.name, row.model) == (peer.id, "Ada", MODEL)
    assert (row.start, row.end, row.head) == (0, FACTS.blocks, True)
    assert (row.state, row.dtype, row.quantization) == ("serving", "float32", "none")
    assert relay.services.swarm.why_incomplete(MODEL) is None
    assert await relay.metric("volunteers", state="serving") == 1


async def test_the_probe_is_a_route_from_the_volunteer_to_itself(relay: RunningRelay) -> None:
    peer = await relay.dial()
    probe = await loaded(peer)
    route = verify_route(probe.route, SessionId(bytes.fromhex(probe.session)), relay.services.secret)
    assert route.origin == peer.id
    assert [(hop.peer, hop.span.start, hop.span.end) for hop in route.hops] == [(peer.id, 0, FACTS.blocks)]


async def test_progress_is_shown(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await assigned(peer, offer())
    await peer.say(Progress(phase="fetching", done=3, total=10))
    await peer.is_served()
    shown = relay.services.swarm.status().volunteers[0]
    assert (shown.state, shown.done, shown.total) == ("loading", 3, 10)


async def test_a_heartbeat_tells_the_load(relay: RunningRelay) -> None:
    peer = await relay.serving()
    await peer.say(Heartbeat(sessions=7))
    await peer.is_served()
    assert relay.services.swarm.holders(MODEL)[0].sessions == 7


async def test_a_heartbeat_tells_the_speed(relay: RunningRelay) -> None:
    peer = await relay.serving()
    swarm = relay.services.swarm
    assert swarm.status().volunteers[0].blocks_per_second is UNSET
    await peer.say(Heartbeat(blocks_per_second=12.5))
    await peer.is_served()
    assert swarm.status().volunteers[0].blocks_per_second == 12.5
    seen = swarm.version
    await peer.say(Heartbeat(blocks_per_second=12.5))
    await peer.say(Heartbeat())
    await peer.is_served()
    assert swarm.version == seen, "nothing has changed"
    assert swarm.status().volunteers[0].blocks_per_second == 12.5


async def test_the_first_volunteers_report_of_a_model_is_kept(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await assigned(peer, offer())
    (model,) = await relay.services.store.list_models()
    assert (model.facts, model.reported_by) == (FACTS, peer.id)
    assert relay.services.swarm.facts(MODEL) == FACTS


async def test_two_volunteers_one_after_the_other_complete_the_model(relay: RunningRelay) -> None:
    first, second = await relay.dial(), await relay.dial()
    one = await assigned(first, offer(max_blocks=4))
    other = await assigned(second, offer(max_blocks=4))
    assert [(one.start, one.end), (other.start, other.end)] == [(0, 4), (4, 8)]


async def test_volunteers_that_offer_at_once_do_not_take_the_same_hole(relay: RunningRelay) -> None:
    peers = [await relay.dial() for _ in range(4)]
    given = await asyncio.gather(*(assigned(peer, offer(max_blocks=2)) for peer in peers))
    assert sorted((one.start, one.end) for one in given) == [(0, 2), (2, 4), (4, 6), (6, 8)]


async def renew_lease(relay: RunningRelay, replica: str, now: float) -> None:
    """As a replica of that name does."""
    async with Store.open(dataclasses.replace(relay.services.settings, replica=replica)) as store:
        await store.renew_lease(now)


async def test_a_volunteer_on_another_replica_counts(relay: RunningRelay) -> None:
    peer = await relay.serving(0, 4)
    (row,) = await rows(relay)
    peer.reset()
    await eventually(lambda: relay.services.hub.get(peer.id) is None)
    await relay.services.store.save_volunteer(dataclasses.replace(row, replica="elsewhere"))
    await renew_lease(relay, "elsewhere", time.time())
    given = await assigned(await relay.dial(), offer(max_blocks=4))
    assert (given.start, given.end) == (4, 8)


async def test_a_row_that_nobody_refreshes_holds_nothing(relay: RunningRelay) -> None:
    peer = await relay.serving(0, 4)
    (row,) = await rows(relay)
    peer.reset()
    await eventually(lambda: relay.services.hub.get(peer.id) is None)
    await relay.services.store.save_volunteer(dataclasses.replace(row, replica="dead"))
    await renew_lease(relay, "dead", time.time() - STALE_SECONDS - 1)
    given = await assigned(await relay.dial(), offer(max_blocks=4))
    assert (given.start, given.end) == (0, 4)


# ---- pausing ----


async def pause(peer: ScriptedPeer, paused: bool = True) -> None:
    await peer.say(Heartbeat(paused=paused) if paused else Heartbeat())
    await peer.is_served()


async def test_a_paused_volunteer_is_in_no_new_route_until_it_resumes(relay: RunningRelay) -> None:
    volunteer, driver = await relay.serving(), await relay.dial(kind="client")
    await pause(volunteer)
    assert await relay.metric("volunteers", state="paused") == 1
    await driver.say(RouteRequest(request="r", model=MODEL, session="0" * 32))
    assert (await driver.hear(Refused)).error.code == "model_unavailable"
    await pause(volunteer, False)
    await driver.say(RouteRequest(request="r", model=MODEL, session="0" * 32))
    await driver.hear(RouteGrant)


async def test_a_route_over_a_volunteer_that_has_paused_goes_on(relay: RunningRelay) -> None:
    volunteer, driver = await relay.serving(), await relay.dial(kind="client")
    journey = relay.journey(driver, volunteer)
    await pause(volunteer)
    await driver.send(journey.frame(0))
    assert await volunteer.frame() == journey.frame(0)


async def test_a_volunteer_that_pauses_while_it_joins_is_in_no_route_at_all(relay: RunningRelay) -> None:
    peer = await relay.dial()
    probe = await loaded(peer)
    await pause(peer)
    await peer.pass_probe(probe)
    await peer.hear(Serving)
    assert relay.services.swarm.holders(MODEL) == []


async def test_the_blocks_of_a_paused_volunteer_are_given_to_the_next(relay: RunningRelay) -> None:
    volunteer = await relay.serving(0, 4)
    await pause(volunteer)
    given = await assigned(await relay.dial(), offer(max_blocks=4, head=True))
    assert (given.start, given.end, given.head) == (0, 4, True)


async def test_pausing_asks_nothing_of_the_database(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    async with database_away(relay):
        await pause(volunteer)
        assert relay.services.swarm.holders(MODEL) == []


# ---- the way out ----


async def test_leaving_takes_away_coverage_and_row(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    await volunteer.close()
    await eventually(lambda: not relay.server.server_state.tasks)
    assert relay.services.swarm.why_incomplete(MODEL) == (
        "blocks 0\N{EN DASH}7 have no volunteer; "
        "they need about 2.0 kB of memory at 16 bits, or 562 bytes in nf4"
    )
    assert await rows(relay) == []


async def test_a_volunteer_that_vanishes_frees_its_span_for_the_next(relay: RunningRelay) -> None:
    volunteer = await relay.serving(0, 4)
    volunteer.reset()
    await eventually(lambda: not relay.server.server_state.tasks)
    given = await assigned(await relay.dial(), offer(max_blocks=4))
    assert (given.start, given.end) == (0, 4)


async def test_draining_frees_the_span_for_the_next(relay: RunningRelay) -> None:
    volunteer = await relay.serving(0, 4)
    await volunteer.say(Draining())
    await volunteer.is_served()
    while [row.state for row in await rows(relay)] != ["draining"]:
        await volunteer.is_served()
    given = await assigned(await relay.dial(), offer(max_blocks=4))
    assert (given.start, given.end) == (0, 4)


async def test_draining_before_an_offer_changes_nothing(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.say(Draining())
    await peer.is_served()
    assert await rows(relay) == []


async def test_a_volunteer_that_cannot_go_on_frees_its_span_at_once(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await assigned(peer, offer(max_blocks=4))
    await peer.say(Failed(error=ErrorInfo.of(Unavailable("no memory left"))))
    await peer.is_served()
    assert relay.services.swarm.volunteers() == []
    given = await assigned(await relay.dial(), offer(max_blocks=4))
    assert (given.start, given.end) == (0, 4)


async def test_a_client_that_leaves_asks_nothing_of_the_database(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    async with database_away(relay):
        await client.close()
        await eventually(lambda: not relay.server.server_state.tasks)


async def test_a_probe_that_was_given_up_is_not_remembered(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await loaded(peer)
    assert len(relay.services.forwarder._probes) == 1
    await peer.close()
    await eventually(lambda: not relay.services.forwarder._probes)


async def test_a_probe_that_passed_is_not_remembered(relay: RunningRelay) -> None:
    await relay.serving()
    assert not relay.services.forwarder._probes


# ---- the database is away ----


async def test_an_offer_while_the_database_is_away_is_refused_with_when_to_come_back(
    relay: RunningRelay,
) -> None:
    peer = await relay.dial()
    async with database_away(relay):
        await peer.say(offer())
        error = await refusal(peer)
    assert error.code == "unavailable"
    assert error.retry_after
    assert peer.close_code == 1013
    assert relay.services.swarm.volunteers() == []


async def test_who_is_refused_while_the_database_is_away_may_come_again(relay: RunningRelay) -> None:
    peer = await relay.dial()
    async with database_away(relay):
        await peer.say(offer())
        await peer.goodbye()
        await eventually(lambda: not relay.server.server_state.tasks)
    again = await relay.dial(peer.token, instance=peer.instance)
    await again.join(0, 8)


async def test_loading_that_ends_while_the_database_is_away_is_refused_with_when_to_come_back(
    relay: RunningRelay,
) -> None:
    peer = await relay.dial()
    given = await assigned(peer, offer())
    async with database_away(relay):
        await peer.load(given)
        error = await refusal(peer)
    assert (error.code, bool(error.retry_after)) == ("unavailable", True)


async def test_a_volunteer_that_serves_goes_on_while_the_database_is_away(relay: RunningRelay) -> None:
    volunteer, driver = await relay.serving(), await relay.dial(kind="client")
    async with database_away(relay):
        await driver.say(RouteRequest(request="r", model=MODEL, session="0" * 32))
        await driver.hear(RouteGrant)
        journey = relay.journey(driver, volunteer)
        await driver.send(journey.frame(0))
        assert await volunteer.frame() == journey.frame(0)


async def test_a_volunteer_may_drain_while_the_database_is_away(relay: RunningRelay) -> None:
    volunteer, driver = await relay.serving(), await relay.dial(kind="client")
    async with database_away(relay):
        await volunteer.say(Draining())
        await volunteer.is_served()
        assert states(relay) == ["draining"]
        journey = relay.journey(driver, volunteer)
        await driver.send(journey.frame(0))
        assert await volunteer.frame() == journey.frame(0)


async def test_a_volunteer_may_leave_while_the_database_is_away(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    async with database_away(relay):
        await volunteer.close()
        await eventually(lambda: not relay.server.server_state.tasks)
    assert relay.services.swarm.volunteers() == []
    assert len(await rows(relay)) == 1  # until it is stale
