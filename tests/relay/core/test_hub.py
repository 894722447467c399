"""relay/hub.py: one connection for each peer, and an end for those that are silent, stuck or revoked."""

import asyncio

import pytest

from relay.hub import MISSED_HEARTBEATS, Hub
from relay.peer import Identity, Peer
from schema.errors import CorollaError
from schema.ids import PeerId
from schema.outbox import Urgency
from schema.protocol import RelayConnection
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually

HEARTBEAT = 4.0
PATIENCE = MISSED_HEARTBEATS * HEARTBEAT
NOW = 1000.0


@pytest.fixture
def hub() -> Hub:
    return Hub(HEARTBEAT)


async def connected(hub: Hub, peer_id: str = "a" * 16, token_id: str = "token") -> Peer:
    peer = Peer(Identity(PeerId(peer_id), "tester", token_id, "volunteer"), RelayConnection(), 1000, now=NOW)
    hub.add(peer)
    return peer


class OpenPage:
    """A page, as far as the hub knows it."""

    def __init__(self, token_id: str | None) -> None:
        self.token_id = token_id
        self.ending: CorollaError | None = None

    def end(self, error: CorollaError) -> None:
        self.ending = error

    def send_elsewhere(self, within_seconds: float) -> None:
        raise NotImplementedError


def reason(connection: Peer | OpenPage) -> str | None:
    return connection.ending.code if connection.ending else None


# ---- who is there ----


async def test_a_peer_is_found_until_it_is_removed(hub: Hub) -> None:
    peer = await connected(hub)
    assert hub.get(peer.id) is peer
    assert hub.remove(peer)
    assert hub.get(peer.id) is None


async def test_the_older_connection_of_a_peer_is_ended_as_replaced(hub: Hub) -> None:
    older = await connected(hub)
    newer = await connected(hub)
    assert (reason(older), reason(newer)) == ("replaced", None)
    assert hub.get(older.id) is newer
    assert len(hub) == 1


async def test_a_replaced_connection_does_not_remove_the_newer_one(hub: Hub) -> None:
    older = await connected(hub)
    newer = await connected(hub)
    assert not hub.remove(older)
    assert hub.get(older.id) is newer


async def test_peers_may_come_and_go_while_they_are_looked_through(hub: Hub) -> None:
    for number in range(3):
        await connected(hub, f"{number:016x}")
    for peer in hub:
        hub.remove(peer)
    assert len(hub) == 0


# ---- liveness ----


async def test_a_peer_that_missed_three_heartbeats_is_ended(hub: Hub) -> None:
    peer = await connected(hub)
    hub.look_at_some(NOW + PATIENCE)
    assert reason(peer) is None
    hub.look_at_some(NOW + PATIENCE + 0.001)
    assert reason(peer) == "unresponsive"


async def test_a_peer_that_was_heard_is_not_ended(hub: Hub) -> None:
    peer = await connected(hub)
    peer.heard = NOW + PATIENCE
    hub.look_at_some(NOW + PATIENCE + 1)
    assert reason(peer) is None


async def test_a_peer_that_speaks_but_does_not_read_is_ended(hub: Hub) -> None:
    peer = await connected(hub)
    peer.enqueue(b"activations", Urgency.DECODE)
    peer.heard = NOW + PATIENCE + 1
    hub.look_at_some(NOW + PATIENCE + 1)
    assert reason(peer) == "unresponsive"


async def test_a_peer_is_not_silent_while_the_relay_works_for_it(hub: Hub) -> None:
    peer = await connected(hub)
    with peer.excused():
        hub.look_at_some(NOW + 1e6)
    assert reason(peer) is None
    assert peer.heard <= asyncio.get_running_loop().time()


async def test_a_peer_that_has_just_connected_is_not_ended(hub: Hub) -> None:
    peer = await connected(hub)
    peer.enqueue("welcome", Urgency.CONTROL)
    hub.look_at_some(NOW + 0.001)
    assert reason(peer) is None


async def test_a_heartbeat_is_answered_but_not_each_of_many(hub: Hub) -> None:
    peer = await connected(hub)
    hub.answer(peer, NOW + HEARTBEAT)
    answered = peer.queued_bytes
    assert answered > 0
    hub.answer(peer, NOW + HEARTBEAT * 1.4)
    assert peer.queued_bytes == answered
    hub.answer(peer, NOW + HEARTBEAT * 1.6)
    assert peer.queued_bytes > answered


async def test_who_sends_none_hears_one_all_the_same(hub: Hub) -> None:
    peers = [await connected(hub, f"{number:016x}") for number in range(3)]
    hub.look_at_some(NOW + HEARTBEAT)
    assert all(peer.queued_bytes == 0 for peer in peers)
    hub.look_at_some(NOW + HEARTBEAT * 2)
    assert all(peer.queued_bytes > 0 for peer in peers)


async def test_a_peer_is_looked_at_before_another_interval_is_over(hub: Hub) -> None:
    peers = [await connected(hub, f"{number:016x}") for number in range(7)]
    tick = HEARTBEAT / 50
    hub.look_at_some(NOW)
    for number in range(1, 26):
        hub.look_at_some(NOW + PATIENCE + number * tick)
    assert [reason(peer) for peer in peers] == ["unresponsive"] * 7


# ---- revocation ----


async def test_the_connections_of_a_revoked_token_are_ended_and_no_others(hub: Hub) -> None:
    revoked, good = await connected(hub, "a" * 16, "revoked"), await connected(hub, "b" * 16, "good")
    revoked_page, good_page, open_page = OpenPage("revoked"), OpenPage("good"), OpenPage(None)
    for page in (revoked_page, good_page, open_page):
        hub.add_page(page)
    hub.end_revoked({"revoked"})
    assert [reason(one) for one in (revoked, revoked_page)] == ["unauthorized"] * 2
    assert [reason(one) for one in (good, good_page, open_page)] == [None] * 3


# ---- on real sockets ----


async def test_a_silent_peer_is_said_goodbye_to_and_counted(relay: RunningRelay) -> None:
    silent, lively = await relay.dial(name="silent"), await relay.dial(name="lively")
    later = asyncio.get_running_loop().time() + 1000.0
    for peer in relay.services.hub:
        if peer.id == lively.id:
            peer.heard = later
    relay.services.hub.look_at_some(later)
    assert await silent.goodbye() == ("unresponsive", 4408)
    await lively.is_served()
    assert await relay.metric("refusals_total", reason="unresponsive") == 1


async def test_whatever_a_peer_sends_is_a_sign_of_life(relay: RunningRelay) -> None:
    client = await relay.dial(kind="client")
    peer = relay.services.hub.get(client.id)
    assert peer is not None
    peer.heard = 0.0
    await client.send(b"\x7a\xc0\x01\x63" + bytes(36))  # a frame of an unknown type
    await eventually(lambda: peer.heard > 0.0)
