"""Moving volunteers to other blocks: relay/joining.py and relay/jobs.py, with peers that act as told."""

import asyncio

import msgspec
import pytest

from relay import jobs
from relay.records import HeldTogether
from schema.errors import Unavailable
from schema.ids import Span, new_session_id
from schema.messages import (
    Assignment,
    BlockRun,
    Draining,
    Heartbeat,
    Offer,
    Probe,
    RouteGrant,
    RouteRequest,
    Serving,
)
from tests.relay.core.joining_steps import rows, states
from tests.relay.core.peers import FACTS, MODEL, Journey, ScriptedPeer, offer
from tests.relay.core.support import RunningRelay, database_away


def with_model(message: Offer, **changes: object) -> Offer:
    """An offer with changes in what it says of its model."""
    model = msgspec.structs.replace(message.models[0], **changes)
    return msgspec.structs.replace(message, models=[model])


async def serving(relay: RunningRelay, *, movable: bool = True, blocks: int = 4) -> ScriptedPeer:
    """A volunteer of the first blocks, which may be moved."""
    peer = await relay.dial()
    plain = offer(0, blocks, head=True)
    await peer.say(with_model(plain, room=blocks) if movable else plain)
    await peer.load(await peer.hear(Assignment))
    await peer.pass_probe(await peer.hear(Probe))
    await peer.hear(Serving)
    return peer


async def rebalance(relay: RunningRelay) -> None:
    await jobs.rebalance(relay.services)


def spans(relay: RunningRelay) -> list[Span]:
    return sorted(volunteer.placement.span for volunteer in relay.services.swarm.volunteers())


async def moved(one: ScriptedPeer, other: ScriptedPeer, relay: RunningRelay) -> ScriptedPeer:
    """Whichever of two was told to move."""
    by_id = {peer.id: peer for peer in (one, other)}
    (mover,) = [
        volunteer.peer.id for volunteer in relay.services.swarm.volunteers() if volunteer.state == "loading"
    ]
    return by_id[mover]


async def test_not_everybody_is_read_where_nobody_could_make_a_difference(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving(relay)
    thousands = [HeldTogether(0, FACTS.blocks, FACTS.blocks, 1e5, 10.0)]

    async def held_together(*_: object, **__: object) -> list[HeldTogether]:
        return thousands

    monkeypatch.setattr(relay.services.store, "held_together", held_together)
    monkeypatch.setattr(relay.services.store, "move_span", None)
    await rebalance(relay)
    assert relay.services.metrics.moves == 0


async def test_a_volunteer_is_moved_to_blocks_that_nobody_holds_and_serves_them(relay: RunningRelay) -> None:
    one, other = await serving(relay), await serving(relay)
    await rebalance(relay)
    mover = await moved(one, other, relay)
    told = await mover.hear(Assignment)
    assert (told.start, told.end, told.model) == (4, 8, MODEL)
    assert sorted((row.start, row.state) for row in await rows(relay)) == [(0, "serving"), (4, "loading")]
    await mover.load(told)
    await mover.pass_probe(await mover.hear(Probe))
    await mover.hear(Serving)
    assert (spans(relay), states(relay)) == ([Span(0, 4), Span(4, 8)], ["serving", "serving"])
    assert relay.services.swarm.why_incomplete(MODEL) is None
    assert await relay.metric("moves_total") == 1


async def test_while_it_moves_it_is_in_no_new_route_and_serves_its_sessions(relay: RunningRelay) -> None:
    one, other = await serving(relay), await serving(relay)
    driver = await relay.dial(kind="client")
    journeys: list[tuple[str, Journey]] = []
    for _ in range(2):
        session = new_session_id()
        await driver.say(RouteRequest(request="r", model=MODEL, session=session.hex(), start=0, end=4))
        grant = await driver.hear(RouteGrant)
        journeys.append((grant.hops[0].peer, Journey(session, grant.route)))
    await rebalance(relay)
    mover = await moved(one, other, relay)
    journey = dict(journeys)[mover.id]
    await driver.send(journey.frame(0))
    assert await mover.frame() == journey.frame(0)
    await mover.send(journey.frame(1))
    assert await driver.frame() == journey.frame(1)
    await driver.say(RouteRequest(request="r", model=MODEL, session=new_session_id().hex(), start=0, end=4))
    assert (await driver.hear(RouteGrant)).hops[0].peer != mover.id


async def test_the_next_look_moves_nobody_else(relay: RunningRelay) -> None:
    for _ in range(3):
        await serving(relay)
    await rebalance(relay)
    await rebalance(relay)
    assert spans(relay) == [Span(0, 4), Span(0, 4), Span(4, 8)]


async def test_who_is_pinned_is_told_nothing(relay: RunningRelay) -> None:
    await serving(relay, movable=False)
    await serving(relay, movable=False)
    await rebalance(relay)
    assert spans(relay) == [Span(0, 4), Span(0, 4)]


@pytest.mark.parametrize("message", [Draining(), Heartbeat(paused=True)])
async def test_who_leaves_or_is_paused_is_not_moved(
    relay: RunningRelay, message: Draining | Heartbeat
) -> None:
    one = await serving(relay)
    await serving(relay, movable=False)
    await one.say(message)
    await one.is_served()
    await rebalance(relay)
    assert spans(relay) == [Span(0, 4), Span(0, 4)]


async def test_a_complete_model_leaves_newcomers_where_they_are(relay: RunningRelay) -> None:
    for _ in range(4):
        await serving(relay)
    await relay.serving(4, 8)
    await rebalance(relay)
    assert spans(relay).count(Span(0, 4)) == 4


async def asked_and_moved(relay: RunningRelay, *, is_late: bool) -> tuple[ScriptedPeer, Probe, Assignment]:
    """A volunteer that is moved after a probe. `is_late`: that was given up, and a later one passed."""
    other, mover = await serving(relay, movable=False), await serving(relay)
    probing, now = relay.services.probing, asyncio.get_running_loop().time()
    probing.ask(now)
    probing.ask(now + 1000.0)
    await other.pass_probe(await other.hear(Probe))
    await other.is_served()
    probe = await mover.hear(Probe)
    if is_late:
        probing.ask(now + 2000.0)
        await other.pass_probe(await other.hear(Probe))
        await rebalance(relay)
        assert spans(relay) == [Span(0, 4), Span(0, 4)]  # who is in doubt is not moved
        probing.ask(now + 3000.0)
        for peer in (mover, other):
            await peer.pass_probe(await peer.hear(Probe))
            await peer.is_served()
    await rebalance(relay)
    return mover, probe, await mover.hear(Assignment)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_probe_of_the_old_blocks_says_nothing_of_the_new_ones(
    relay: RunningRelay, is_late: bool
) -> None:
    mover, probe, told = await asked_and_moved(relay, is_late=is_late)
    await mover.pass_probe(probe)
    await mover.is_served()
    volunteer = relay.services.swarm.get(mover.id)
    assert volunteer is not None
    assert (volunteer.shown_state, volunteer.placement.span) == ("loading", Span(4, 8))
    assert relay.services.swarm.candidates(MODEL).held()[4] == 0
    assert await relay.metric("probes_total", outcome="late") == is_late
    await mover.load(told)
    await mover.pass_probe(await mover.hear(Probe))
    await mover.hear(Serving)
    assert volunteer.shown_state == "serving"
    assert relay.services.swarm.why_incomplete(MODEL) is None


async def test_a_probe_of_the_old_blocks_that_nobody_answers_delays_nothing(relay: RunningRelay) -> None:
    mover, given_up, told = await asked_and_moved(relay, is_late=False)
    await mover.load(told)
    probe = await mover.hear(Probe)
    assert probe.session != given_up.session
    relay.services.probing.ask(asyncio.get_running_loop().time() + 3000.0)
    await mover.pass_probe(probe)
    await mover.hear(Serving)
    relay.services.probing.ask(asyncio.get_running_loop().time())
    volunteer = relay.services.swarm.get(mover.id)
    assert volunteer is not None
    assert volunteer.shown_state == "serving"
    assert await relay.metric("probes_total", outcome="late") == 0


async def test_the_old_probe_does_not_prove_the_new_blocks(relay: RunningRelay) -> None:
    mover, old, told = await asked_and_moved(relay, is_late=False)
    await mover.load(told)
    await mover.hear(Probe)
    await mover.pass_probe(old)
    assert (await mover.goodbye())[0] == "join_refused"
    assert relay.services.swarm.why_incomplete(MODEL) is not None


async def test_without_the_database_nobody_is_moved(relay: RunningRelay) -> None:
    await serving(relay)
    await serving(relay)
    async with database_away(relay):
        with pytest.raises(Unavailable):
            await rebalance(relay)
    assert states(relay) == ["serving", "serving"]


async def test_a_newcomer_gets_what_it_has_on_disk_where_that_is_as_good(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.say(with_model(offer(max_blocks=4), cached=[BlockRun(start=4, end=8)]))
    given = await peer.hear(Assignment)
    assert (given.start, given.end) == (4, 8)


async def test_blocks_on_disk_that_cannot_be_are_refused(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.say(with_model(offer(max_blocks=4), cached=[BlockRun(start=4, end=80)]))
    assert (await peer.goodbye())[0] == "join_refused"
