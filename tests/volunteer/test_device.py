"""What the event loop may count on of the device thread, with an engine that only echoes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from schema.errors import CorollaError, NotServing, QueueFull, SessionUnknown, StepFailed
from schema.frames import FrameType
from schema.ids import SessionId, Span
from volunteer import device as device_module
from volunteer.device import DeviceThread
from volunteer.scheduler import Limits
from volunteer.work import Result, Work

SPAN = Span(0, 2)
A, B = SessionId(b"a" * 16), SessionId(b"b" * 16)


class EchoStage:
    """An engine that answers with the payload. It waits while `gate` is closed; `boom` breaks it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.expired = threading.Semaphore(0)
        self.open: set[SessionId] = set()
        self.kept: set[SessionId] = set()
        self.idle: list[SessionId] = []
        self.ran: list[bytes] = []

    @property
    def sessions(self) -> int:
        return len(self.open)

    @property
    def kv_used(self) -> int:
        return 100 * len(self.open)

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        self.entered.release()
        self.gate.wait()
        results: list[Result] = []
        for work in batch:
            self.open.add(work.session)
            self.ran.append(bytes(work.payload))
            if work.payload == b"boom":
                raise ZeroDivisionError
            results.append(Result(work, bytes(work.payload)))
        return results

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
        expired, self.idle = self.idle, []
        self.open.difference_update(expired)
        if expired:
            self.expired.release()
        return expired


def work(
    session: SessionId = A, payload: bytes = b"x", kind: FrameType = FrameType.STEP, epoch: int = 0
) -> Work:
    return Work(kind=kind, session=session, step=0, position=0, epoch=epoch, span=SPAN, payload=payload)


class Caller:
    """Collects results; `wait` gives them once there are `count`."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._more = asyncio.Event()

    def __call__(self, result: Result) -> None:
        self.results.append(result)
        self._more.set()

    async def wait(self, count: int = 1) -> list[Result]:
        while len(self.results) < count:
            self._more.clear()
            await self._more.wait()
        return self.results


def error_of(result: Result) -> CorollaError:
    assert result.error is not None
    return result.error


async def hold(device: DeviceThread, stage: EchoStage) -> Callable[[], None]:
    """Keeps the thread inside a step of its own until the returned function is called."""
    stage.gate.clear()
    device.submit(work(SessionId(b"h" * 16), b"held"), lambda _: None)
    await asyncio.to_thread(stage.entered.acquire)
    return stage.gate.set


@pytest.fixture
async def device() -> AsyncIterator[DeviceThread]:
    async with DeviceThread() as thread:
        yield thread


@pytest.fixture
async def stage(device: DeviceThread) -> AsyncIterator[EchoStage]:
    stage = await device.install(EchoStage)
    yield stage
    stage.gate.set()


@pytest.fixture
def caller() -> Caller:
    return Caller()


async def test_a_result_comes_back_on_the_event_loop(device: DeviceThread, stage: EchoStage) -> None:
    done: asyncio.Future[tuple[Result, int]] = asyncio.get_running_loop().create_future()
    item = work(payload=b"hello")
    device.submit(item, lambda result: done.set_result((result, threading.get_ident())))
    result, thread = await done
    assert (result.work, result.payload, result.error) == (item, b"hello", None)
    assert thread == threading.get_ident()


async def test_steps_of_a_session_come_back_in_order(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    items = [work(payload=bytes([number])) for number in range(100)]
    for item in items:
        device.submit(item, caller)
    assert [result.work for result in await caller.wait(100)] == items


async def test_before_an_engine_is_installed_work_fails_by_name(device: DeviceThread, caller: Caller) -> None:
    device.submit(work(), caller)
    (result,) = await caller.wait()
    assert isinstance(result.error, NotServing)


async def test_another_engine_takes_over_and_the_first_is_emptied(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    device.submit(work(), caller)
    await caller.wait()
    other = await device.install(EchoStage)
    assert stage.open == set()
    device.submit(work(), caller)
    await caller.wait(2)
    assert other.ran == [b"x"]


async def test_an_engine_that_cannot_be_built_leaves_the_one_before(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    def broken() -> EchoStage:
        raise MemoryError

    with pytest.raises(MemoryError):
        await device.install(broken)
    device.submit(work(payload=b"still"), caller)
    assert (await caller.wait())[0].payload == b"still"


async def test_who_watches_is_told_every_batch_and_what_it_took(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    seen: list[tuple[list[bytes], float, int]] = []

    def watch(results: Sequence[Result], seconds: float) -> None:
        seen.append(([bytes(result.payload) for result in results], seconds, threading.get_ident()))

    await device.watch(watch)
    device.submit(work(payload=b"one"), caller)
    await caller.wait()
    thread = await device.call(threading.get_ident)  # after the batch is over
    ((payloads, seconds, watched_on),) = seen
    assert (payloads, watched_on) == ([b"one"], thread)
    assert seconds >= 0


async def test_a_long_call_can_see_that_others_wait(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def long() -> tuple[bool, bool]:
        before = device.is_wanted()
        begun.set()
        go_on.wait()
        return before, device.is_wanted()

    running = device.call(long)
    await asyncio.to_thread(begun.wait)
    device.submit(work(), caller)
    go_on.set()
    assert await running == (False, True)
    await caller.wait()
    assert await device.call(device.is_wanted) is False


@pytest.mark.parametrize("ask", [lambda device: device.call(int), lambda device: device.close(A)])
async def test_calls_and_closings_are_waited_for_too(
    device: DeviceThread, ask: Callable[[DeviceThread], object]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def long() -> bool:
        begun.set()
        go_on.wait()
        return device.is_wanted()

    running = device.call(long)
    await asyncio.to_thread(begun.wait)
    ask(device)
    go_on.set()
    assert await running is True


async def test_a_call_runs_on_the_device_thread_and_gives_its_value(device: DeviceThread) -> None:
    first = await device.call(threading.get_ident)
    assert first == await device.call(threading.get_ident) != threading.get_ident()


async def test_a_call_s_error_is_raised_where_it_is_awaited(device: DeviceThread) -> None:
    def broken() -> None:
        raise LookupError("the cause")

    with pytest.raises(LookupError, match="the cause"):
        await device.call(broken)
    assert await device.call(lambda: 1) == 1


async def test_calls_go_before_steps_that_wait(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    release = await hold(device, stage)
    for kind in (FrameType.STEP, FrameType.PREFILL):
        device.submit(work(SessionId(kind.name.encode().ljust(16)), kind=kind), caller)
    call = asyncio.ensure_future(device.call(lambda: list(stage.ran)))
    await asyncio.sleep(0)  # lets the task queue its call
    release()
    assert await call == [b"held"]


async def test_a_call_that_nobody_waits_for_any_more_is_not_run(
    device: DeviceThread, stage: EchoStage
) -> None:
    release = await hold(device, stage)
    ran: list[int] = []
    call = asyncio.ensure_future(device.call(lambda: ran.append(1)))
    await asyncio.sleep(0)  # lets the task queue its call
    call.cancel()
    await asyncio.wait([call])
    release()
    await device.call(lambda: None)
    assert ran == []


async def test_a_broken_batch_fails_by_name_and_the_thread_lives_on(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    device.submit(work(A, b"boom"), caller)
    await caller.wait()
    device.submit(work(B, b"fine"), caller)
    broken, fine = await caller.wait(2)
    assert isinstance(broken.error, StepFailed)
    assert fine.payload == b"fine"
    assert stage.open == {B}


async def test_a_caller_that_raises_harms_no_other(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def broken(result: Result) -> None:
        raise LookupError

    device.submit(work(A), broken)
    device.submit(work(B), caller)
    assert (await caller.wait())[0].error is None
    assert len(complaints) == 1


async def test_closing_a_session_frees_it_and_drops_what_waits(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    device.submit(work(A), caller)
    await caller.wait()
    release = await hold(device, stage)
    device.submit(work(A, b"dropped"), caller)
    device.close(A)
    release()
    await device.call(lambda: None)
    await device.call(lambda: None)  # the turn after the one in which the session was closed
    assert A not in stage.open
    assert b"dropped" not in stage.ran
    assert len(caller.results) == 1
    assert device.stats().failures["cancelled"] == 1


async def test_late_steps_of_a_closed_session_are_refused_at_once(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    device.close(A, epoch=1)
    with pytest.raises(SessionUnknown):
        device.submit(work(A, epoch=1), caller)
    assert device.stats().failures["session_unknown"] == 1


async def test_a_newer_epoch_silences_what_waited_of_the_older(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    release = await hold(device, stage)
    device.submit(work(A, b"old"), caller)
    device.submit(work(A, b"new", epoch=1), caller)
    device.submit(work(A, b"late"), caller)
    release()
    assert [result.payload for result in await caller.wait()] == [b"new"]
    assert device.stats().failures["stale"] == 2


async def test_a_full_queue_refuses_by_name_and_keeps_the_rest(caller: Caller) -> None:
    async with DeviceThread(Limits(items=1)) as device:
        stage = await device.install(EchoStage)
        release = await hold(device, stage)
        device.submit(work(A, b"kept"), caller)
        with pytest.raises(QueueFull):
            device.submit(work(B, b"refused"), caller)
        assert device.stats().failures["queue_full"] == 1
        release()
        assert [result.payload for result in await caller.wait()] == [b"kept"]


async def test_idle_sessions_are_looked_for_without_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "HOUSEKEEPING_SECONDS", 0.01)
    async with DeviceThread() as device:
        stage = await device.install(EchoStage)
        await device.call(lambda: stage.open.add(A))
        stage.idle = [A]
        assert await asyncio.to_thread(stage.expired.acquire, timeout=10)
        await device.call(lambda: None)
        await device.call(lambda: None)  # the turn after the one that counted
        assert (stage.open, device.stats().sessions) == (set(), 0)
        assert device.stats().failures["idle"] == 1


async def test_stats_tell_what_waits_and_what_was_done(
    device: DeviceThread, stage: EchoStage, caller: Caller
) -> None:
    release = await hold(device, stage)
    device.submit(work(A, b"1234"), caller)
    device.submit(work(B, b"5678"), caller)
    during = device.stats()
    assert (during.queued, during.queued_bytes, during.steps) == (2, 8, 0)
    release()
    await caller.wait(2)
    device.submit(work(B, b"boom"), caller)
    await caller.wait(3)
    after = device.stats()
    assert (after.queued, after.queued_bytes, after.steps) == (0, 0, 3)
    assert (after.sessions, after.kv_used, after.failures) == (2, 200, {"step_failed": 1})
    assert after.busy_seconds > 0
    assert after.waited >= 0


async def test_stopping_runs_what_waits_and_frees_all_sessions(caller: Caller) -> None:
    async with DeviceThread() as device:
        stage = await device.install(EchoStage)
        release = await hold(device, stage)
        for number in range(10):
            device.submit(work(payload=bytes([number])), caller)
        stopping = asyncio.create_task(device.stop())
        release()
        assert await stopping
    assert [result.error for result in await caller.wait(10)] == [None] * 10
    assert (stage.open, device.stats().sessions) == (set(), 0)


async def test_what_does_not_run_in_time_fails_by_name(caller: Caller) -> None:
    async with DeviceThread() as device:
        stage = await device.install(EchoStage)
        release = await hold(device, stage)
        device.submit(work(), caller)
        call = asyncio.ensure_future(device.call(lambda: None))
        await asyncio.sleep(0)  # lets the task queue its call
        stopping = asyncio.create_task(device.stop(0.0))
        await asyncio.sleep(0)  # lets the task set the deadline
        release()
        assert await stopping
        assert isinstance(error_of((await caller.wait())[0]), NotServing)
        with pytest.raises(NotServing):
            await call
        assert device.stats().queued == 0


async def test_a_stopped_thread_refuses_by_name(device: DeviceThread, caller: Caller) -> None:
    await device.stop()
    with pytest.raises(NotServing):
        device.submit(work(), caller)
    with pytest.raises(NotServing):
        await device.call(lambda: None)


async def test_a_stuck_step_does_not_hold_up_the_end(
    device: DeviceThread, stage: EchoStage, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "GRACE_SECONDS", 0.05)
    await hold(device, stage)
    device.submit(work(), caller)
    assert not await device.stop(0.0)
    assert isinstance(error_of((await caller.wait())[0]), NotServing)


async def test_a_thread_that_dies_fails_what_waits_and_refuses_the_rest(
    device: DeviceThread, stage: EchoStage, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(session: SessionId) -> None:
        raise AssertionError("an engine that breaks its promise")

    release = await hold(device, stage)
    monkeypatch.setattr(stage, "close", broken)
    device.close(B)
    device.submit(work(A), caller)
    device.submit(work(A), caller)
    release()
    assert [type(result.error) for result in await caller.wait(2)] == [NotServing, NotServing]
    with pytest.raises(NotServing):
        device.submit(work(A), caller)
