"""The event loop in the device thread's place, with an engine that notices if two have the device."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from time import monotonic

import pytest

from schema.awake import StayingAwake
from schema.frames import FrameType
from schema.ids import SessionId, Span
from tests.corolla.fakes import until
from volunteer import device as device_module
from volunteer.device import DeviceThread
from volunteer.work import Result, Underway, Work

LOOP, THREAD = "event loop", "device thread"
A, B, C = (SessionId(letter * 16) for letter in (b"a", b"b", b"c"))
SPARE = SessionId(b"s" * 16)


class GraphStage:
    """Starts decode steps, and answers with their payload; not what is `eager`, `refused` or `lost`."""

    starts_steps = True
    is_one_pass = True

    def __init__(self, looks: Callable[[], int] = lambda: 0) -> None:
        """`looks`: how many times a batch that was started is not done yet."""
        self.gate = threading.Event()
        """Open where what was started may be done."""
        self.gate.set()
        self.ran: list[tuple[str, bytes]] = []
        """Who computed what."""
        self.closed: list[SessionId] = []
        self.open: set[SessionId] = set()
        self.expiries = 0
        self._looks = looks
        self._loop_thread = threading.get_ident()
        self._busy = threading.Lock()

    sessions = kv_used = 0

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        with self._alone():
            return self._answers(batch)

    def start(self, batch: Sequence[Work], now: float) -> Underway | None:
        payloads = {bytes(work.payload) for work in batch}
        self._take()
        if b"refused" in payloads or b"eager" in payloads:
            self._busy.release()
            if b"refused" in payloads:
                raise ZeroDivisionError
            return None
        left = self._looks()

        def is_done() -> bool:
            nonlocal left
            left -= 1
            return self.gate.is_set() and left < 0

        def results() -> list[Result]:
            self._busy.release()
            if b"lost" in payloads:
                raise ZeroDivisionError
            return self._answers(batch)

        return Underway(is_done, results)

    def close(self, session: SessionId) -> None:
        with self._alone():
            self.closed.append(session)
            self.open.discard(session)

    def keep(self, session: SessionId, now: float) -> None:
        self.close(session)

    def close_all(self) -> None:
        with self._alone():
            pass

    def expire(self, now: float) -> list[SessionId]:
        with self._alone():
            self.expiries += 1
            return []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._busy.release()

    def _take(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("two have the device")

    def _answers(self, batch: Sequence[Work]) -> list[Result]:
        who = LOOP if threading.get_ident() == self._loop_thread else THREAD
        self.ran += [(who, bytes(work.payload)) for work in batch]
        self.open.update(work.session for work in batch)
        return [Result(work, bytes(work.payload)) for work in batch]


def work(session: SessionId = A, payload: bytes = b"x", kind: FrameType = FrameType.STEP) -> Work:
    return Work(kind=kind, session=session, step=0, position=0, epoch=0, span=Span(0, 2), payload=payload)


@pytest.fixture
async def device() -> AsyncIterator[DeviceThread]:
    async with DeviceThread() as thread:
        yield thread


async def asleep(device: DeviceThread) -> None:
    """Return when the device thread sleeps, so that the device is free."""
    await until(lambda: device.call_at_once(lambda: None))


@pytest.fixture
async def stage(device: DeviceThread) -> AsyncIterator[GraphStage]:
    stage = GraphStage()
    await device.install(lambda: stage)
    await asleep(device)
    yield stage
    stage.gate.set()


async def answer(device: DeviceThread, item: Work) -> Result:
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    device.submit(item, done.set_result)
    async with asyncio.timeout(20):
        return await done


async def test_a_step_is_computed_by_the_loop_while_the_thread_sleeps(
    device: DeviceThread, stage: GraphStage
) -> None:
    assert (await answer(device, work(payload=b"hello"))).payload == b"hello"
    assert stage.ran == [(LOOP, b"hello")]
    assert device.stats().steps == 1


async def test_the_loop_does_other_things_meanwhile(device: DeviceThread, stage: GraphStage) -> None:
    stage.gate.clear()
    pending = asyncio.create_task(answer(device, work()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not pending.done()
    stage.gate.set()
    await pending


async def test_steps_that_come_meanwhile_go_next(device: DeviceThread, stage: GraphStage) -> None:
    stage.gate.clear()
    items = [work(session, bytes(session[:1])) for session in (A, B, C)]
    pending = [asyncio.create_task(answer(device, item)) for item in items]
    await asyncio.sleep(0)
    stage.gate.set()
    await asyncio.gather(*pending)
    assert sorted(payload for _, payload in stage.ran) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("kind", [FrameType.PREFILL, FrameType.FORWARD, FrameType.FORK])
async def test_whatever_else_is_due_is_the_threads(
    device: DeviceThread, stage: GraphStage, kind: FrameType
) -> None:
    await answer(device, work(A, b"other", kind))
    stage.gate.clear()
    await asleep(device)
    step = asyncio.create_task(answer(device, work(A, b"step")))
    await asyncio.sleep(0)
    other = asyncio.create_task(answer(device, work(B, b"behind it", kind)))
    await asyncio.sleep(0)
    stage.gate.set()
    await asyncio.gather(step, other)
    assert stage.ran == [(THREAD, b"other"), (LOOP, b"step"), (THREAD, b"behind it")]


@pytest.mark.parametrize("payload", [b"eager", b"refused", b"lost"])
async def test_what_the_loop_cannot_compute_the_thread_does(
    device: DeviceThread, stage: GraphStage, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing was recorded for it yet; where it cannot be started; where it fails on the device."""
    assert (await answer(device, work(payload=payload))).payload == payload
    assert stage.ran == [(THREAD, payload)]
    assert bool(caplog.records) is (payload != b"eager")
    await asleep(device)
    await answer(device, work(payload=b"next"))
    assert stage.ran[1:] == [(LOOP, b"next")]


async def test_a_session_is_closed_behind_the_step_that_runs(device: DeviceThread, stage: GraphStage) -> None:
    stage.gate.clear()
    step = asyncio.create_task(answer(device, work()))
    await asyncio.sleep(0)
    device.close(A)
    assert stage.closed == []
    stage.gate.set()
    await step
    await until(lambda: stage.closed)
    assert stage.ran == [(LOOP, b"x")]


async def test_a_call_waits_for_the_step_that_runs(device: DeviceThread, stage: GraphStage) -> None:
    stage.gate.clear()
    step = asyncio.create_task(answer(device, work(payload=b"step")))
    await asyncio.sleep(0)
    call = device.call(lambda: stage.run([work(payload=b"call")], 0, 0.0))
    stage.gate.set()
    await asyncio.gather(step, call)
    assert stage.ran == [(LOOP, b"step"), (THREAD, b"call")]


async def test_at_once_is_at_once_or_not_at_all(device: DeviceThread, stage: GraphStage) -> None:
    ran: list[str] = []
    before = device.stats().busy_seconds
    assert device.call_at_once(lambda: ran.append("free"))
    stage.gate.clear()
    step = asyncio.create_task(answer(device, work()))
    await asyncio.sleep(0)
    assert not device.call_at_once(lambda: ran.append("busy"))
    assert ran == ["free"]
    assert device.stats().busy_seconds > before
    stage.gate.set()
    await step


async def test_what_is_submitted_at_once_is_computed_right_after(
    device: DeviceThread, stage: GraphStage
) -> None:
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    assert device.call_at_once(lambda: device.submit(work(payload=b"next"), done.set_result))
    assert (await done).payload == b"next"
    assert stage.ran == [(LOOP, b"next")]


async def test_an_error_at_once_is_the_callers_and_the_device_is_free_again(
    device: DeviceThread, stage: GraphStage
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        device.call_at_once(broken)
    assert device.call_at_once(lambda: None)


async def test_an_answer_that_cannot_be_handed_in_concerns_no_other(
    device: DeviceThread, stage: GraphStage, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(result: Result) -> None:
        raise ZeroDivisionError

    device.submit(work(A), broken)
    assert (await answer(device, work(B, b"fine"))).payload == b"fine"
    assert "could not be handed in" in caplog.text


async def test_a_watch_that_fails_does_not_keep_the_device(
    device: DeviceThread, stage: GraphStage, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(results: Sequence[Result], seconds: float) -> None:
        raise ZeroDivisionError

    await device.watch(broken)
    await asleep(device)
    for payload in (b"one", b"two"):
        assert (await answer(device, work(payload=payload))).payload == payload
    assert stage.ran == [(LOOP, b"one"), (LOOP, b"two")]
    assert "could not be counted" in caplog.text


@pytest.mark.parametrize("payload", [b"eager", b"refused", b"lost", b"fine"])
async def test_a_session_that_is_closed_while_its_step_is_handed_over_leaves_nothing(
    device: DeviceThread, stage: GraphStage, payload: bytes
) -> None:
    device.submit(work(payload=payload), lambda _: None)
    device.close(A)
    await until(lambda: stage.ran and stage.closed)
    assert stage.open == set()


async def test_only_its_own_thread_is_the_loop(device: DeviceThread, stage: GraphStage) -> None:
    assert not await asyncio.to_thread(device.call_at_once, lambda: None)
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    await asyncio.to_thread(device.submit, work(), done.set_result)
    await done
    assert stage.ran == [(THREAD, b"x")]


async def test_a_long_look_elsewhere_counts_half(device: DeviceThread, stage: GraphStage) -> None:
    """The step has ended some time in it."""
    measured: list[float] = []
    await device.watch(lambda results, seconds: measured.append(seconds))
    await asleep(device)
    begun = monotonic()
    step = asyncio.create_task(answer(device, work()))
    await asyncio.sleep(0)
    while monotonic() < begun + 0.2:
        pass
    await step
    assert measured[0] < 0.15


async def test_idle_sessions_are_looked_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the loop has the device without a pause, which wakes the thread at no time."""
    monkeypatch.setattr(device_module, "HOUSEKEEPING_SECONDS", 0.01)
    async with DeviceThread() as device:
        stage = await device.install(GraphStage)
        await asleep(device)
        before = stage.expiries

        def go_on(result: Result) -> None:
            if stage.expiries < before + 3:
                device.submit(work(), go_on)

        device.submit(work(), go_on)
        await until(lambda: stage.expiries >= before + 3)


async def test_at_the_end_a_step_that_runs_is_answered(stage: GraphStage, device: DeviceThread) -> None:
    stage.gate.clear()
    step = asyncio.create_task(answer(device, work()))
    await asyncio.sleep(0)
    end = asyncio.create_task(device.stop())
    await asyncio.sleep(0)
    stage.gate.set()
    assert await end
    assert (await step).error is None


async def test_the_loop_stays_awake_for_what_comes_soon_and_not_for_long(
    device: DeviceThread, stage: GraphStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = device._turns
    monkeypatch.setattr(turns, "_awake", StayingAwake(0.0))
    await answer(device, work())
    await answer(device, work())
    assert not turns.is_awake
    monkeypatch.setattr(turns, "_awake", StayingAwake(0.2))
    while not turns.is_awake:
        await answer(device, work())
    await until(lambda: not turns.is_awake)


@pytest.mark.parametrize("seed", range(20))
async def test_two_never_have_the_device(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes in whatever order: each is answered, and the engine has noticed nothing."""
    monkeypatch.setattr(device_module, "HOUSEKEEPING_SECONDS", 0.001)
    dice = random.Random(seed)
    kinds = [FrameType.STEP] * 6 + [FrameType.PREFILL, FrameType.FORWARD]
    payloads = [b"x"] * 20 + [b"eager", b"refused", b"lost"]
    numbers = count()
    async with DeviceThread() as device:
        stage = await device.install(lambda: GraphStage(lambda: dice.randrange(4)))
        stage._loop_thread = threading.get_ident()

        async def reply() -> None:
            session = SessionId(next(numbers).to_bytes(16, "big"))
            for _ in range(dice.randrange(1, 30)):
                item = work(session, dice.choice(payloads), dice.choice(kinds))
                found = await answer(device, item)
                assert found.error is None
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
                if dice.random() < 0.2:
                    await device.call(lambda: stage.run([], 0, 0.0))
                if dice.random() < 0.2:
                    device.call_at_once(partial(stage.keep, SPARE, 0.0))
            if dice.random() < 0.5:  # its reader has gone
                device.submit(work(session, dice.choice(payloads)), lambda _: None)
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
            device.close(session)

        await asyncio.gather(*(reply() for _ in range(8)))
        await until(lambda: len(set(stage.closed) - {SPARE}) == 8)
        assert stage.open == set()
