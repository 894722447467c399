"""What the relay sees of volunteers, through real sockets: who is blamed for it, and who is not."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from relay.forwarding import UNREAD_SECONDS
from relay.lateness import SAMPLED_STEPS, UNANSWERED_SECONDS
from relay.peer import Peer
from schema.errors import GenerationFailed, KVCacheFull, NotFinite, NotServing, StepFailed
from schema.frames import FrameType
from schema.messages import (
    Delta,
    Draining,
    ErrorInfo,
    Failed,
    Failure,
    Generate,
    HopLost,
    Probe,
    Ready,
    encode_failure,
)
from schema.swarm import EvidenceKind
from tests.relay.core.joining_steps import loaded
from tests.relay.core.peers import Journey, ScriptedPeer, answer, fail, finish
from tests.relay.core.rest_client import CHAT, QUESTION, client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.swarmlet import Swarmlet
from tests.relay.core.waiting import eventually


def seen(relay: RunningRelay, peer: ScriptedPeer) -> Counter[EvidenceKind]:
    """All that was seen of a peer so far."""
    outcomes = relay.services.outcomes
    list(outcomes.collect(time.time()))
    return Counter({one.kind: one.count for one in outcomes.unwritten_of([peer.id])})


async def has_left(relay: RunningRelay, peer: ScriptedPeer) -> None:
    await eventually(lambda: relay.services.hub.get(peer.id) is None)


async def travel(journey: Journey, *stops: ScriptedPeer, step: int = 0) -> None:
    """One step along all stops."""
    for hop, sender in enumerate(stops[:-1]):
        await sender.send(journey.frame(hop, step=step))
        await stops[hop + 1].frame()


# ---- what speaks for a volunteer ----


async def test_an_answered_step_is_seen_of_every_hop(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    for step in range(3):
        await travel(journey, driver, first, second, driver, step=step)
    assert seen(relay, first) == seen(relay, second) == {"answered": 3}
    assert seen(relay, driver) == {}
    assert await relay.metric("outcomes_total", kind="answered") == 6


async def test_nobody_gets_a_name_by_answering_itself(relay: RunningRelay, first: ScriptedPeer) -> None:
    await travel(relay.journey(first, first), first, first, first)
    assert seen(relay, first) == {}


async def test_a_probe_that_passed_is_seen(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    assert seen(relay, volunteer) == {"probe_passed": 1}


async def test_a_ready_that_answers_no_probe_is_nothing(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    for session in ("0" * 32, "1" * 32):
        await volunteer.say(Ready(session=session))
    await volunteer.is_served()
    assert seen(relay, volunteer) == {"probe_passed": 1}


async def test_a_probe_that_is_passed_again_is_seen_again(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    now = asyncio.get_running_loop().time()
    relay.services.probing.ask(now)
    relay.services.probing.ask(now + relay.services.settings.probe_seconds)
    probe = await volunteer.hear(Probe)
    for _ in range(2):
        await volunteer.pass_probe(probe)
    await volunteer.is_served()
    assert seen(relay, volunteer) == {"probe_passed": 2}


async def test_replies_are_seen_of_their_head(relay: RunningRelay, token: str) -> None:
    head = await relay.serving(head=True)
    async with client_of(relay, token) as http, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(http.post(CHAT, json=QUESTION))
        await answer(head, "x")
        assert (await first).status_code == 200
        second = tasks.create_task(http.post(CHAT, json=QUESTION))
        await fail(head, await head.hear(Generate), StepFailed("no"))
        assert (await second).status_code == 502
    assert seen(relay, head) == {"probe_passed": 1, "replied": 1, "reply_failed": 1}


async def test_a_head_is_not_blamed_for_tokens_that_another_one_has_told(
    relay: RunningRelay, token: str
) -> None:
    """They may be none of the model's, so that nobody can go on with them."""
    heads = [await relay.serving(head=True) for _ in range(2)]
    async with client_of(relay, token) as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(http.post(CHAT, json=QUESTION))
        await eventually(lambda: len(relay.services.replies) == 1)
        (reply,) = relay.services.replies._running.values()
        liar, other = heads if reply.head == heads[0].id else heads[::-1]
        asked = await liar.hear(Generate)
        await liar.say(Delta(request=asked.request, text="x", tokens=1, ids=[2**31 - 1]))
        await eventually(lambda: bool(reply.made.total_tokens))
        await liar.close()
        again = await other.hear(Generate)
        assert again.generated == [2**31 - 1]
        await fail(other, again, GenerationFailed("Another head has begun this reply with token 2147483647"))
        assert (await asking).status_code == 502
    assert seen(relay, other) == {"probe_passed": 1}
    assert seen(relay, liar)["vanished"] == 1


async def test_a_head_that_serves_no_more_is_not_blamed_for_the_reply_that_goes_on(
    relay: RunningRelay, token: str
) -> None:
    heads = [await relay.serving(head=True) for _ in range(2)]
    async with client_of(relay, token) as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(http.post(CHAT, json=QUESTION))
        await eventually(lambda: len(relay.services.replies) == 1)
        (reply,) = relay.services.replies._running.values()
        first, other = heads if reply.head == heads[0].id else heads[::-1]
        asked = await first.hear(Generate)
        moving = relay.services.hub.get(first.id)
        assert moving is not None
        relay.services.joining.draining(moving)
        await fail(first, asked, NotServing("this volunteer has no head of 'llama'"))
        await answer(other, "x")
        assert (await asking).status_code == 200
    assert seen(relay, first) == {"probe_passed": 1}
    assert seen(relay, other) == {"probe_passed": 1, "replied": 1}


async def test_a_reply_that_no_head_of_sound_mind_would_give_is_seen_of_its_head(
    relay: RunningRelay, token: str
) -> None:
    head = await relay.serving(head=True)
    async with client_of(relay, token) as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(http.post(CHAT, json=QUESTION))
        await finish(head, await head.hear(Generate), tokens=10**9)
        assert (await asking).status_code == 502
    assert seen(relay, head) == {"probe_passed": 1, "reply_failed": 1}


async def test_what_a_head_says_of_a_reply_that_is_not_its_own_is_nothing(relay: RunningRelay) -> None:
    head = await relay.serving(head=True)
    await head.say(Failed(request="made up", error=ErrorInfo.of(StepFailed("no"))))
    await head.is_served()
    assert seen(relay, head) == {"probe_passed": 1}


# ---- failures that hops tell of ----


@pytest.mark.parametrize(
    ("error", "of_first", "of_second"),
    [
        (StepFailed("out of order"), {}, {"failed": 1}),
        (KVCacheFull("no room"), {}, {"refused": 1}),
        (NotFinite("NaN"), {"disputed": 1}, {"disputed": 1}),
    ],
)
async def test_a_failure_is_seen_of_whoever_may_have_caused_it(
    relay: RunningRelay,
    driver: ScriptedPeer,
    first: ScriptedPeer,
    second: ScriptedPeer,
    error: StepFailed,
    of_first: dict[str, int],
    of_second: dict[str, int],
) -> None:
    journey = relay.journey(driver, first, second)
    payload = encode_failure(Failure(code=error.code, message=error.message, hop=1))
    await second.send(journey.frame(1, payload, FrameType.FAILURE))
    await driver.frame()
    assert (seen(relay, first), seen(relay, second)) == (of_first, of_second)


async def test_a_failure_that_cannot_be_read_is_the_hops_own(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    await second.send(relay.journey(driver, first, second).frame(1, b"{", FrameType.FAILURE))
    await driver.frame()
    assert (seen(relay, first), seen(relay, second)) == ({}, {"failed": 1})


async def test_what_a_driver_sent_is_no_hops_fault(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    payload = encode_failure(Failure(code="not_finite", message="NaN", hop=0))
    await first.send(relay.journey(driver, first).frame(0, payload, FrameType.FAILURE))
    await driver.frame()
    assert seen(relay, first) == {"refused": 1}


# ---- frames that are refused ----


async def test_a_frame_of_a_hop_that_is_not_its_own_is_seen(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    await second.send(relay.journey(driver, first, second).frame(1))
    await second.send(relay.journey(second, first, secret=b"?" * 32).frame(0))
    await second.is_served()
    assert seen(relay, second) == {"forged": 2}


async def test_of_a_client_nothing_is_noted(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    await driver.send(relay.journey(first, driver).frame(0))
    await driver.is_served()
    await driver.send(b"?")
    await driver.closed()
    await has_left(relay, driver)
    assert seen(relay, driver) == {}


@pytest.mark.parametrize(("since", "blamed"), [(2 * UNREAD_SECONDS, ["unread"]), (0.0, [])])
def test_whoever_does_not_read_is_blamed_for_its_full_queue(since: float, blamed: list[str]) -> None:
    """And not who reads, and was sent more at once than there was room for."""
    swarmlet = Swarmlet()
    frame = swarmlet.journey.frame(0)
    slow: Peer = swarmlet.connect(swarmlet.peers[1].id, queue_bytes=2 * len(frame))
    slow.drained = time.monotonic() - since
    while swarmlet.metrics.refusals["queue_full"] == 0:
        swarmlet.forwarder.forward(swarmlet.peers[0], frame)
    found = list(swarmlet.outcomes.collect(time.time()))
    assert [(one.peer, one.kind) for one in found] == [(slow.id, kind) for kind in blamed]


# ---- connections that end ----


async def test_whoever_vanishes_under_a_session_is_blamed_and_its_fellows_are_not(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    for journey in (relay.journey(driver, first, second), relay.journey(driver, second)):
        await driver.send(journey.frame(0))
    await first.frame()
    second.reset()
    await driver.hear(HopLost)
    assert (seen(relay, first), seen(relay, second)) == ({}, {"vanished": 1})
    (evidence,) = relay.services.outcomes.unwritten_of([second.id])
    assert evidence.worst == 2


async def test_whoever_vanishes_under_a_reply_is_blamed(relay: RunningRelay, token: str) -> None:
    head = await relay.serving(head=True)
    async with client_of(relay, token) as http, asyncio.TaskGroup() as tasks:
        posting = tasks.create_task(http.post(CHAT, json=QUESTION))
        await head.hear(Generate)
        head.reset()
        await has_left(relay, head)
        posting.cancel()
    assert seen(relay, head) == {"probe_passed": 1, "vanished": 1}


async def test_leaving_while_idle_is_no_fault(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    volunteer.reset()
    await has_left(relay, volunteer)
    assert seen(relay, volunteer) == {"probe_passed": 1}


async def test_a_frame_that_came_after_the_close_does_not_bring_its_session_back(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await driver.send(journey.frame(0), journey.frame(0, b"", FrameType.CLOSE))
    await second.frame()
    await first.send(journey.frame(1))
    await second.frame()
    first.reset()
    await has_left(relay, first)
    assert seen(relay, first) == {"answered": 1}
    await driver.is_served()  # and heard nothing of a hop that was lost


async def test_nor_does_one_that_came_after_its_driver_had_left(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first, second)
    await driver.send(journey.frame(0))
    await first.frame()
    await driver.close()
    await second.frame()
    await first.send(journey.frame(1))
    await second.frame()
    first.reset()
    await has_left(relay, first)
    assert seen(relay, first) == {"answered": 1}


async def test_but_a_driver_may_go_on_with_a_session_that_it_has_closed(
    relay: RunningRelay, driver: ScriptedPeer, first: ScriptedPeer
) -> None:
    journey = relay.journey(driver, first)
    await driver.send(journey.frame(0, b"", FrameType.CLOSE), journey.frame(0, epoch=1))
    for _ in range(2):
        await first.frame()
    first.reset()
    await driver.hear(HopLost)
    assert seen(relay, first) == {"vanished": 1}


async def test_nor_is_leaving_after_having_said_so(relay: RunningRelay, driver: ScriptedPeer) -> None:
    volunteer = await relay.serving()
    await driver.send(relay.journey(driver, volunteer).frame(0))
    await volunteer.frame()
    await volunteer.say(Draining())
    await volunteer.is_served()
    await volunteer.close()
    await has_left(relay, volunteer)
    assert seen(relay, volunteer) == {"probe_passed": 1}


async def test_nor_is_a_relay_that_stops(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file) as relay:
        driver = await relay.dial(kind="client")
        volunteer = await relay.serving()
        await driver.send(relay.journey(driver, volunteer).frame(0))
        await volunteer.frame()
        for connection in list(relay.server.server_state.connections):
            connection.shutdown()
        await has_left(relay, volunteer)
        assert seen(relay, volunteer) == {"probe_passed": 1}


async def test_the_silent_are_seen(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    relay.services.hub.look_at_some(1e9)
    await has_left(relay, volunteer)
    assert seen(relay, volunteer) == {"probe_passed": 1, "silent": 1}


async def test_garbage_is_seen(relay: RunningRelay, first: ScriptedPeer) -> None:
    await first.send(b"?" * 100)
    await first.closed()
    await has_left(relay, first)
    assert seen(relay, first) == {"malformed": 1}


async def test_a_probe_that_did_not_pass_is_seen(
    relay: RunningRelay, first: ScriptedPeer, second: ScriptedPeer
) -> None:
    probe = await loaded(first)
    await first.say(Ready(session=probe.session))
    await first.closed()
    await loaded(second)
    await second.say(Failed(error=ErrorInfo.of(NotFinite("computes wrongly"))))
    await second.is_served()
    await has_left(relay, first)
    assert (seen(relay, first), seen(relay, second)) == ({"probe_failed": 1}, {"probe_failed": 1})


# ---- time ----


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    found = Clock()
    monkeypatch.setattr("relay.forwarding.time", found)
    return found


class Clock:
    """Stands for the module `time`, and goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.time = time.time

    def monotonic(self) -> float:
        return self.now


def forward(swarmlet: Swarmlet, hop: int, step: int, kind: int = FrameType.STEP, epoch: int = 0) -> None:
    frame = swarmlet.journey.frame(hop, b"x", kind, step=step, epoch=epoch)
    swarmlet.forwarder.forward(swarmlet.peers[hop], frame)


def test_late_answers_are_seen_of_the_hop_that_gave_them(clock: Clock) -> None:
    swarmlet = Swarmlet()
    for step in range(SAMPLED_STEPS):
        forward(swarmlet, 0, step)
        clock.now += 1.0
        forward(swarmlet, 1, step)
        clock.now += 60.0
        forward(swarmlet, 2, step)
        if step % 2:
            clock.now += 1000.0  # the driver's own time
    found = {(one.peer, one.kind): one for one in swarmlet.outcomes.collect(time.time())}
    assert {kind for _, kind in found} == {"answered", "late"}
    late = found[swarmlet.peers[2].id, "late"]
    assert (late.count, late.worst) == (1, 60.0)
    assert (swarmlet.peers[1].id, "late") not in found


def test_who_never_answers_is_seen_when_the_driver_gives_up(clock: Clock) -> None:
    swarmlet = Swarmlet()
    for step in range(SAMPLED_STEPS):
        forward(swarmlet, 0, step)
        forward(swarmlet, 1, step)
    clock.now += UNANSWERED_SECONDS + 1
    forward(swarmlet, 0, 0, FrameType.CLOSE)
    found = {(one.peer, one.kind) for one in swarmlet.outcomes.collect(time.time())}
    _, first, second = (peer.id for peer in swarmlet.peers)
    assert found == {(first, "answered"), (second, "unanswered")}


def test_nobody_owes_an_answer_to_steps_of_an_epoch_that_their_driver_has_left(clock: Clock) -> None:
    """Hops drop them; a driver that sends them all the same could else spoil anybody's score."""
    swarmlet = Swarmlet()
    forward(swarmlet, 0, SAMPLED_STEPS, epoch=5)
    for step in range(SAMPLED_STEPS):
        forward(swarmlet, 0, step, epoch=4)
    clock.now += UNANSWERED_SECONDS + 1
    forward(swarmlet, 0, 0, FrameType.CLOSE, epoch=4)
    assert {one.kind for one in swarmlet.outcomes.collect(time.time())} == set()


def test_parts_of_prompts_have_no_time_to_keep(clock: Clock) -> None:
    swarmlet = Swarmlet()
    for step in range(SAMPLED_STEPS):
        forward(swarmlet, 0, step, FrameType.PREFILL)
        clock.now += 60.0
        forward(swarmlet, 1, step, FrameType.PREFILL)
    assert {one.kind for one in swarmlet.outcomes.collect(time.time())} == {"answered"}
