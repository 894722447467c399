"""relay/unread.py, relay/choices.py: who does not read loses the connection, and keeps no place meanwhile."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from relay import events, unread
from relay.http_protocol import HttpProtocol
from schema.credentials import parse_credential
from schema.messages import Cancel, Generate
from schema.overview import SwarmEvent
from schema.swarm import ModelStatus, SwarmStatus
from tests.relay.core.peers import ScriptedPeer, finish, say_texts
from tests.relay.core.rest_client import CHAT, QUESTION
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import DEADLINE, eventually

TEXT = "x" * 500_000
"""More of these than sockets hold on both sides fill a connection that is not read."""
MOST_TEXTS = 40


@pytest.fixture
def client(relay: RunningRelay) -> Iterator[socket.socket]:
    """A connection that takes little before it is read."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(DEADLINE)
        opened.connect(("127.0.0.1", relay.port))
        yield opened


def ask(client: socket.socket, token: str, method: str, path: str, body: bytes = b"") -> None:
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: relay",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(body)}",
    )
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def hear_stream(client: socket.socket, head: ScriptedPeer, token: str) -> Generate:
    ask(client, token, "POST", CHAT, json.dumps(QUESTION | {"stream": True}).encode())
    return await head.hear(Generate)


def is_held_up(relay: RunningRelay) -> bool:
    """Whether the relay waits for its client over HTTP."""
    return any(one.flow.write_paused for one in over_http(relay))


def over_http(relay: RunningRelay) -> list[HttpProtocol]:
    return [one for one in relay.server.server_state.connections if isinstance(one, HttpProtocol)]


async def fill(relay: RunningRelay, head: ScriptedPeer, asked: Generate) -> None:
    for _ in range(MOST_TEXTS):
        if is_held_up(relay):
            return
        await say_texts(head, asked, TEXT)
        await head.is_served()
    raise AssertionError("the connection takes everything")


async def test_a_stream_that_nobody_reads_is_ended_and_its_reply_cancelled(
    relay: RunningRelay,
    head: ScriptedPeer,
    client: socket.socket,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.05)
    asked = await hear_stream(client, head, token)
    await fill(relay, head, asked)
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    await eventually(lambda: not over_http(relay))


async def test_a_finished_reply_that_nobody_reads_keeps_no_place(
    relay: RunningRelay, head: ScriptedPeer, client: socket.socket, token: str
) -> None:
    asked = await hear_stream(client, head, token)
    await fill(relay, head, asked)
    await finish(head, asked)
    await eventually(lambda: not relay.services.admission._running.total())
    assert is_held_up(relay)


async def test_who_reads_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.001)
    transport = SlowTransport(5)
    unread.Unread(cast(asyncio.Transport, transport)).begin()
    await eventually(lambda: transport.waiting == 0)
    assert not transport.is_aborted


async def test_who_sees_to_it_otherwise_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.001)
    transport = SlowTransport(5, step=0)
    asked: list[bool] = []

    def is_watched() -> bool:
        asked.append(True)
        return len(asked) > 2

    unread.Unread(cast(asyncio.Transport, transport), is_watched).begin()
    await eventually(lambda: transport.is_aborted)
    assert len(asked) == 3


async def test_a_revoked_reader_of_events_that_does_not_read_is_not_waited_for(
    relay: RunningRelay, client: socket.socket, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "GOODBYE_SECONDS", 0.01)
    feed = relay.services.feed
    ask(client, token, "GET", "/api/events")
    await eventually(lambda: len(feed) == 1)
    (reader,) = feed._readers
    models = [ModelStatus(id="m", complete=False)] * 10_000
    much = SwarmEvent(type="swarm", swarm=SwarmStatus(models=models, volunteers=[]))
    for _ in range(MOST_TEXTS):
        reader.put([much])
    await eventually(lambda: is_held_up(relay))
    relay.services.hub.end_revoked([parse_credential(token).id])
    await eventually(lambda: not len(feed))


class SlowTransport:
    """Of which something is read between two looks."""

    def __init__(self, waiting: int, step: int = 1) -> None:
        self.waiting = waiting
        self.is_aborted = False
        self._step = step

    def get_write_buffer_size(self) -> int:
        self.waiting = max(0, self.waiting - self._step)
        return self.waiting

    def abort(self) -> None:
        self.is_aborted = True
