"""The bus over NATS: order, flushes that are given up, and connections that the library lets go of."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay import nats_bus
from relay.bus import EVERYBODY, ReplicaKey, subject_of
from relay.nats_bus import NatsBus
from schema.ids import PeerId
from tests.relay.core.waiting import eventually
from tests.servers import NatsServer, nats_server

ONE, OTHER = ReplicaKey("1" * 16), ReplicaKey("2" * 16)
PEER = PeerId("b" * 16)


class Recorder:
    """A replica that writes down what its bus tells it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ups = 0
        self.downs = 0
        self.fails = False

    def on_published(self, message: bytes) -> None:
        self.messages.append(message)

    def on_bus_up(self) -> None:
        self.ups += 1
        self._may_fail()

    def on_bus_down(self) -> None:
        self.downs += 1
        self._may_fail()

    def _may_fail(self) -> None:
        if self.fails:
            raise ValueError("a replica made a mistake")


@asynccontextmanager
async def connected(url: str, key: ReplicaKey) -> AsyncIterator[tuple[NatsBus, Recorder]]:
    bus, recorder = NatsBus(url, "tests"), Recorder()
    await bus.open(key, recorder)
    await eventually(lambda: recorder.ups)
    await bus.flush()  # the server has its subscriptions
    try:
        yield bus, recorder
    finally:
        await bus.close()


class SlowServer:
    """As much of a NATS server as is needed to see what comes, in which order, and to answer late."""

    def __init__(self) -> None:
        self.received = b""
        self.unanswered = 0
        self.answers = True
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(b'INFO {"server_id":"s","version":"2.10.0","proto":1,"max_payload":1048576}\r\n')
        while data := await reader.read(1 << 16):
            self.received += data
            self.unanswered += data.count(b"PING\r\n")
            self.answer()
        writer.close()

    def answer(self) -> None:
        """Answer what was asked, if it does answer now."""
        if self.answers:
            self.writers[-1].write(b"PONG\r\n" * self.unanswered)
            self.unanswered = 0


@pytest.fixture
async def slow() -> AsyncIterator[tuple[SlowServer, str]]:
    slow = SlowServer()
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    async with server:
        yield slow, f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as running:
        yield running


async def test_a_replica_takes_what_is_for_it_and_for_all_but_not_its_own(server: NatsServer) -> None:
    async with connected(server.url, ONE) as (one, first), connected(server.url, OTHER) as (other, second):
        assert await one.publish(EVERYBODY, b"to all")
        assert await one.publish(subject_of(OTHER, PEER), b"to the other")
        assert await other.publish(subject_of(ONE), b"back")
        await eventually(lambda: (len(first.messages), len(second.messages)) == (1, 2))
        assert (first.messages, second.messages) == ([b"back"], [b"to all", b"to the other"])


async def test_a_server_that_is_away_is_named_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "relay.nats_bus")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        bus = NatsBus(f"nats://me:hidden@{where}", "tests")
        await bus.open(ONE, Recorder())
        await eventually(lambda: caplog.messages)
        await bus.close()
    assert f"the bus at {where}" in caplog.messages[0]
    assert "hidden" not in caplog.text


async def test_a_server_that_restarts_is_found_again(server: NatsServer) -> None:
    async with connected(server.url, ONE) as (one, first), connected(server.url, OTHER) as (_, second):
        server.kill()
        await eventually(lambda: first.downs and second.downs)
        assert not await one.publish(EVERYBODY, b"nobody is there")
        await one.flush()
        server.start()
        await eventually(lambda: (first.ups, second.ups) == (2, 2))
        assert await one.publish(EVERYBODY, b"again")
        await eventually(lambda: second.messages == [b"again"])


async def test_what_is_published_is_at_the_server_before_a_flush_is_answered(
    slow: tuple[SlowServer, str],
) -> None:
    server, url = slow
    async with connected(url, ONE) as (bus, _):
        await bus.publish(EVERYBODY, b"before")
        await bus.flush()
        assert server.received.rindex(b"PING\r\n") > server.received.index(b"before")


@pytest.mark.parametrize("patience", [0.001, 60.0])
async def test_a_flush_that_is_given_up_spoils_nothing(
    slow: tuple[SlowServer, str], monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    monkeypatch.setattr(nats_bus, "FLUSH_SECONDS", patience)
    server, url = slow
    async with connected(url, ONE) as (bus, recorder):
        server.answers = False
        before = server.unanswered
        flushing = asyncio.create_task(bus.flush())
        await eventually(lambda: server.unanswered > before)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        server.answers = True
        server.answer()
        server.writers[-1].write(b"MSG corolla.tests.all 1 5\r\nhello\r\n")
        await eventually(lambda: recorder.messages == [b"hello"])
        assert recorder.downs == 0
        monkeypatch.setattr(nats_bus, "FLUSH_SECONDS", 60.0)
        await bus.flush()


async def test_a_connection_that_the_library_closes_for_good_is_opened_anew(server: NatsServer) -> None:
    async with connected(server.url, ONE) as (one, first), connected(server.url, OTHER) as (_, second):
        await one._client.close()
        await eventually(lambda: first.ups == 2)
        assert first.downs == 1
        assert await one.publish(EVERYBODY, b"again")
        await eventually(lambda: second.messages == [b"again"])


async def test_a_replica_that_fails_when_it_is_told_of_the_bus_has_it_all_the_same(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server.url, ONE) as (one, first), connected(server.url, OTHER) as (_, second):
        first.fails = True
        server.kill()
        await eventually(lambda: first.downs and second.downs)
        server.start()
        await eventually(lambda: (first.ups, second.ups) == (2, 2))
        assert await one.publish(EVERYBODY, b"again")
        await eventually(lambda: second.messages == [b"again"])
    assert "a replica made a mistake" in caplog.text
