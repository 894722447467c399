"""A volunteer knows the sessions that it serves: it can wait for their end, and ends them with the link.

A step that this process drives itself is prepared before it has a payload, and launched by whoever makes one.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from corolla.exchange import Exchange, Launch
from schema.errors import SessionUnknown
from schema.frames import Flags, Frame, FrameType
from schema.ids import SessionId, Span, session_at_hop
from schema.resuming import Replay, Resume, decode_replay, encode_replay, encode_resume
from schema.routes import Hop
from schema.tensors import DType, WireTensor, encode_tensors
from schema.trace import decode_trace
from tests.corolla.fakes import ANEMONE, BELLIS, ME, RecordingLink, deliver, route_of, until
from volunteer.device import DeviceThread
from volunteer.scheduler import Limits
from volunteer.span_service import SpanService
from volunteer.work import Result, Work

TWO_TOKENS = encode_tensors([WireTensor(DType.FLOAT32, (1, 2, 4), bytes(32))])


class Echo:
    """An engine that answers with the payload."""

    def __init__(self) -> None:
        self.open: set[SessionId] = set()
        self.kept: set[SessionId] = set()

    @property
    def sessions(self) -> int:
        return len(self.open)

    @property
    def kv_used(self) -> int:
        return 0

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        self.open.update(work.session for work in batch)
        return [Result(work, bytes(work.payload)) for work in batch]

    @property
    def is_one_pass(self) -> bool:
        return True

    @property
    def starts_steps(self) -> bool:
        return False

    def start(self, batch: Sequence[Work], now: float) -> None:
        """It has no graphs."""

    def close(self, session: SessionId) -> None:
        self.open.discard(session)

    def keep(self, session: SessionId, now: float) -> None:
        self.open.discard(session)
        self.kept.add(session)

    def close_all(self) -> None:
        self.open.clear()

    def expire(self, now: float) -> list[SessionId]:
        return []


class Served:
    """A span service with its exchange, its link and its device."""

    def __init__(self, device: DeviceThread) -> None:
        self.device = device
        self.link = RecordingLink()
        self.exchange = Exchange()
        self.spans = SpanService(self.exchange, device)
        self.exchange.serve(self.spans)
        self.exchange.attach(self.link)

    def step(
        self, name: bytes, kind: FrameType = FrameType.STEP, payload: bytes = b"x", flags: int = Flags.NONE
    ) -> None:
        """A frame of a session that another peer drives arrives."""
        session = SessionId(name * 16)
        route = route_of(Hop(ME, Span(0, 2)), session=session, origin=BELLIS)
        deliver(self.exchange, Frame(kind, 0, session, 0, 0, route, payload, flags))

    def prepare(self, name: bytes) -> Launch:
        """A step of a session that this peer drives, through its own blocks to another's."""
        session = SessionId(name * 16)
        route = route_of(Hop(ME, Span(0, 2)), Hop(ANEMONE, Span(2, 4)), session=session)
        launch = self.exchange.prepare(Frame(FrameType.STEP, 0, session, 0, 0, route, b""))
        assert launch is not None
        return launch

    def close(self, name: bytes) -> None:
        """This peer ends a session that it drives."""
        self.spans.on_close(session_at_hop(ME, SessionId(name * 16)))


def _id(name: bytes) -> SessionId:
    return SessionId(name * 16)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with DeviceThread(Limits(session_bytes=100)) as device:
        await device.install(Echo)
        yield Served(device)


async def test_counts_a_session_from_its_first_step_to_its_close(served: Served) -> None:
    served.step(b"a")
    served.step(b"a")
    served.step(b"b")
    assert len(served.spans) == 2
    served.step(b"a", FrameType.CLOSE)
    assert len(served.spans) == 1


async def test_of_a_timed_step_its_driver_is_told_how_long_it_took_right_behind_the_answer(
    served: Served,
) -> None:
    begun = time.monotonic()
    blocked = threading.Event()
    running = served.device.call(lambda: blocked.wait(20.0))
    served.step(b"a", flags=Flags.TIMED | Flags.LAST_ONLY)
    served.step(b"b")
    blocked.set()
    await running
    await until(lambda: len(served.link.frames) == 3)
    told = [frame.type for frame in served.link.frames if frame.session == _id(b"a")]
    assert told == [FrameType.STEP, FrameType.TRACE]
    answer, trace = (frame for frame in served.link.frames if frame.session == _id(b"a"))
    assert (answer.hop, answer.flags) == (1, Flags.TIMED | Flags.LAST_ONLY)
    assert trace == answer._replace(type=FrameType.TRACE, hop=0, flags=Flags.NONE, payload=trace.payload)
    queue, compute = decode_trace(trace.payload)
    assert compute >= 0
    assert 0 < queue + compute <= time.monotonic() - begun


async def test_a_timed_slice_that_fails_is_a_failure_alone(served: Served) -> None:
    def refuse(batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        return [Result(work, error=SessionUnknown("no")) for work in batch]

    engine = await served.device.install(Echo)
    engine.run = refuse
    served.step(b"a", FrameType.PREFILL, TWO_TOKENS, Flags.TIMED)
    await until(lambda: served.link.frames)
    await served.device.call(lambda: None)
    assert [frame.type for frame in served.link.frames] == [FrameType.FAILURE]


async def test_a_session_that_is_kept_is_not_served_any_more(served: Served) -> None:
    engine = await served.device.install(Echo)
    served.step(b"a")
    session = SessionId(b"a" * 16)
    route = route_of(Hop(ME, Span(0, 2)), session=session, origin=BELLIS)
    deliver(served.exchange, Frame(FrameType.CLOSE, 0, session, 0, 0, route, b"", Flags.KEEP))
    await served.spans.finish()
    await until(lambda: engine.kept)
    assert engine.kept == {session_at_hop(BELLIS, session)}


async def test_a_fork_begins_a_session_and_is_answered_with_itself(served: Served) -> None:
    served.step(b"a", FrameType.FORK, payload=b"b" * 16)
    assert len(served.spans) == 1
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, answer.hop, answer.payload) == (FrameType.FORK, 1, b"b" * 16)


async def test_a_resume_is_answered_with_itself_and_ends_what_waits_of_the_broken_session(
    served: Served,
) -> None:
    blocked = threading.Event()
    running = served.device.call(lambda: blocked.wait(20.0))
    served.step(b"b")
    served.step(b"a", FrameType.RESUME, payload=(resume := encode_resume(Resume(_id(b"b"), frozenset()))))
    blocked.set()
    await running
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, answer.hop, answer.payload) == (FrameType.RESUME, 1, resume)
    assert len(served.spans) == 2  # its driver has still to close the broken one
    served.step(b"b")
    assert served.link.frames[-1].type == FrameType.FAILURE


async def test_a_replay_goes_on_with_what_it_was_about(served: Served) -> None:
    new = frozenset({0, 1})
    served.step(b"a", FrameType.REPLAY, payload=encode_replay(Replay(new, 2, TWO_TOKENS)))
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert decode_replay(answer.payload) == Replay(new, 2, TWO_TOKENS)


async def test_a_replay_of_other_tokens_than_it_says_is_refused(served: Served) -> None:
    served.step(b"a", FrameType.REPLAY, payload=encode_replay(Replay(frozenset({0}), 9, TWO_TOKENS)))
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, b"malformed_frame" in bytes(answer.payload)) == (FrameType.FAILURE, True)
    assert served.device.stats().failures["malformed_frame"] == 1, "it never came to the device"
    assert len(served.spans) == 0


@pytest.mark.parametrize("kind", [FrameType.FORK, FrameType.RESUME, FrameType.REPLAY])
async def test_an_errand_that_says_too_little_is_refused_and_counted(served: Served, kind: FrameType) -> None:
    served.step(b"a", kind, payload=b"?")
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, b"malformed_frame" in bytes(answer.payload)) == (FrameType.FAILURE, True)
    assert served.device.stats().failures["malformed_frame"] == 1
    assert len(served.spans) == 0


async def test_sends_answers_to_the_driver(served: Served) -> None:
    served.step(b"a", payload=b"in")
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, answer.hop, answer.payload) == (FrameType.STEP, 1, b"in")


async def test_does_not_count_a_session_whose_step_it_refused(served: Served) -> None:
    served.step(b"a", payload=bytes(1000))
    (answer,) = served.link.frames
    assert (answer.type, len(served.spans)) == (FrameType.FAILURE, 0)


async def test_does_not_count_a_step_that_comes_after_the_close(served: Served) -> None:
    served.step(b"a")
    served.step(b"a", FrameType.CLOSE)
    served.step(b"a", FrameType.PREFILL)
    assert len(served.spans) == 0


async def test_waits_until_no_session_is_left(served: Served) -> None:
    await served.spans.finish()
    served.step(b"a")
    finishing = asyncio.create_task(served.spans.finish())
    served.step(b"b")
    served.step(b"a", FrameType.CLOSE)
    await until(lambda: True)
    assert not finishing.done()
    served.step(b"b", FrameType.CLOSE)
    await finishing


async def test_closes_every_session_on_the_device(served: Served) -> None:
    for name in (b"a", b"b", b"c"):
        served.step(name)
    await until(lambda: len(served.link.frames) == 3)
    served.spans.close_all()
    assert len(served.spans) == 0
    await until(lambda: served.device.stats().sessions == 0)


async def test_counts_a_session_from_its_first_prepared_step(served: Served) -> None:
    served.prepare(b"a")
    served.prepare(b"a")
    served.prepare(b"b")
    assert len(served.spans) == 2


async def test_does_not_wait_for_a_prepared_step_that_is_never_launched(served: Served) -> None:
    served.prepare(b"a")
    finishing = asyncio.create_task(served.spans.finish())
    await until(lambda: True)
    assert not finishing.done()
    served.close(b"a")
    await finishing
    assert len(served.spans) == 0


async def test_refuses_a_launch_after_the_close(served: Served) -> None:
    launch = served.prepare(b"a")
    served.close(b"a")
    with pytest.raises(SessionUnknown):
        launch(b"x")
    assert len(served.spans) == 0


async def test_computes_and_answers_what_another_thread_launches(served: Served) -> None:
    await asyncio.to_thread(served.prepare(b"a"), b"in")
    await until(lambda: served.link.frames)
    (answer,) = served.link.frames
    assert (answer.type, answer.hop, answer.payload) == (FrameType.STEP, 1, b"in")
