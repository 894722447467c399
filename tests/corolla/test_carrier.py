"""A peer goes on over another connection when it is asked to, and loses nothing by it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection

from corolla import carrier as carriers
from corolla.carrier import Carrier
from corolla.exchange import Exchange, Link
from corolla.link import LinkOptions
from schema.errors import CorollaError, Unavailable
from schema.frames import FrameType
from schema.messages import (
    Arrived,
    Draining,
    ErrorInfo,
    FromPeer,
    GoElsewhere,
    Goodbye,
    Moving,
    Progress,
    Welcome,
    decode_from_peer,
    encode_message,
)
from schema.outbox import Urgency
from tests.corolla.links import PATIENCE_SECONDS, Arrivals, Behaviour, frame, listen, scripted

GO = encode_message(GoElsewhere(within_seconds=0.0))
MOVED = encode_message(Goodbye(error=ErrorInfo(code="moved", message="go on")))
HERE = Welcome(peer="0" * 16, heartbeat_seconds=60.0, models=[], software="scripted", moves=True)


class Heard:
    """What one relay hears of a peer, and when it may let go of it."""

    def __init__(self) -> None:
        self.said: list[FromPeer | bytes] = []
        self.more = asyncio.Event()
        self.may_release = asyncio.Event()

    async def read(self, connection: ServerConnection) -> FromPeer | bytes:
        message = await connection.recv()
        self.said.append(message if isinstance(message, bytes) else decode_from_peer(message))
        self.more.set()
        return self.said[-1]

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.said) < count:
                self.more.clear()
                await self.more.wait()


def stopping(heard: Heard) -> Behaviour:
    """A relay that asks its peer to go elsewhere, and lets it go."""

    async def behave(connection: ServerConnection) -> None:
        await connection.send(GO)
        while not isinstance(await heard.read(connection), Moving):
            pass
        await asyncio.wait_for(heard.may_release.wait(), PATIENCE_SECONDS)
        await connection.send(frame())  # what was still under way
        await connection.send(MOVED)
        await connection.close()

    return behave


def listening(heard: Heard) -> Behaviour:
    async def behave(connection: ServerConnection) -> None:
        while True:
            await heard.read(connection)

    return behave


@asynccontextmanager
async def two(first: Behaviour, second: Behaviour, welcome: Welcome = HERE) -> AsyncIterator[LinkOptions]:
    """Two relays, and options that name both."""
    async with scripted(first) as one, scripted(second, answer=encode_message(welcome)) as other:
        yield replace(one, relay_url=f"{one.relay_url},{other.relay_url}", can_move=True)


class NotingExchange(Exchange):
    """Notes that it was given another connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attached = asyncio.Event()

    def attach(self, link: Link) -> None:
        super().attach(link)
        self.attached.set()


@asynccontextmanager
async def carried(options: LinkOptions, arrivals: Arrivals) -> AsyncIterator["Carried"]:
    exchange = NotingExchange()
    carrier = await Carrier.dial(options, exchange, arrivals)
    exchange.attached.clear()
    running = asyncio.create_task(carrier.run())
    try:
        yield Carried(exchange, carrier, running)
    finally:
        carrier.close()
        await asyncio.wait({running}, timeout=PATIENCE_SECONDS)


class Carried:
    def __init__(self, exchange: NotingExchange, carrier: Carrier, running: "asyncio.Task[None]") -> None:
        self.exchange = exchange
        self.carrier = carrier
        self.running = running

    async def ending(self) -> CorollaError:
        with pytest.raises(CorollaError) as caught:
            await asyncio.wait_for(self.running, PATIENCE_SECONDS)
        return caught.value


async def test_a_peer_moves_and_what_it_says_meanwhile_is_said_after_its_arrival() -> None:
    old, new, arrivals = Heard(), Heard(), Arrivals()
    async with two(stopping(old), listening(new)) as options, carried(options, arrivals) as peer:
        await old.wait_for(1)
        assert isinstance(old.said[0], Moving)
        peer.exchange.link.send_frame(frame(), Urgency.DECODE)
        peer.exchange.link.send_message(Draining())
        assert new.said == []
        old.may_release.set()
        await new.wait_for(3)
        assert new.said[:2] == [Arrived(), Draining()]
        assert isinstance(new.said[2], bytes)
        assert len(old.said) == 1
        assert len(arrivals.frames) == 1
        assert not peer.running.done()


async def test_what_was_said_before_the_move_is_said_before_the_last_word() -> None:
    """Though all of it still waits when the move begins, since the connection is slower than its peer."""
    old, new = Heard(), Heard()
    async with two(stopping(old), listening(new)) as options, carried(options, Arrivals()) as peer:
        link = peer.carrier.link
        link.hold()
        link.send_frame(frame(FrameType.PREFILL), Urgency.PREFILL)
        for done in range(3):
            link.send_message(Progress(phase="loading", done=done, total=3))
        await asyncio.wait_for(peer.exchange.attached.wait(), PATIENCE_SECONDS)
        assert old.said == []
        link._is_held = False
        link._wake.set()
        await old.wait_for(5)
        assert [type(one) for one in old.said] == [Progress, Progress, Progress, bytes, Moving]
        old.may_release.set()
        await new.wait_for(1)
        assert new.said == [Arrived()]


async def test_a_peer_stays_where_it_is_as_long_as_no_other_relay_takes_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(carriers, "RETRY_SECONDS", 0.0)
    asked, arrivals = Heard(), Arrivals()

    async def refuse(connection: ServerConnection) -> None:
        asked.said.append(b"")
        asked.more.set()
        await listen(connection)

    old = Heard()
    stranger = Welcome(peer="0" * 16, heartbeat_seconds=60.0, models=[], software="scripted")
    async with two(stopping(old), refuse, stranger) as options, carried(options, arrivals) as peer:
        await asked.wait_for(2)
        peer.exchange.link.send_message(Draining())
        await old.wait_for(1)
        assert old.said == [Draining()]


async def test_a_peer_that_cannot_go_on_elsewhere_is_cut_off() -> None:
    async with two(stopping(Heard()), listening(Heard())) as options, carried(options, Arrivals()) as peer:
        peer.carrier.can_move = False
        assert isinstance(await peer.ending(), Unavailable)


async def test_a_relay_that_is_gone_before_it_has_let_go_cuts_its_peer_off() -> None:
    async def dying(connection: ServerConnection) -> None:
        await connection.send(GO)
        await Heard().read(connection)
        connection.transport.abort()

    new = Heard()
    async with two(dying, listening(new)) as options, carried(options, Arrivals()) as peer:
        assert isinstance(await peer.ending(), Unavailable)
    assert Arrived() not in new.said


async def test_a_relay_that_does_not_let_go_in_time_loses_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "MOVE_SECONDS", 0.01)
    old, new = Heard(), Heard()
    async with two(stopping(old), listening(new)) as options, carried(options, Arrivals()) as peer:
        assert isinstance(await peer.ending(), Unavailable)
        old.may_release.set()
    assert new.said == []


async def test_a_move_that_fails_closes_both_connections() -> None:
    closed: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

    async def refusing(connection: ServerConnection) -> None:
        await connection.send(GO)
        await Heard().read(connection)
        await connection.send(
            encode_message(Goodbye(error=ErrorInfo(code="unexpected_message", message="no")))
        )
        await connection.wait_closed()
        closed[0].set()

    async def waiting(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed[1].set()

    async with two(refusing, waiting) as options, carried(options, Arrivals()) as peer:
        assert isinstance(await peer.ending(), Unavailable)
        for one in closed:
            await asyncio.wait_for(one.wait(), PATIENCE_SECONDS)


async def test_who_leaves_while_it_moves_arrives_says_what_it_has_to_say_and_closes() -> None:
    old, new = Heard(), Heard()
    async with two(stopping(old), listening(new)) as options, carried(options, Arrivals()) as peer:
        await old.wait_for(1)
        peer.exchange.link.send_message(Draining())
        peer.carrier.close()
        assert new.said == []
        old.may_release.set()
        await asyncio.wait_for(peer.running, PATIENCE_SECONDS)
        await new.wait_for(2)
    assert new.said == [Arrived(), Draining()]


async def test_who_cannot_move_any_more_connects_anew_instead() -> None:
    """Something may begin that cannot be gone on with elsewhere, while another relay is looked for."""
    old, arrivals = Heard(), Arrivals()
    carried_by: list[Carrier] = []

    async def begins_something(connection: ServerConnection) -> None:
        carried_by[0].can_move = False
        await connection.wait_closed()

    async with scripted(begins_something, answer=encode_message(HERE)) as other:

        async def leaving(connection: ServerConnection) -> None:
            await connection.send(GO)
            await old.read(connection)

        async with scripted(leaving) as one:
            options = replace(one, relay_url=f"{one.relay_url},{other.relay_url}", can_move=True)
            async with carried(options, arrivals) as peer:
                carried_by.append(peer.carrier)
                ending = await peer.ending()
    assert isinstance(ending, Unavailable)
    assert old.said == []
