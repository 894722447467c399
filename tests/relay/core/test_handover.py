"""A replica that stops sends its peers and pages elsewhere, and finishes its requests first."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import jobs
from relay.bus import Crossing, InProcessBus
from relay.handover import hand_over, seconds_to_move
from schema import browser, messages
from schema.ids import PeerId
from tests.relay.core.page import open_page
from tests.relay.core.peers import ScriptedPeer, answer
from tests.relay.core.rest_client import CHAT, QUESTION, client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def neighbour(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    """A replica beside which there is another one."""
    monkeypatch.setattr(jobs, "MEET_SECONDS", 0.5)
    crossing = Crossing()
    async with (
        running_relay(sqlite_file, bus=InProcessBus(crossing), open_chat=True) as one,
        running_relay(sqlite_file, bus=InProcessBus(crossing)),
    ):
        await eventually(lambda: one.services.replicas.can_move_peers)
        yield one


async def movable(relay: RunningRelay) -> ScriptedPeer:
    """A peer that knows how to go elsewhere."""
    token = await relay.token("client")
    peer = ScriptedPeer(await relay.socket(token), token, "d" * 32)
    await peer.say(
        messages.Hello(protocol=1, software="tests", instance="d" * 32, name="tester", can_move=True)
    )
    peer.id = PeerId((await peer.hear(messages.Welcome)).peer)
    return peer


def stop(relay: RunningRelay) -> "asyncio.Task[None]":
    return asyncio.create_task(hand_over(relay.services, lambda: False))


async def test_peers_that_can_and_pages_are_sent_elsewhere(neighbour: RunningRelay) -> None:
    can, cannot, page = await movable(neighbour), await neighbour.dial(), await open_page(neighbour)
    await page.hear(browser.PageWelcome)
    stopping = stop(neighbour)
    assert (await can.hear(messages.GoElsewhere)).within_seconds == seconds_to_move(2)
    assert (await page.hear(browser.GoElsewhere)).within_seconds == seconds_to_move(2)
    await cannot.is_served()  # and has been told nothing
    assert not stopping.done()
    await can.close()
    await stopping


async def test_a_peer_that_is_on_its_way_is_waited_for(neighbour: RunningRelay) -> None:
    peer = await movable(neighbour)
    stopping = stop(neighbour)
    await peer.hear(messages.GoElsewhere)
    await peer.say(messages.Moving())
    assert (await peer.goodbye())[0] == "moved"
    await eventually(lambda: peer.id in neighbour.services.hub.elsewhere)
    await neighbour.dial(kind="client")
    assert not stopping.done()
    neighbour.services.replicas._lose(peer.id)
    await stopping


async def test_nobody_is_sent_away_where_there_is_no_other_replica(relay: RunningRelay) -> None:
    peer = await movable(relay)
    await stop(relay)
    await peer.is_served()


async def test_a_reply_is_finished_before_a_replica_stops(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with client_of(relay, await relay.token("client")) as http:
        asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
        await eventually(lambda: len(relay.services.replies))
        stopping = stop(relay)
        await eventually(relay.services.stopping.is_set)
        assert not stopping.done()
        await answer(head, "good ", "day")
        response = await asking
        await stopping
    assert response.json()["choices"][0]["message"]["content"] == "good day"
    assert response.headers["Connection"] == "close"


async def test_a_replica_waits_for_so_long_only(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, drain_seconds=0.0) as relay:
        head = await relay.serving(head=True)
        async with client_of(relay, await relay.token("client")) as http:
            asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
            await head.hear(messages.Generate)
            await stop(relay)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_who_is_in_a_hurry_waits_for_nothing(sqlite_file: Path) -> None:
    in_a_hurry = asyncio.Event()
    async with running_relay(sqlite_file, drain_seconds=3600.0) as relay:
        head = await relay.serving(head=True)
        async with client_of(relay, await relay.token("client")) as http:
            asking = asyncio.create_task(http.post(CHAT, json=QUESTION))
            await head.hear(messages.Generate)
            stopping = asyncio.create_task(hand_over(relay.services, in_a_hurry.is_set))
            await eventually(relay.services.stopping.is_set)
            assert not stopping.done()
            in_a_hurry.set()
            await eventually(stopping.done)
            assert len(relay.services.replies) == 1  # which nobody has waited for
            await stopping
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


def test_many_peers_have_more_time() -> None:
    assert seconds_to_move(0) == seconds_to_move(10) > 0
    assert seconds_to_move(10_000) > seconds_to_move(1000)
