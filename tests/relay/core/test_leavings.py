"""A connection that has ended leaves nothing that only a look through all objects would find."""

import asyncio
import gc
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.server import ServerProtocol

from relay.http_protocol import HttpProtocol
from relay.peer import Peer
from relay.websocket import WebSocketProtocol
from schema.browser import PageWelcome
from schema.limits import MAX_CONTROL_BYTES
from tests.relay.core.page import open_page
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually

OF_A_CONNECTION = (HttpProtocol, WebSocketProtocol, ServerProtocol, Peer)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> list[str]:
    """What there is of connections."""
    # Not `isinstance`: among all objects are some that warn, or import, when they are asked what they are.
    return [type(one).__name__ for one in gc.get_objects() if type(one) in OF_A_CONNECTION]


async def measured(relay: RunningRelay, volunteer: ScriptedPeer) -> None:
    """Have the relay measure how far the volunteer is."""
    found = relay.services.hub.find(volunteer.id)
    assert isinstance(found, Peer)
    found.ping(asyncio.get_running_loop().time())
    await eventually(lambda: found.rtt is not None)


async def test_of_a_volunteer_nothing_is_left(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    await measured(relay, volunteer)
    assert sorted(left()) == ["Peer", "ServerProtocol", "WebSocketProtocol"]
    await volunteer.close()
    await eventually(lambda: not left())


async def test_of_a_volunteer_that_vanishes_while_it_is_measured_nothing_is_left(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    found = relay.services.hub.find(volunteer.id)
    assert isinstance(found, Peer)
    volunteer.reset()
    found.ping(asyncio.get_running_loop().time())
    del found
    await eventually(lambda: not left())


@pytest.mark.parametrize(
    "nonsense", ["{", "x" * (MAX_CONTROL_BYTES + 1), b"frame"], ids=["text", "long", "frame"]
)
async def test_of_a_volunteer_that_is_refused_nothing_is_left(
    relay: RunningRelay, nonsense: str | bytes
) -> None:
    volunteer = await relay.serving()
    await volunteer.socket.send(nonsense)
    await volunteer.closed()
    await eventually(lambda: not left())


async def test_of_what_is_no_websocket_any_more_nothing_is_left(relay: RunningRelay) -> None:
    volunteer = await relay.serving()
    volunteer.socket.transport.write(b"\xff" * 64)  # reserved bits, and no mask
    await volunteer.closed()
    await eventually(lambda: not left())


async def test_of_a_stranger_nothing_is_left(relay: RunningRelay) -> None:
    with pytest.raises(InvalidStatus):
        await relay.socket("no token")
    await eventually(lambda: not left())


async def test_of_a_page_nothing_is_left(open_relay: RunningRelay) -> None:
    page = await open_page(open_relay)
    await page.hear(PageWelcome)
    assert sorted(left()) == ["ServerProtocol", "WebSocketProtocol"]
    page.socket.transport.abort()
    await eventually(lambda: not left())


async def test_of_a_request_nothing_is_left(relay: RunningRelay) -> None:
    async with client_of(relay, None) as client:
        await client.get("/healthz")
        assert left() == ["HttpProtocol"]
    await eventually(lambda: not left())
