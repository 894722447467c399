"""relay/websocket.py: a connection that has ended is let go of, whether or not the other side reads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import sockets, websocket
from relay.websocket import WebSocketProtocol
from schema.errors import Unresponsive
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def relay(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    monkeypatch.setattr(sockets, "GOODBYE_SECONDS", 0.01)
    async with running_relay(sqlite_file, WebSocketProtocol, queue_bytes=1 << 20) as running:
        yield running


async def stuck(relay: RunningRelay) -> ScriptedPeer:
    """A peer that does not read, and whose queue is full."""
    driver, slow = await relay.dial(kind="client"), await relay.dial(max_queue=1)
    frame = relay.journey(driver, slow).frame(0, bytes(100_000))
    while not relay.refusals("queue_full"):
        await driver.send(frame)
        await driver.is_served()
    await driver.close()
    await eventually(lambda: len(connections(relay)) == 1)
    return slow


def connections(relay: RunningRelay) -> list[asyncio.Protocol]:
    return list(relay.server.server_state.connections)


def end(relay: RunningRelay, peer: ScriptedPeer) -> None:
    ended = relay.services.hub.get(peer.id)
    assert ended is not None
    ended.end(Unresponsive("for the test"))


async def test_a_peer_that_does_not_read_is_let_go_of(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "LINGER_SECONDS", 0.01)
    end(relay, await stuck(relay))
    await eventually(lambda: not connections(relay))


async def test_a_server_that_stops_lets_go_of_those_who_do_not_read(relay: RunningRelay) -> None:
    end(relay, await stuck(relay))
    await eventually(lambda: not relay.server.server_state.tasks)
    (lingering,) = relay.server.server_state.connections
    lingering.shutdown()
    await eventually(lambda: not connections(relay))


async def test_who_reads_gets_all_of_it_and_the_goodbye(relay: RunningRelay) -> None:
    peer = await relay.dial()
    end(relay, peer)
    assert await peer.goodbye() == ("unresponsive", 4408)
    await eventually(lambda: not connections(relay))


async def test_a_peer_that_leaves_by_itself_is_gone(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.close()
    await eventually(lambda: not connections(relay))
