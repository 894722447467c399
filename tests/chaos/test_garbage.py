"""A peer sends garbage, a stale epoch or a wrong shape: refused by name, counted; nobody else notices."""

import asyncio
import sqlite3
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from benchmarks.plain_peer import Card, PlainPeer, connect, facts
from corolla.exchange import Exchange
from corolla.generation import Head
from corolla.session import RemoteSession, open_session
from schema.errors import ShapeMismatch
from schema.frames import Flags, Frame, FrameType, encode_frame
from schema.ids import Span, model_key, new_session_id
from schema.messages import ModelFacts
from schema.routes import Hop, Route, sign_route
from schema.tensors import DType, WireTensor, encode_tensors
from tests.chaos.driver import Driver
from tests.chaos.thicket import OTHER_MODEL, SECOND, Thicket, assert_complete
from tests.garden import MODEL, wait_until

QUESTION = "3 14 159 26 5 358"
LONG = 250
FAR_FUTURE = 2**32 - 1
NOT_FINITE = WireTensor(DType.FLOAT32, (1, 1, 64), struct.pack("<64f", *[float("nan")] * 64))
WRONG_SHAPE = WireTensor(DType.FLOAT32, (1, 1, 8), bytes(32))


def step(peer: PlainPeer, secret: bytes, hop: int = 0) -> Frame:
    """A step of a session of the peer's own, over itself."""
    session = new_session_id()
    route = Route(peer.id, (Hop(peer.id, Span(0, 4)),), model_key(OTHER_MODEL), FAR_FUTURE)
    return Frame(FrameType.STEP, hop, session, 0, 0, sign_route(route, session, secret), b"")


FATAL: dict[str, Callable[[PlainPeer, bytes], bytes]] = {
    "malformed_frame": lambda peer, secret: bytes(100),
    "unsupported_version": lambda peer, secret: encode_frame(step(peer, secret))[:2] + b"\x09" + bytes(60),
    "too_large": lambda peer, secret: encode_frame(step(peer, secret))[:36] + b"\xff" * 4,
}
REFUSED: dict[str, Callable[[PlainPeer, bytes], bytes]] = {
    "route_forged": lambda peer, secret: encode_frame(step(peer, bytes(32))),
    "wrong_hop": lambda peer, secret: encode_frame(
        step(peer, secret)._replace(type=FrameType.FAILURE, hop=1)
    ),
}


@pytest.fixture
async def other(thicket: Thicket) -> AsyncIterator[PlainPeer]:
    """A volunteer of another model, which is about to misbehave."""
    token = thicket.garden.relay.token("volunteer", "other")
    peer = await connect(thicket.garden.relay.url, Card(token, "other", facts(OTHER_MODEL, 4)))
    yield peer
    await peer.close()


class TestGarbage:
    @pytest.mark.parametrize("code", FATAL)
    async def test_ends_the_connection_by_name_and_no_reply(
        self, thicket: Thicket, other: PlainPeer, code: str
    ) -> None:
        before = await asyncio.to_thread(thicket.garden.say, QUESTION, LONG)
        counted = thicket.metric("corolla_refusals_total", reason=code)
        with thicket.garden.chat(QUESTION, LONG) as chat:
            await asyncio.to_thread(chat.wait_for_text)
            other.send_bytes(FATAL[code](other, thicket.garden.relay.secret))
            assert (await other.lost).startswith(code)
            await asyncio.to_thread(assert_complete, chat, before)
        assert thicket.metric("corolla_refusals_total", reason=code) > counted

    @pytest.mark.parametrize("code", REFUSED)
    async def test_in_a_route_is_refused_by_name_and_the_connection_lives_on(
        self, thicket: Thicket, other: PlainPeer, code: str
    ) -> None:
        counted = thicket.metric("corolla_refusals_total", reason=code)
        for _ in range(50):
            other.send_bytes(REFUSED[code](other, thicket.garden.relay.secret))
        await asyncio.to_thread(
            wait_until,
            lambda: thicket.metric("corolla_refusals_total", reason=code) == counted + 50,
            "all of them are counted",
        )
        assert not other.lost.done()

    async def test_in_words_ends_the_connection_by_name(self, thicket: Thicket, other: PlainPeer) -> None:
        other.send_text('{"type": "heartbeat", "sessions": -1}')
        assert (await other.lost).startswith("malformed_message")


class TestAHopThatAnswersWithGarbage:
    @pytest.mark.parametrize(
        ("garbage", "code"), [(WRONG_SHAPE, "shape_mismatch"), (NOT_FINITE, "not_finite")]
    )
    async def test_is_done_without_though_it_is_another_one_that_complains(
        self, thicket: Thicket, garbage: WireTensor, code: str
    ) -> None:
        garden = thicket.garden
        await asyncio.to_thread(thicket.want_spares)
        before = await asyncio.to_thread(garden.say, QUESTION, LONG)
        counted = thicket.metric("corolla_repairs_total", reason=code)
        liar = await self.join(thicket)
        held: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        liar.on_frame = lambda frame: held.done() or held.set_result(frame)  # pyright: ignore
        others = thicket.serving(SECOND)
        for one in others:
            await asyncio.to_thread(garden.pause, one)
        with garden.chat(QUESTION, LONG) as chat:
            frame = await held
            for one in others:
                await asyncio.to_thread(garden.resume, one)
            liar.send_frame(frame._replace(hop=frame.hop + 1, payload=encode_tensors([garbage])))
            await asyncio.to_thread(assert_complete, chat, before)
        await liar.close()
        assert thicket.metric("corolla_repairs_total", reason=code) == counted + 1

    async def join(self, thicket: Thicket) -> PlainPeer:
        """A volunteer of the middle blocks that has none."""
        token = thicket.garden.relay.token("volunteer", "liar")
        return await connect(thicket.garden.relay.url, Card(token, "liar", known_facts(thicket), (4, 8)))


def known_facts(thicket: Thicket) -> ModelFacts:
    """What the swarm knows of its model."""
    names = ModelFacts.__struct_fields__
    path = thicket.garden.relay.environment["DATABASE_URL"].removeprefix("sqlite:///")
    database = sqlite3.connect(path)
    row = database.execute(f"SELECT {', '.join(names)} FROM models WHERE name = ?", (MODEL,)).fetchone()
    database.close()
    return ModelFacts(**dict(zip(names, row, strict=True)))


class TestAClient:
    @pytest.fixture
    async def driver(self, thicket: Thicket, head: Head) -> AsyncIterator[Driver]:
        async with Driver(head).connected(thicket.garden.relay.url, thicket.garden.tokens[1]) as connected:
            yield connected

    async def test_that_sends_a_wrong_shape_hears_so_by_name(self, thicket: Thicket, driver: Driver) -> None:
        async with await open_session(driver.exchange, MODEL) as session:
            with pytest.raises(ShapeMismatch, match="does the other side serve the same model"):
                await session.prefill([WRONG_SHAPE])
        assert await asyncio.to_thread(thicket.garden.say, QUESTION)

    async def test_that_sends_a_stale_epoch_gets_no_answer_to_it(self, driver: Driver) -> None:
        async with await open_session(driver.exchange, MODEL) as session:
            for number, epoch in enumerate((5, 3, 5)):
                post(driver.exchange, session, number, epoch)
            await driver.came(2)
        assert driver.steps == [0, 2]


def post(exchange: Exchange, session: RemoteSession, step: int, epoch: int) -> None:
    """One token at position 0, past the session's own counting."""
    tensor = WireTensor(DType.FLOAT32, (1, 1, 64), bytes(256))
    payload = encode_tensors([tensor])
    exchange.post(
        Frame(FrameType.STEP, 0, session.id, step, 0, session.grant.route, payload, Flags.LAST_ONLY, epoch)
    )
