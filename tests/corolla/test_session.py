"""A session sends its steps in order, keeps its position, paces its prompt, and ends by name."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corolla import session as session_module
from corolla.exchange import Exchange
from corolla.session import PREFILL_WINDOW, RemoteSession, open_session
from corolla.slices import slice_lengths
from corolla.tensors import from_wire
from schema.errors import (
    CorollaError,
    GenerationFailed,
    InvalidRequest,
    KVCacheFull,
    ModelUnavailable,
    QueueFull,
    Unavailable,
)
from schema.frames import Flags, FrameType
from schema.ids import Span
from schema.limits import TARGET_SLICE_BYTES
from schema.messages import HopLost
from schema.routes import Hop
from schema.tensors import WireTensor, encode_tensors
from tests.corolla.fakes import BELLIS, HIDDEN, ME, Hops, RecordingServer, failure, hidden, returned, until


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def hops(exchange: Exchange) -> Hops:
    return Hops(exchange)


@pytest.fixture
async def session(exchange: Exchange, hops: Hops) -> AsyncIterator[RemoteSession]:
    async with await open_session(exchange, "tiny") as opened:
        yield opened


@pytest.fixture
async def unheard() -> AsyncIterator[list[str]]:
    """What the event loop was told that nobody caught: futures and tasks whose error was never looked at."""
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
    yield heard
    gc.collect()
    assert heard == []


def step(session: RemoteSession, tokens: int = 1) -> asyncio.Future[list[WireTensor]]:
    return session.send([hidden(tokens)], kind=FrameType.STEP, want=Flags.LAST_ONLY)


class TestSteps:
    async def test_count_from_zero_and_add_up_their_tokens(self, session: RemoteSession, hops: Hops) -> None:
        await session.prefill([hidden(5), hidden(4)])
        await session.decode(hidden())
        await session.decode(hidden(3))
        assert [(frame.step, frame.position) for frame in hops.frames] == [(0, 0), (1, 5), (2, 9), (3, 10)]
        assert session.position == 13

    async def test_come_back_as_hidden_states(self, session: RemoteSession, hops: Hops) -> None:
        hops.compute = lambda frame, states: states + frame.position
        await session.decode(hidden())
        assert torch.equal(from_wire(await session.decode(hidden())), torch.ones(1, 1, 8))

    async def test_come_back_in_any_order(self, session: RemoteSession, hops: Hops) -> None:
        hops.held = True
        hops.compute = lambda frame, states: states + frame.step
        first, second = step(session), step(session)
        hops.waiting.reverse()
        hops.release()
        states = [from_wire(await session.receive(one)) for one in (first, second)]
        assert [float(one[0, 0, 0]) for one in states] == [0.0, 1.0]

    async def test_that_come_back_twice_or_unasked_are_ignored(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        hops.held = True
        waiting = step(session)
        (frame,) = hops.waiting
        hops.waiting = [frame._replace(step=99), frame, frame]
        hops.release()
        await session.receive(waiting)
        hops.held = False
        await session.decode(hidden())

    async def test_that_cannot_be_sent_leave_the_session_as_it_was(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        await session.decode(hidden(2))
        hops.refusal = QueueFull("full")
        with pytest.raises(QueueFull):
            await session.decode(hidden(3))
        hops.refusal = None
        await session.decode(hidden())
        assert [(frame.step, frame.position) for frame in hops.frames] == [(0, 0), (1, 2)]

    async def test_beside_which_something_cannot_be_sent_go_on_where_they_were(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        await session.decode(hidden(2))
        hops.refusal = QueueFull("full")
        with pytest.raises(QueueFull):
            session.post_beside(FrameType.REPLAY, b"", position=0)
        hops.refusal = None
        await session.decode(hidden())
        assert [(frame.step, frame.position) for frame in hops.frames] == [(0, 0), (1, 2)]

    async def test_that_come_back_empty_are_refused_by_name(self, session: RemoteSession, hops: Hops) -> None:
        hops.replies[0] = lambda frame: returned(frame, encode_tensors([]))
        with pytest.raises(GenerationFailed, match="empty"):
            await session.decode(hidden())

    async def test_that_come_back_as_garbage_are_refused_by_name(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        hops.replies[0] = lambda frame: returned(frame, b"garbage")
        with pytest.raises(GenerationFailed, match="no list of tensors"):
            await session.decode(hidden())


class TestPrefill:
    async def test_asks_for_the_last_position_of_the_last_slice_alone(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        answer = await session.prefill([hidden(4), hidden(4), hidden(2)])
        wanted = [Flags.NO_OUTPUT, Flags.NO_OUTPUT, Flags.LAST_ONLY]
        assert [frame.flags for frame in hops.frames] == [want | Flags.TIMED for want in wanted]
        assert {frame.type for frame in hops.frames} == {FrameType.PREFILL}
        assert answer.shape == (1, 1, 8)

    async def test_never_has_more_slices_in_flight_than_the_window(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        hops.held = True
        count = 3 * PREFILL_WINDOW
        filling = asyncio.create_task(session.prefill([hidden()] * count))
        for answered in range(count):
            await until(lambda expected=answered: len(hops.waiting) == min(PREFILL_WINDOW, count - expected))
            hops.release(1)
        await filling

    async def test_of_nothing_is_refused_by_name(self, session: RemoteSession) -> None:
        with pytest.raises(InvalidRequest):
            await session.prefill([])

    async def test_stops_at_the_first_failure(
        self, session: RemoteSession, hops: Hops, unheard: list[str]
    ) -> None:
        hops.held = True
        filling = asyncio.create_task(session.prefill([hidden()] * 3 * PREFILL_WINDOW))
        await until(lambda: len(hops.waiting) == PREFILL_WINDOW)
        hops.replies[0] = lambda frame: failure(frame, KVCacheFull("no memory"))
        hops.release(1)
        with pytest.raises(KVCacheFull):
            await filling
        assert len(hops.frames) == PREFILL_WINDOW


class TestFailure:
    async def test_reaches_every_step_in_flight(
        self, session: RemoteSession, hops: Hops, unheard: list[str]
    ) -> None:
        hops.held = True
        steps = [step(session) for _ in range(3)]
        hops.replies[1] = lambda frame: failure(frame, KVCacheFull("no memory"))
        hops.waiting = hops.waiting[1:2]
        hops.release()
        for one in steps:
            with pytest.raises(KVCacheFull):
                await session.receive(one)

    async def test_ends_the_session(self, session: RemoteSession, hops: Hops) -> None:
        hops.replies[0] = lambda frame: failure(frame, KVCacheFull("no memory"))
        with pytest.raises(KVCacheFull):
            await session.decode(hidden())
        with pytest.raises(KVCacheFull):
            await session.decode(hidden())
        assert len(hops.frames) == 1

    async def test_that_nobody_waits_for_is_not_complained_about(
        self, session: RemoteSession, hops: Hops, unheard: list[str]
    ) -> None:
        hops.held = True
        steps = [step(session) for _ in range(3)]
        hops.replies[0] = lambda frame: failure(frame, KVCacheFull("no memory"))
        hops.release(1)
        del steps

    async def test_of_a_volunteer_says_its_name(
        self, session: RemoteSession, exchange: Exchange, hops: Hops
    ) -> None:
        hops.held = True
        waiting = step(session)
        exchange.on_message(HopLost(session=session.id.hex(), peer=BELLIS))
        with pytest.raises(GenerationFailed, match="'bellis' left") as caught:
            await session.receive(waiting)
        assert BELLIS not in caught.value.message

    async def test_of_the_link_says_why(
        self, session: RemoteSession, exchange: Exchange, hops: Hops, unheard: list[str]
    ) -> None:
        hops.held = True
        waiting = step(session)
        exchange.detach(Unavailable("the relay has gone"))
        with pytest.raises(Unavailable, match="the relay has gone"):
            await session.receive(waiting)

    async def test_to_come_back_in_time_is_named(
        self, session: RemoteSession, hops: Hops, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "STEP_SECONDS", 0.01)
        hops.held = True
        with pytest.raises(GenerationFailed, match="did not come back within"):
            await session.decode(hidden())
        assert session.broken is not None
        assert session.broken.suspects == tuple(hop.peer for hop in session.hops)  # nobody knows who it was
        hops.release()  # too late: does no harm


class TestEnd:
    async def test_frees_the_hops_once(self, exchange: Exchange, hops: Hops) -> None:
        async with await open_session(exchange, "tiny") as session:
            await session.decode(hidden())
            assert not hops.closed
        assert [frame.type for frame in hops.frames] == [FrameType.STEP, FrameType.CLOSE]

    async def test_cancels_what_is_in_flight(
        self, exchange: Exchange, hops: Hops, unheard: list[str]
    ) -> None:
        hops.held = True
        async with await open_session(exchange, "tiny") as session:
            waiting = step(session)
        assert waiting.cancelled()
        hops.release()

    async def test_comes_with_the_task_that_drives_it(self, exchange: Exchange, hops: Hops) -> None:
        hops.held = True

        async def drive() -> None:
            async with await open_session(exchange, "tiny") as session:
                await session.prefill([hidden()] * 3)

        driving = asyncio.create_task(drive())
        await until(lambda: len(hops.waiting) == 3)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        assert hops.closed

    async def test_keeps_the_error_that_ended_it(self, exchange: Exchange, hops: Hops) -> None:
        async def drive() -> None:
            async with await open_session(exchange, "tiny"):
                hops.refusal = QueueFull("not even a CLOSE fits")
                raise KVCacheFull("no memory")

        with pytest.raises(KVCacheFull):
            await drive()

    async def test_refuses_what_comes_after_it(self, exchange: Exchange, hops: Hops) -> None:
        async with await open_session(exchange, "tiny") as session:
            pass
        with pytest.raises(CorollaError, match="over"):
            await session.decode(hidden())


async def test_without_a_route_there_is_no_session(exchange: Exchange, hops: Hops) -> None:
    hops.no_route = ModelUnavailable("blocks 2-3 have no volunteer")
    with pytest.raises(ModelUnavailable, match="blocks 2-3"):
        await open_session(exchange, "tiny")
    assert hops.frames == []


class TestSlices:
    @given(st.integers(1, 20_000), st.integers(1, 2**22), st.integers(1, 4096))
    def test_make_the_prompt_within_both_limits(
        self, tokens: int, bytes_per_token: int, max_tokens: int
    ) -> None:
        lengths = slice_lengths(tokens, bytes_per_token, max_tokens)
        assert sum(lengths) == tokens
        assert max(lengths) <= max_tokens
        assert max(lengths) == 1 or max(lengths) * bytes_per_token <= TARGET_SLICE_BYTES
        assert 0 <= max(lengths) - min(lengths) <= 1

    @given(st.integers(1, 20_000), st.integers(1, 2**22), st.integers(1, 4096), st.integers(2, 64))
    def test_over_several_hops_make_the_prompt_within_both_limits(
        self, tokens: int, bytes_per_token: int, max_tokens: int, hops: int
    ) -> None:
        lengths = slice_lengths(tokens, bytes_per_token, max_tokens, hops)
        assert sum(lengths) == tokens
        assert min(lengths) >= 1
        assert max(lengths) <= max_tokens
        assert max(lengths) == 1 or max(lengths) * bytes_per_token <= TARGET_SLICE_BYTES

    def test_begin_short_over_several_hops(self) -> None:
        assert slice_lengths(512, TARGET_SLICE_BYTES // 128, 512, hops=3) == [32, 64, 104, 104, 104, 104]
        assert slice_lengths(128, TARGET_SLICE_BYTES // 128, 512, hops=3) == [128]

    def test_are_as_few_as_can_be(self) -> None:
        assert slice_lengths(1000, 4, 512) == [500, 500]
        assert slice_lengths(512, 4, 512) == [512]


class TestAStepForBlocksInThisProcess:
    @pytest.fixture
    async def local(self, exchange: Exchange) -> AsyncIterator[tuple[RemoteSession, RecordingServer]]:
        """A session whose first blocks are served here."""
        server = RecordingServer()
        exchange.serve(server)
        Hops(exchange, (Hop(ME, Span(0, 2)), Hop(BELLIS, Span(2, 4))))
        async with await open_session(exchange, "tiny") as opened:
            yield opened, server

    async def test_is_launched_by_who_makes_its_hidden_states(
        self, local: tuple[RemoteSession, RecordingServer]
    ) -> None:
        session, server = local
        payload = encode_tensors([hidden()])
        for position in range(2):
            prepared = session.prepare()
            assert prepared is not None
            assert len(server.work) == position
            await asyncio.to_thread(prepared.launch, payload)
            frame, order = server.work[-1]
            assert (frame.type, frame.step, frame.position, frame.payload) == (
                FrameType.STEP,
                position,
                position,
                payload,
            )
            assert (order.span, order.is_last) == (Span(0, 2), False)
            session.on_output(returned(frame, payload))
            assert (await session.receive(prepared.step)).shape == (1, 1, HIDDEN)

    async def test_cannot_be_prepared_where_they_are_elsewhere(
        self, session: RemoteSession, hops: Hops
    ) -> None:
        assert session.prepare() is None
        await session.decode(hidden())
        assert [(frame.step, frame.position) for frame in hops.frames] == [(0, 0)]

    async def test_that_is_not_launched_is_no_failure(
        self, local: tuple[RemoteSession, RecordingServer], unheard: list[str]
    ) -> None:
        """And once withdrawn it has never been."""
        session, server = local
        prepared = session.prepare()
        assert prepared is not None
        assert (session.position, server.work) == (1, [])
        session.withdraw(prepared)
        assert session.position == 0
        session.send([hidden()], kind=FrameType.STEP, want=Flags.LAST_ONLY)
        assert [(frame.step, frame.position) for frame, _ in server.work] == [(0, 0)]

    async def test_of_a_failed_session_is_refused(self, local: tuple[RemoteSession, RecordingServer]) -> None:
        session, _ = local
        session.on_failure(KVCacheFull("full"))
        with pytest.raises(KVCacheFull):
            session.prepare()
