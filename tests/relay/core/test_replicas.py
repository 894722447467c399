"""Two replicas in one process: what the one does for the peers of the other, and when the bus fails them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corolla.carrier import MOVE_SECONDS
from relay import jobs, lateness, neighbours, replicas, sockets
from relay.bus import Crossing, InProcessBus
from relay.neighbours import Neighbour
from relay.parcels import VolunteerNews, decode_parcel
from relay.placement import Placement
from relay.swarm import Volunteer
from schema import messages
from schema.errors import FrameLost, Moved, PeerGone, QueueFull, Unavailable, Unresponsive
from schema.frames import FrameType, decode_frame
from schema.ids import PeerId, Span
from schema.outbox import Urgency
from tests.relay.core.buses import UnsteadyBus
from tests.relay.core.peers import MODEL, ScriptedPeer, answer, finish, offer, say_texts
from tests.relay.core.rest_client import CHAT, QUESTION, client_of
from tests.relay.core.support import RunningRelay, database_away, running_relay
from tests.relay.core.vectors import EMBEDDINGS, embed, vector
from tests.relay.core.waiting import eventually

SECRET = b"s" * 32


class LossyBus(UnsteadyBus):
    """Loses the next parcels of a kind of urgency that are published."""

    losing: Urgency | None = None

    async def publish(self, subject: str, message: bytes) -> bool:
        if self.losing is not None and decode_parcel(message).urgency is self.losing and subject != "all":
            self.losing = None
            return True
        return await super().publish(subject, message)


class Pair:
    """Two replicas that know each other."""

    def __init__(self, one: RunningRelay, other: RunningRelay, bus: LossyBus) -> None:
        self.one = one
        self.other = other
        self.bus = bus
        """Of the first one."""

    async def settled(self) -> None:
        """Return when both know all of the other's peers and volunteers."""
        for here, there in ((self.one, self.other), (self.other, self.one)):
            await eventually(lambda here=here, there=there: knows_all(here, there))
            await jobs.refresh_models(here.services)


def knows_all(here: RunningRelay, there: RunningRelay) -> bool:
    peers = {peer.id for peer in there.services.hub}
    serving = {one.peer.id: one.state for one in there.services.swarm.volunteers_here()}
    mine = here.services
    return (
        bool(len(mine.replicas.neighbours))
        and set(mine.hub.elsewhere) == peers
        and all((seen := mine.swarm.get(peer)) and seen.state == state for peer, state in serving.items())
    )


@pytest.fixture
async def pair(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(jobs, "MEET_SECONDS", 0.5)
    monkeypatch.setattr(replicas, "ANNOUNCE_SECONDS", 0.0)
    crossing = Crossing()
    bus = LossyBus(crossing)
    shared: dict[str, Any] = {"relay_secret": SECRET}
    async with (
        running_relay(sqlite_file, bus=bus, replica="one", **shared) as one,
        running_relay(sqlite_file, bus=InProcessBus(crossing), replica="other", **shared) as other,
    ):
        running = Pair(one, other, bus)
        await running.settled()
        yield running


async def test_a_frame_reaches_a_peer_of_another_replica_and_its_answer_comes_back(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    await driver.send(journey.frame(0))
    assert await hop.frame() == journey.frame(0)
    await hop.send(journey.frame(1))
    assert await driver.frame() == journey.frame(1)


async def test_frames_of_a_sender_arrive_in_order_however_large(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    frames = [
        journey.frame(0, bytes(size), FrameType.PREFILL, step=step)
        for step, size in enumerate((10, 3_000_000, 1000, 900_000, 1))
    ]
    await driver.send(*frames)
    assert [await hop.frame() for _ in frames] == frames


async def test_a_close_reaches_hops_of_another_replica(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    close = pair.one.journey(driver, hop).frame(0, b"", FrameType.CLOSE)
    await driver.send(close)
    assert await hop.frame() == close


async def test_a_failure_reaches_a_driver_of_another_replica(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    failure = messages.Failure(code="step_failed", message="no", hop=0)
    await hop.send(
        pair.one.journey(driver, hop).frame(0, messages.encode_failure(failure), FrameType.FAILURE)
    )
    assert await driver.failure() == failure


async def test_what_a_hop_says_of_its_time_reaches_a_driver_of_another_replica(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    trace = pair.one.journey(driver, hop).frame(0, bytes(8), FrameType.TRACE)
    await hop.send(trace)
    assert await driver.frame() == trace


async def test_a_frame_of_a_type_that_only_a_newer_replica_knows_is_skipped(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    pair.other.services.forwarder.arrive(hop.id, journey.frame(0, kind=200))
    assert pair.other.services.metrics.skipped_frames == 1
    await driver.send(journey.frame(0))
    assert await hop.frame() == journey.frame(0)


async def test_a_hop_with_a_full_queue_fails_that_session_alone(pair: Pair) -> None:
    driver, full, well = [
        await pair.one.dial(kind="client"),
        await pair.other.dial(),
        await pair.other.dial(),
    ]
    await pair.settled()
    stuck = pair.other.services.hub.get(full.id)
    assert stuck is not None
    stuck._outbox._limits = (1 << 20, 0, 0)
    stuck._is_idle = False
    stuck._frame_socket = None
    await driver.send(pair.one.journey(driver, full).frame(0))
    assert (await driver.failure()).code == QueueFull.code
    journey = pair.one.journey(driver, well)
    await driver.send(journey.frame(0))
    assert await well.frame() == journey.frame(0)


async def test_the_driver_is_told_at_once_when_a_hop_of_another_replica_leaves(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    await driver.send(journey.frame(0))
    await hop.frame()
    await hop.close()
    lost = await driver.hear(messages.HopLost)
    assert (lost.session, lost.peer) == (journey.session.hex(), hop.id)
    await driver.send(journey.frame(0, step=1))
    assert (await driver.failure()).code == PeerGone.code


async def test_a_session_is_closed_on_hops_of_another_replica_when_its_driver_leaves(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    await driver.send(pair.one.journey(driver, hop).frame(0))
    await hop.frame()
    await driver.close()
    assert decode_frame(await hop.frame()).type == FrameType.CLOSE


# ---- volunteers and replies -------------------------------------------------------------------


async def test_a_route_leads_over_volunteers_of_all_replicas(pair: Pair) -> None:
    first, second = await pair.one.serving(0, 4), await pair.other.serving(4, 8)
    driver = await pair.one.dial(kind="client")
    await pair.settled()
    await driver.say(messages.RouteRequest(request="r", model=MODEL, session="0" * 32))
    granted = await driver.hear(messages.RouteGrant)
    assert [hop.peer for hop in granted.hops] == [first.id, second.id]


async def test_a_head_of_another_replica_writes_a_reply(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.one, await pair.one.token("client")) as http:
        asked, response = await asyncio.gather(answer(head, "good ", "day"), http.post(CHAT, json=QUESTION))
    assert response.json()["choices"][0]["message"]["content"] == "good day"
    assert asked.request.startswith(pair.one.services.replicas.neighbours.key)


async def test_a_reader_who_leaves_cancels_on_a_head_of_another_replica(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.one, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        generate = await head.hear(messages.Generate)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert (await head.hear(messages.Cancel)).request == generate.request


async def test_a_head_of_another_replica_makes_vectors(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.one, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "one"}))
        await embed(head, 1.0)
        assert (await asking).json()["data"][0]["embedding"] == vector(1.0)


async def test_a_head_of_another_replica_is_told_that_nobody_waits_for_its_vectors(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.one, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "one"}))
        asked = await head.hear(messages.Embed)
        asking.cancel()
        assert await head.hear(messages.Cancel) == messages.Cancel(request=asked.request)


async def test_a_reply_goes_on_at_another_head_when_one_of_another_replica_leaves(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.one, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        generate = await head.hear(messages.Generate)
        await say_texts(head, generate, "good ")
        await eventually(
            lambda: [reply for reply in running_replies(pair.one) if reply.first_token is not None]
        )
        spare = await pair.one.serving(head=True)
        await head.close()
        await answer(spare, "good ", "day")
        assert (await asking).json()["choices"][0]["message"]["content"] == "good day"


def running_replies(relay: RunningRelay):
    return list(relay.services.replies._running.values())


async def test_what_a_head_says_for_a_replica_that_is_gone_is_answered_by_a_cancel(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await head.say(messages.Delta(request="f" * 16 + ".abc", text="hello?", tokens=1))
    assert (await head.hear(messages.Cancel)).request == "f" * 16 + ".abc"


async def test_pauses_and_draining_are_known_everywhere_at_once(pair: Pair) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    swarm = pair.one.services.swarm
    await volunteer.say(messages.Heartbeat(paused=True, sessions=3))
    await eventually(lambda: swarm.takes_no_sessions(volunteer.id))
    await volunteer.say(messages.Heartbeat(sessions=3))
    await volunteer.say(messages.Draining())
    await eventually(lambda: (known := swarm.get(volunteer.id)) and known.shown_state == "draining")
    known = swarm.get(volunteer.id)
    assert known is not None
    assert known.sessions == 3


async def test_changes_are_told_after_one_that_could_not_be_told(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    telling = pair.other.services.replicas
    monkeypatch.setattr(telling, "beat", telling.neighbours.beat)  # which tells of changes, too
    news_of = replicas._news_of
    failed: list[Volunteer] = []

    def failing(volunteer: Volunteer) -> VolunteerNews:
        if failed:
            return news_of(volunteer)
        failed.append(volunteer)
        raise ValueError("the replica made a mistake")

    monkeypatch.setattr(replicas, "_news_of", failing)
    await volunteer.say(messages.Heartbeat(paused=True, sessions=0))
    await eventually(lambda: failed)
    await volunteer.say(messages.Draining())
    await eventually(lambda: (seen := known(pair.one, volunteer)) and seen.shown_state == "draining")
    assert "the replica made a mistake" in caplog.text


CHANGES: list[tuple[str, object]] = [
    ("device", "another GPU"),
    ("blocks_per_second", 7.5),
    ("placement", Placement(MODEL, Span(0, 8), False)),
    ("placement", Placement(MODEL, Span(0, 8), False, room=7)),
    ("placement", Placement(MODEL, Span(0, 8), False, room=7, cached=(Span(0, 7),))),
    ("dtype", "bfloat16"),
    ("quantization", "nf4"),
    ("done", 6),
    ("total", 7),
    ("sessions", 7),
    ("granted", 7),
    ("is_paused", True),
    ("is_in_doubt", True),
    ("score", 0.75),
    ("settled_at", 7.5),
    ("state", "draining"),
]


async def test_whatever_changes_about_a_volunteer_is_told(pair: Pair) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    there, local = pair.other.services.swarm.get(volunteer.id), pair.other.services.hub.get(volunteer.id)
    assert there is not None
    assert local is not None
    for name, value in CHANGES:
        setattr(there, name, value)
        await pair.other.services.replicas.announce()
        # As text: placements are equal whatever else their volunteers could hold.
        await eventually(
            lambda name=name, value=value: repr(getattr(known(pair.one, volunteer), name)) == repr(value)
        )
    local.rtt = 7.5
    await pair.other.services.replicas.announce()
    await eventually(lambda: (seen := known(pair.one, volunteer)) and seen.peer.rtt == 7.5)


async def test_of_many_volunteers_those_that_have_changed_are_told_of(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "LOOKED_AT", 2)
    peers = [await pair.other.serving(name=f"number {number}") for number in range(5)]
    await pair.settled()
    telling, told = pair.other.services.replicas, list[PeerId]()
    monkeypatch.setattr(telling, "beat", telling.neighbours.beat)  # which tells of changes, too
    await telling.announce()
    news_of = replicas._news_of

    def noting(volunteer: Volunteer) -> VolunteerNews:
        told.append(volunteer.peer.id)
        return news_of(volunteer)

    monkeypatch.setattr(replicas, "_news_of", noting)
    changed, gone = [peers[0].id, peers[4].id], peers[2].id
    for peer in changed:
        volunteer = pair.other.services.swarm.get(peer)
        assert volunteer is not None
        volunteer.granted = 7
    pair.other.services.swarm.drop(gone)
    await telling.announce()
    assert told == changed
    await eventually(lambda: pair.one.services.swarm.get(gone) is None)
    assert len(pair.one.services.swarm) == 4


async def test_a_volunteer_without_a_lease_is_out_of_routes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    now = asyncio.get_running_loop().time()
    await pair.one.services.replicas.renew([], now)
    assert pair.one.services.swarm.get(volunteer.id) is not None
    await pair.one.services.replicas.renew([], now + replicas.LEASE_SECONDS + 1)
    assert pair.one.services.swarm.get(volunteer.id) is None


async def test_rows_renew_leases_and_a_database_that_is_away_ends_none(pair: Pair) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    known = pair.one.services.swarm.get(volunteer.id)
    assert known is not None
    known.renewed = -1000.0
    async with database_away(pair.one):
        with pytest.raises(messages.CorollaError):
            await jobs.renew_leases(pair.one.services)
    assert pair.one.services.swarm.get(volunteer.id) is known
    # It is back, and the other replica has not renewed anything yet.
    await pair.one.services.replicas.renew([], asyncio.get_running_loop().time())
    assert pair.one.services.swarm.get(volunteer.id) is known
    await jobs.renew_leases(pair.one.services)
    assert pair.one.services.swarm.get(volunteer.id) is known
    assert known.renewed > 0


async def test_a_row_tells_of_a_volunteer_of_which_the_bus_has_told_nothing(pair: Pair) -> None:
    volunteer = await pair.other.serving(2, 6)
    await pair.settled()
    pair.one.services.swarm.drop(volunteer.id)
    await jobs.renew_leases(pair.one.services)
    known = pair.one.services.swarm.get(volunteer.id)
    assert known is not None
    assert (str(known.placement.span), known.state) == ("2:6", "serving")


# ---- when the bus fails -----------------------------------------------------------------------


async def test_a_frame_that_the_bus_loses_is_a_failure_at_its_driver(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    pair.bus.losing = Urgency.DECODE
    await driver.send(journey.frame(0, step=7))
    failure = decode_frame(await driver.frame())
    assert (failure.type, failure.step) == (FrameType.FAILURE, 7)
    assert messages.decode_failure(failure.payload).code == FrameLost.code
    await driver.send(journey.frame(0, step=8))
    assert await hop.frame() == journey.frame(0, step=8)


async def test_control_that_the_bus_loses_is_sent_again(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    close = pair.one.journey(driver, hop).frame(0, b"", FrameType.CLOSE)
    pair.bus.losing = Urgency.CONTROL
    await driver.send(close)
    assert await hop.frame() == close


async def test_a_reply_of_which_the_bus_has_lost_something_is_written_once_more(pair: Pair) -> None:
    head = await pair.one.serving(head=True)  # whose words go over the bus that loses them
    await pair.settled()
    async with client_of(pair.other, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        generate = await head.hear(messages.Generate)
        pair.bus.losing = Urgency.CONTROL
        await say_texts(head, generate, "good ", "day")
        again = await next_request(head, cancelled=generate.request)
        await say_texts(head, again, "good ", "day")
        await finish(head, again)
        assert (await asking).json()["choices"][0]["message"]["content"] == "good day"


async def next_request(head: ScriptedPeer, cancelled: str) -> messages.Generate:
    """What a head is asked next, after it has been told, once or twice, that nobody waits for another one."""
    assert (await head.hear(messages.Cancel)).request == cancelled
    try:
        return await head.hear(messages.Generate)
    except AssertionError:
        return await head.hear(messages.Generate)


async def test_without_the_bus_sessions_of_one_replica_go_on_and_others_are_told(pair: Pair) -> None:
    driver, here, there = [
        await pair.one.dial(kind="client"),
        await pair.one.dial(),
        await pair.other.dial(),
    ]
    await pair.settled()
    near, far = pair.one.journey(driver, here), pair.one.journey(driver, there)
    await driver.send(far.frame(0))
    await there.frame()
    pair.bus.set_away(True)
    assert (await driver.hear(messages.HopLost)).session == far.session.hex()
    assert (await driver.failure()).code == FrameLost.code  # nobody had said that it had come
    await driver.send(far.frame(0, step=1))
    assert (await driver.failure()).code == PeerGone.code
    await driver.send(near.frame(0))
    assert await here.frame() == near.frame(0)
    pair.bus.set_away(False)
    await pair.settled()
    assert decode_frame(await there.frame()).type == FrameType.CLOSE  # the other one has noticed it too
    await driver.send(far.frame(0, step=2))
    assert await there.frame() == far.frame(0, step=2)


async def test_a_reply_goes_on_elsewhere_when_the_replica_of_its_head_was_without_the_bus(pair: Pair) -> None:
    head = await pair.one.serving(head=True)
    await pair.settled()
    async with client_of(pair.other, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        generate = await head.hear(messages.Generate)
        await say_texts(head, generate, "good ")
        await eventually(
            lambda: [reply for reply in running_replies(pair.other) if reply.first_token is not None]
        )
        spare = await pair.other.serving(head=True)
        pair.bus.set_away(True)
        pair.bus.set_away(False)
        await answer(spare, "good ", "day")
        assert (await asking).json()["choices"][0]["message"]["content"] == "good day"


async def test_replicas_that_have_given_each_other_up_count_no_losses_and_agree_again(pair: Pair) -> None:
    await pair.one.serving(0, 4)
    await pair.other.serving(4, 8)
    await pair.settled()
    pair.bus.set_away(True)
    pair.bus.set_away(False)
    await pair.settled()
    neighbour = only_neighbour(pair.one)
    for relay in (pair.one, pair.other):
        await relay.services.replicas.beat()
    await pair.settled()
    assert only_neighbour(pair.one) is neighbour  # nobody is given up a second time for it
    assert [relay.services.metrics.lost_parcels for relay in (pair.one, pair.other)] == [0, 0]


async def test_a_lane_that_answers_another_is_no_reason_to_give_up_again(pair: Pair) -> None:
    one, other = pair.one.services.replicas.neighbours, pair.other.services.replicas.neighbours
    one.give_up(only_neighbour(pair.one))
    one._ended.clear()  # as if nothing had ever been heard of the lane that the other one still uses
    lane = only_neighbour(pair.other).inbound.number
    await other.beat()
    await eventually(lambda: len(other) and only_neighbour(pair.other).inbound.number > lane)
    neighbour = only_neighbour(pair.one)
    await pair.settled()
    for _ in range(2):
        await one.beat()
        await other.beat()
        await pair.settled()
    assert only_neighbour(pair.one) is neighbour
    assert neighbour.inbound.number == only_neighbour(pair.other).outbound.number


def only_neighbour(relay: RunningRelay) -> Neighbour:
    (neighbour,) = relay.services.replicas.neighbours
    return neighbour


async def test_what_has_come_to_a_replica_that_stops_is_not_lost_with_it(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    await driver.send(pair.one.journey(driver, hop).frame(0))
    await hop.frame()
    await pair.other.services.replicas.neighbours.close()
    assert (await driver.hear(messages.HopLost)).peer == hop.id
    await driver.is_served()
    assert pair.one.refusals(FrameLost.code) == 0


async def test_a_silent_replica_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    await driver.send(journey.frame(0))
    await hop.frame()
    monkeypatch.setattr(neighbours, "DEAD_SECONDS", -1.0)
    await pair.one.services.replicas.beat()
    assert (await driver.hear(messages.HopLost)).peer == hop.id


# ---- moving -----------------------------------------------------------------------------------


async def move(peer: ScriptedPeer, there: RunningRelay) -> ScriptedPeer:
    """The second connection of a peer, welcomed, that has not arrived yet."""
    new = ScriptedPeer(await there.socket(peer.token), peer.token, peer.instance)
    await new.say(
        messages.Hello(protocol=1, software="tests", instance=peer.instance, name=peer.name, moves=True)
    )
    new.welcome = await new.hear(messages.Welcome)
    assert new.welcome.moves is True
    new.id, new.name = PeerId(new.welcome.peer), peer.name
    return new


async def test_a_hop_moves_and_its_session_goes_on(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.serving()
    await pair.settled()
    journey = pair.one.journey(driver, hop)
    await driver.send(journey.frame(0))
    await hop.frame()
    new = await move(hop, pair.one)
    await driver.send(journey.frame(0, step=1))
    assert await hop.frame() == journey.frame(0, step=1)  # it is still there
    await hop.send(journey.frame(1, step=1))
    await hop.say(messages.Moving())
    assert await hop.goodbye() == (Moved.code, Moved.close_code)
    await driver.send(journey.frame(0, step=2))  # while it is nowhere
    await new.say(messages.Arrived())
    assert await new.frame() == journey.frame(0, step=2)
    assert await driver.frame() == journey.frame(1, step=1)
    await new.send(journey.frame(1, step=2))
    assert await driver.frame() == journey.frame(1, step=2)  # and it has heard of no loss
    await pair.settled()
    (moved,) = pair.one.services.swarm.volunteers_here()
    assert (moved.peer.id, moved.state) == (hop.id, "serving")


async def test_a_volunteer_that_moves_is_in_routes_all_the_time(pair: Pair) -> None:
    volunteer = await pair.other.serving(head=True)
    await pair.settled()
    new = await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    for relay in (pair.one, pair.other):
        assert relay.services.swarm.why_incomplete(MODEL) is None
    await new.say(messages.Arrived())
    await pair.settled()
    for relay in (pair.one, pair.other):
        assert relay.services.swarm.why_incomplete(MODEL) is None


async def test_the_row_of_a_volunteer_that_has_moved_names_its_new_replica(pair: Pair) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    new = await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    await new.say(messages.Arrived())
    await pair.settled()
    await jobs.update_rows(pair.one.services)
    (row,) = await pair.one.services.store.volunteers(0.0)
    assert (row.replica, row.state, row.start, row.end) == ("one", "serving", 0, 8)


async def test_a_volunteer_that_moves_is_everywhere_what_it_was(pair: Pair) -> None:
    volunteer = await movable(pair.other)
    there = pair.other.services.swarm.get(volunteer.id)
    assert there is not None
    there.score, there.granted, there.is_in_doubt = 0.5, 3, True
    local = pair.other.services.hub.get(volunteer.id)
    assert local is not None
    local.rtt = 0.25
    await pair.other.services.replicas.announce()
    await eventually(lambda: (seen := known(pair.one, volunteer)) is not None and seen.is_in_doubt)
    before = known(pair.one, volunteer)
    assert before is not None
    assert before.holder == there.holder
    assert (before.placement.room, before.settled_at) == (4, there.settled_at)
    new = await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    await new.say(messages.Arrived())
    await pair.settled()
    await jobs.update_rows(pair.one.services)
    (row,) = await pair.one.services.store.volunteers(0.0)
    assert (row.replica, row.room, row.settled_at) == ("one", 4, there.settled_at)
    adopted = known(pair.one, volunteer)
    assert adopted is not None
    assert (adopted.score, adopted.is_in_doubt) == (0.5, True)


async def test_who_goes_elsewhere_when_asked_to_is_not_blamed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("UNANSWERED_SECONDS", "LATE_FACTOR"):
        monkeypatch.setattr(lateness, patience, 0.0)
    driver, hop = await pair.other.dial(kind="client"), await pair.other.serving()
    await pair.settled()
    journey = pair.other.journey(driver, hop)
    step = pair.other.services.forwarder._times.drawn  # its answer is timed
    await driver.send(journey.frame(0, step=step))
    await hop.frame()
    new = await move(hop, pair.one)
    await hop.say(messages.Moving())
    await hop.goodbye()
    await new.say(messages.Arrived())
    await pair.settled()
    await driver.send(journey.frame(0, b"", FrameType.CLOSE, step=step))
    await new.frame()
    for relay in (pair.one, pair.other):
        list(relay.services.outcomes.collect(time.time()))
        assert {one.kind for one in relay.services.outcomes.unwritten_of([hop.id])} <= {"probe_passed"}


async def test_what_the_new_replica_sees_of_a_volunteer_changes_its_score(pair: Pair) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    new = await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    await new.say(messages.Arrived())
    await pair.settled()
    await jobs.update_rows(pair.one.services)
    adopted = known(pair.one, volunteer)
    assert adopted is not None
    before = adopted.score
    pair.one.services.outcomes.note(volunteer.id, "failed")
    await jobs.write_evidence(pair.one.services)
    assert adopted.score < before
    await pair.one.services.replicas.announce()
    await eventually(lambda: (seen := known(pair.other, volunteer)) and seen.score == adopted.score)


# ---- volunteers that are given other blocks ---------------------------------------------------


def known(relay: RunningRelay, peer: ScriptedPeer) -> Volunteer | None:
    """A volunteer as a replica sees it."""
    return relay.services.swarm.get(peer.id)


async def movable(relay: RunningRelay) -> ScriptedPeer:
    """A volunteer of the first blocks, which could hold as many others."""
    peer = await relay.dial()
    told = offer(0, 4, head=True)
    room = msgspec.structs.replace(told.models[0], room=4)
    await peer.say(msgspec.structs.replace(told, models=[room]))
    await peer.load(await peer.hear(messages.Assignment))
    await peer.pass_probe(await peer.hear(messages.Probe))
    await peer.hear(messages.Serving)
    return peer


async def test_only_its_own_replica_gives_a_volunteer_other_blocks(pair: Pair) -> None:
    stays, mover = await pair.one.serving(0, 4), await movable(pair.other)
    await pair.settled()
    await jobs.rebalance(pair.one.services)  # it sees the hole, and who could fill it, but cannot tell it
    assert pair.one.services.metrics.moves == 0
    await jobs.rebalance(pair.other.services)
    told = await mover.hear(messages.Assignment)
    assert (told.start, told.end) == (4, 8)
    await eventually(lambda: (seen := known(pair.one, mover)) is not None and seen.state == "loading")
    await mover.load(told)
    await mover.pass_probe(await mover.hear(messages.Probe))
    await mover.hear(messages.Serving)
    await pair.settled()
    assert {one.placement.span for one in pair.one.services.swarm.volunteers()} == {Span(0, 4), Span(4, 8)}
    assert pair.one.services.swarm.candidates(MODEL).held()[4] == 1
    await stays.is_served()


async def test_of_two_replicas_that_decide_at_once_one_moves_somebody(pair: Pair) -> None:
    await movable(pair.one)
    await movable(pair.other)
    await pair.settled()
    await asyncio.gather(*[jobs.rebalance(relay.services) for relay in (pair.one, pair.other)])
    await asyncio.gather(*[jobs.rebalance(relay.services) for relay in (pair.one, pair.other)])
    assert pair.one.services.metrics.moves + pair.other.services.metrics.moves == 1
    rows = await pair.one.services.store.volunteers(0.0)
    assert sorted((row.start, row.state) for row in rows) == [(0, "serving"), (4, "loading")]


async def test_who_goes_elsewhere_while_it_is_given_other_blocks_serves_them_there(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.one.serving(0, 4)
    mover = await movable(pair.other)
    await pair.settled()
    new = await move(mover, pair.one)
    monkeypatch.setattr(replicas, "ANNOUNCE_SECONDS", 60.0)  # nobody has been told yet of what it loads
    await jobs.rebalance(pair.other.services)
    told = await mover.hear(messages.Assignment)
    await mover.say(messages.Moving())
    await mover.goodbye()
    await new.say(messages.Arrived())
    await new.load(told)
    await new.pass_probe(await new.hear(messages.Probe))
    await new.hear(messages.Serving)
    await jobs.update_rows(pair.one.services)
    rows = await pair.one.services.store.volunteers(0.0)
    assert sorted((row.start, row.state, row.replica) for row in rows) == [
        (0, "serving", "one"),
        (4, "serving", "one"),
    ]


async def test_who_has_gone_elsewhere_before_it_could_be_told_keeps_its_blocks(pair: Pair) -> None:
    await pair.one.serving(0, 4)
    mover = await movable(pair.other)
    await pair.settled()
    new = await move(mover, pair.one)
    store = pair.other.services.store
    move_span = store.move_span

    async def slow(*arguments: Any, **more: Any) -> Any:
        decided = await move_span(*arguments, **more)
        await mover.say(messages.Moving())
        await mover.goodbye()
        return decided

    store.move_span = slow  # type: ignore[method-assign]
    await jobs.rebalance(pair.other.services)
    left = known(pair.other, mover)
    assert left is not None
    assert (left.state, left.placement.span, pair.other.services.metrics.moves) == ("serving", Span(0, 4), 0)
    await new.say(messages.Arrived())
    await new.is_served()
    await jobs.update_rows(pair.one.services)
    rows = await pair.one.services.store.volunteers(0.0)
    assert sorted((row.start, row.state, row.replica) for row in rows) == [
        (0, "serving", "one"),
        (0, "serving", "one"),
    ]


async def test_a_head_moves_in_the_middle_of_a_reply(pair: Pair) -> None:
    head = await pair.other.serving(head=True)
    await pair.settled()
    async with client_of(pair.other, await pair.one.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        generate = await head.hear(messages.Generate)
        new = await move(head, pair.one)
        await say_texts(head, generate, "good ")
        await head.say(messages.Moving())
        await head.goodbye()
        await new.say(messages.Arrived())
        await say_texts(new, generate, "day")
        await finish(new, generate, tokens=2)
        assert (await asking).json()["choices"][0]["message"]["content"] == "good day"


async def saying_nothing() -> None:
    pass


async def test_who_goes_on_elsewhere_is_told_of_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    volunteer, other = await pair.other.serving(), await pair.other.serving()
    await pair.settled()
    leaving, told = pair.other.services.replicas, list[PeerId]()
    news_of = replicas._news_of

    def noting(volunteer: Volunteer) -> VolunteerNews:
        told.append(volunteer.peer.id)
        return news_of(volunteer)

    monkeypatch.setattr(leaving, "announce", saying_nothing)  # the last word about it is said all the same
    monkeypatch.setattr(replicas, "_news_of", noting)
    here = pair.other.services.swarm.get(volunteer.id)
    assert here is not None
    here.score = 0.25
    await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    assert told == [volunteer.id]
    await eventually(lambda: (seen := known(pair.one, volunteer)) and seen.score == here.score)
    await other.is_served()


async def test_that_a_volunteer_serves_no_more_is_told_before_it_goes_on_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    volunteer = await pair.other.serving()
    await pair.settled()
    monkeypatch.setattr(pair.other.services.replicas, "announce", saying_nothing)
    pair.other.services.swarm.drop(volunteer.id)
    await move(volunteer, pair.one)
    await volunteer.say(messages.Moving())
    await volunteer.goodbye()
    await eventually(lambda: known(pair.one, volunteer) is None)


async def test_peers_are_where_they_connected_last_whatever_the_clocks_say(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    hop = await pair.other.dial()
    await pair.settled()
    now = time.time() - 3600.0
    monkeypatch.setattr(replicas.time, "time", lambda: now)  # a machine whose clock is an hour behind
    again = await pair.one.dial(token=hop.token, instance=hop.instance)
    assert await hop.goodbye() == ("replaced", 4410)
    await pair.settled()
    assert again.id in pair.other.services.hub.elsewhere
    back = await move(again, pair.other)
    await again.say(messages.Moving())
    await again.goodbye()
    await pair.other.services.replicas.beat()
    await back.say(messages.Arrived())
    await pair.settled()
    assert pair.other.services.hub.get(back.id) is not None


async def test_a_peer_that_does_not_arrive_is_lost_and_what_waits_for_it_fails(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    await move(hop, pair.one)
    await hop.say(messages.Moving())
    await hop.goodbye()
    journey = pair.one.journey(driver, hop)
    await driver.send(journey.frame(0))
    await eventually(lambda: any(map(len, waiting_of(pair.other, hop.id))))
    monkeypatch.setattr(replicas, "TRANSIT_SECONDS", -1.0)
    await pair.other.services.replicas.beat()
    assert (await driver.failure()).code == PeerGone.code
    await eventually(lambda: hop.id not in pair.one.services.hub.elsewhere)


def waiting_of(relay: RunningRelay, peer: PeerId) -> list[bytes]:
    """What waits for a peer that is on its way."""
    outboxes = relay.services.hub.elsewhere[peer]._waiting
    return [bytes(outbox.waiting_bytes) for outbox in outboxes]


async def test_who_arrives_when_it_has_been_given_up_meanwhile_is_told_to_connect_anew(pair: Pair) -> None:
    hop = await pair.other.serving()
    await pair.settled()
    new = await move(hop, pair.one)
    await hop.say(messages.Moving())
    await hop.goodbye()
    pair.bus.set_away(True)
    await new.say(messages.Arrived())
    assert await new.goodbye() == (Unavailable.code, Unavailable.close_code)
    assert pair.one.refusals(Unavailable.code) == 1
    assert pair.one.services.hub.find(hop.id) is None


def test_a_peer_has_longer_to_arrive_than_it_tries_to() -> None:
    assert replicas.TRANSIT_SECONDS > 2 * MOVE_SECONDS
    assert sockets.ARRIVAL_SECONDS > 2 * MOVE_SECONDS


async def test_a_connection_on_which_nobody_arrives_is_ended(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    hop = await pair.other.dial()
    await pair.settled()
    monkeypatch.setattr(sockets, "ARRIVAL_SECONDS", 0.01)
    new = await move(hop, pair.one)
    assert await new.goodbye() == (Unresponsive.code, Unresponsive.close_code)
    assert pair.one.refusals(Unresponsive.code) == 1
    await hop.is_served()  # where it is
    assert pair.other.refusals(Unresponsive.code) == 0
    await eventually(lambda: pair.one.services.metrics.connections["volunteer"] == 0)


async def test_who_has_arrived_stays(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hop = await pair.other.dial()
    await pair.settled()
    monkeypatch.setattr(sockets, "ARRIVAL_SECONDS", 1.0)
    new = await move(hop, pair.one)
    await hop.say(messages.Moving())
    await hop.goodbye()
    await new.say(messages.Arrived())
    await eventually(lambda: not any("_expect_arrival" in repr(task) for task in asyncio.all_tasks()))
    await new.is_served()


async def test_a_peer_that_connects_elsewhere_without_a_word_replaces_itself(pair: Pair) -> None:
    driver, hop = await pair.one.dial(kind="client"), await pair.other.dial()
    await pair.settled()
    await driver.send(pair.one.journey(driver, hop).frame(0))
    await hop.frame()
    again = await pair.one.dial(token=hop.token, instance=hop.instance)
    assert again.id == hop.id
    assert await hop.goodbye() == ("replaced", 4410)
    assert (await driver.hear(messages.HopLost)).peer == hop.id
    await pair.settled()


async def test_nobody_moves_from_where_it_is_not_known(pair: Pair) -> None:
    token = await pair.one.token()
    stranger = ScriptedPeer(await pair.one.socket(token), token, "c" * 32)
    hello = messages.Hello(protocol=1, software="tests", instance="c" * 32, name="stranger", moves=True)
    await stranger.say(hello)
    assert (await stranger.hear(messages.Welcome)).moves is not True
    await stranger.is_served()


async def test_who_moves_says_nothing_before_it_has_arrived(pair: Pair) -> None:
    hop = await pair.other.dial()
    await pair.settled()
    new = await move(hop, pair.one)
    await new.say(messages.Draining())
    assert await new.goodbye() == ("unexpected_message", 1002)
    assert pair.one.refusals("unexpected_message") == 1
    await hop.is_served()  # where it is
