"""relay/sockets.py: the handshake, what ends a connection, and how it ends."""

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from relay import sockets
from schema.errors import CorollaError
from schema.frames import PROTOCOL_VERSION
from schema.ids import new_instance_key
from schema.limits import MAX_CONTROL_BYTES
from schema.messages import Assignment, Draining, FromPeer, Goodbye, Heartbeat, Hello, Loaded, Progress, Ready
from tests.relay.core.peers import MODEL, ScriptedPeer, offer
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually


def hello(**changes: Any) -> Hello:
    plain = Hello(protocol=PROTOCOL_VERSION, software="tests", instance=new_instance_key(), name="tester")
    return msgspec.structs.replace(plain, **changes)


async def silent(relay: RunningRelay, **options: Any) -> ScriptedPeer:
    """A peer whose socket is open, and which has not said hello."""
    token = await relay.token()
    return ScriptedPeer(await relay.socket(token, **options), token, new_instance_key())


# ---- the handshake ----


async def test_the_same_process_is_the_same_peer_after_a_reconnect(relay: RunningRelay) -> None:
    first = await relay.dial()
    await first.close()
    again = await relay.dial(first.token, instance=first.instance)
    assert again.id == first.id


async def test_another_process_under_the_same_token_is_another_peer(relay: RunningRelay) -> None:
    first = await relay.dial()
    second = await relay.dial(first.token)
    assert second.id != first.id
    await first.is_served()


async def test_another_token_cannot_take_over_a_peer(relay: RunningRelay) -> None:
    first = await relay.dial()
    thief = await relay.dial(instance=first.instance)
    assert thief.id != first.id
    await first.is_served()


@pytest.mark.parametrize("message", [Heartbeat(), offer(), Draining()])
async def test_a_message_before_the_hello_ends_the_connection(relay: RunningRelay, message: FromPeer) -> None:
    peer = await silent(relay)
    await peer.say(message)
    assert await peer.goodbye() == ("unexpected_message", 1002)
    assert relay.refusals("unexpected_message") == 1


async def test_a_frame_before_the_hello_ends_the_connection(relay: RunningRelay) -> None:
    peer = await silent(relay)
    await peer.send(b"frame")
    assert await peer.goodbye() == ("malformed_message", 1002)


async def test_a_second_hello_ends_the_connection(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.say(hello())
    assert await peer.goodbye() == ("unexpected_message", 1002)


async def test_a_hello_of_another_version_is_refused_by_name(relay: RunningRelay) -> None:
    peer = await silent(relay)
    await peer.say(hello(protocol=PROTOCOL_VERSION + 1))
    assert await peer.goodbye() == ("unsupported_version", 4406)
    assert relay.refusals("unsupported_version") == 1


async def test_a_hello_of_another_version_may_look_quite_different(relay: RunningRelay) -> None:
    peer = await silent(relay)
    await peer.socket.send('{"type": "hello", "protocol": 7, "brand": "new"}')
    assert await peer.goodbye() == ("unsupported_version", 4406)


async def test_a_name_with_control_characters_is_refused(relay: RunningRelay) -> None:
    peer = await silent(relay)
    await peer.say(hello(name="nul\0"))
    assert await peer.goodbye() == ("malformed_message", 1002)


async def test_who_says_nothing_is_not_waited_for(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_SECONDS", 0.01)
    peer = await silent(relay)
    assert await peer.goodbye() == ("unresponsive", 4408)
    assert relay.refusals("unresponsive") == 1


async def test_who_leaves_before_the_hello_is_no_refusal(relay: RunningRelay) -> None:
    peer = await silent(relay)
    await peer.close()
    await eventually(lambda: not relay.server.server_state.tasks)
    assert sum(relay.services.metrics.refusals.values()) == 0


# ---- messages ----


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "null", '{"type": "unknown"}', '{"type": "offer"}', '{"type": "welcome"}']
)
async def test_what_is_no_message_ends_the_connection(relay: RunningRelay, text: str) -> None:
    peer = await relay.dial()
    await peer.socket.send(text)
    assert await peer.goodbye() == ("malformed_message", 1002)
    assert relay.refusals("malformed_message") == 1


async def test_text_that_is_not_utf_8_ends_the_connection(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.socket.send(b"\xff\xfe", text=True)
    assert await peer.closed() == 1007
    await eventually(lambda: relay.refusals("malformed_message") == 1)


async def test_a_goodbye_does_not_repeat_more_of_a_message_than_fits(relay: RunningRelay) -> None:
    peer = await relay.dial()
    text = '{"type":"%s"}'
    await peer.socket.send(text % ("x" * (MAX_CONTROL_BYTES - len(text) + 2)))
    assert await peer.goodbye() == ("malformed_message", 1002)


@pytest.mark.parametrize(
    "message",
    [
        Loaded(model=MODEL, start=0, end=8, head=False, dtype="float32"),
        Ready(session="0" * 32),
        Progress(phase="loading", done=1, total=2),
    ],
)
async def test_a_message_of_a_volunteer_that_has_no_span_ends_the_connection(
    relay: RunningRelay, message: FromPeer
) -> None:
    peer = await relay.dial()
    await peer.say(message)
    assert await peer.goodbye() == ("unexpected_message", 1002)


async def test_a_mistake_of_the_relay_is_logged_and_told_by_name(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(relay.services.joining, "heartbeat", broken)
    peer, other = await relay.dial(), await relay.dial()
    with caplog.at_level(logging.ERROR):
        await peer.say(Heartbeat())
        assert await peer.goodbye() == ("internal_error", 1011)
    assert "a mistake" in caplog.text
    await other.is_served()


# ---- leaving ----


async def test_a_peer_that_closes_is_gone_at_once(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.close()
    await eventually(lambda: relay.services.metrics.connections["volunteer"] == 0)
    assert len(relay.services.hub) == 0
    assert sum(relay.services.metrics.refusals.values()) == 0


async def test_a_peer_that_vanishes_is_gone_at_once(relay: RunningRelay) -> None:
    peer = await relay.dial()
    peer.reset()
    await eventually(lambda: len(relay.services.hub) == 0)


async def test_a_peer_that_leaves_while_the_relay_works_for_it_leaves_nothing_behind(
    relay: RunningRelay,
) -> None:
    peer = await relay.dial()
    await peer.say(offer())
    peer.reset()
    await eventually(lambda: len(relay.services.hub) == 0 and not relay.server.server_state.tasks)
    assert relay.services.swarm.volunteers() == []
    assert await relay.services.store.volunteers() == []


async def test_the_relays_heartbeat_is_heard(relay: RunningRelay) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    there.greet(0.0)
    assert json.loads(await peer.socket.recv())["type"] == "heartbeat"


@pytest.mark.parametrize("text", ['{"type":"heartbeat"}', '{ "type": "heartbeat" }'])
async def test_a_heartbeat_is_answered_with_one(relay: RunningRelay, text: str) -> None:
    peer = await relay.dial()
    there = relay.services.hub.get(peer.id)
    assert there is not None
    there.greeted = -1e9
    await peer.socket.send(text)
    assert json.loads(await peer.socket.recv())["type"] == "heartbeat"


async def test_a_goodbye_is_the_last_that_is_heard(relay: RunningRelay) -> None:
    peer = await relay.serving()
    served = relay.services.hub.get(peer.id)
    assert served is not None
    served.send_message(Heartbeat())
    served.end(CorollaError("for the test"))
    served.send_message(Assignment(model=MODEL, start=0, end=1, head=False))
    assert await peer.goodbye() == ("internal_error", 1011)
    assert not isinstance(peer._messages[0], Assignment)
    assert isinstance(peer._messages[-1], Goodbye)


async def test_many_peers_may_come_at_once(relay: RunningRelay) -> None:
    token = await relay.token("client")
    peers = await asyncio.gather(*(relay.dial(token) for _ in range(20)))
    assert len({peer.id for peer in peers}) == 20
    await asyncio.gather(*(peer.is_served() for peer in peers))
