"""What a turn holds, and who is told at the end: the shared queue alone, without a thread."""

import asyncio

import pytest

from schema.errors import NotServing, StepFailed
from schema.frames import FrameType
from schema.ids import SessionId, Span
from volunteer.device_queue import Call, Closing, DeviceQueue
from volunteer.work import Result, Work

A, B = SessionId(b"a" * 16), SessionId(b"b" * 16)


def work(session: SessionId) -> Work:
    return Work(
        kind=FrameType.STEP, session=session, step=0, position=0, epoch=0, span=Span(0, 1), payload=b"1"
    )


def ignore(result: Result) -> None:
    """A caller that does not care."""


def test_nothing_is_an_empty_turn_and_an_empty_batch() -> None:
    queue = DeviceQueue()
    assert queue.next_turn() == ([], [])
    assert queue.take(may_sleep=True) == (([], 0), True, None)


async def test_a_turn_holds_everything_to_close_and_call_and_leaves_the_steps() -> None:
    queue = DeviceQueue()
    calls = [Call(lambda: None, asyncio.get_running_loop().create_future()) for _ in range(2)]
    steps = [work(A), work(A)]
    for step, call in zip(steps, calls, strict=True):
        queue.put_work(step, ignore)
        queue.put_call(call)
        queue.put_close(B, 0)
    assert queue.next_turn() == ([Closing(B, keeps=False)] * 2, calls)
    assert queue.take(may_sleep=True).batch.steps == [steps[0]]
    assert queue.next_turn() == ([], [])
    assert queue.take(may_sleep=True).batch.steps == [steps[1]]


def test_sleep_ends_when_something_is_put_in() -> None:
    queue = DeviceQueue()
    queue.take(may_sleep=True)
    queue.put_work(work(A), ignore)
    queue.sleep(3600.0)


def test_sleep_ends_after_its_time() -> None:
    queue = DeviceQueue()
    queue.take(may_sleep=True)
    queue.sleep(0.001)
    queue.put_work(work(A), ignore)
    assert len(queue.take(may_sleep=True).batch.steps) == 1


def test_the_thread_sleeps_only_after_a_turn_that_had_nothing() -> None:
    """Else the event loop would borrow the device from a thread that is awake."""
    queue = DeviceQueue()
    assert not queue.take(may_sleep=False).sleeps
    assert not queue.borrow()
    assert queue.take(may_sleep=True).sleeps
    assert queue.borrow()


def test_what_was_borrowed_is_not_lent_again_and_wakes_nobody() -> None:
    queue = DeviceQueue()
    queue.take(may_sleep=True)
    batch = queue.put_and_borrow(work(A), ignore)
    assert batch is not None
    assert not queue.borrow()
    assert queue.put_and_borrow(work(B), ignore) is None
    assert queue.go_on() is not None
    queue.hand_over(batch)
    queue.sleep(20.0)
    assert queue.take(may_sleep=True).batch is batch


def test_what_was_handed_over_goes_before_what_is_to_be_closed() -> None:
    queue = DeviceQueue()
    queue.take(may_sleep=True)
    batch = queue.put_and_borrow(work(A), ignore)
    assert batch is not None
    queue.hand_over(batch)
    queue.put_close(A, 0)
    assert queue.next_turn() == ([], [])
    assert queue.take(may_sleep=True).batch is batch
    assert queue.next_turn() == ([Closing(A, keeps=False)], [])


def test_a_thread_that_is_to_end_does_not_sleep() -> None:
    queue = DeviceQueue()
    assert queue.next_turn() == ([], [])
    queue.drain(3600.0)
    assert not queue.take(may_sleep=True).sleeps
    assert queue.next_turn() is None


def test_draining_takes_nothing_more_but_gives_what_waits() -> None:
    queue = DeviceQueue()
    queue.put_work(work(A), ignore)
    queue.drain(3600.0)
    with pytest.raises(NotServing):
        queue.put_work(work(B), ignore)
    assert queue.next_turn() is not None
    assert len(queue.take(may_sleep=True).batch.steps) == 1
    assert queue.next_turn() is None


def test_after_the_deadline_there_is_no_turn() -> None:
    queue = DeviceQueue()
    queue.put_work(work(A), ignore)
    queue.drain(0.0)
    assert queue.next_turn() is None


def test_the_end_tells_those_whose_step_waits_and_those_whose_step_runs() -> None:
    queue = DeviceQueue()
    running, waiting = work(A), work(B)
    queue.put_work(running, ignore)
    queue.take(may_sleep=True)
    queue.put_work(waiting, ignore)
    assert [result.work for _, result in queue.end().results] == [running, waiting]
    assert queue.stats().failures == {"not_serving": 2}
    assert queue.stats().queued == 0


def test_a_result_after_the_end_is_told_to_nobody() -> None:
    queue = DeviceQueue()
    running = work(A)
    queue.put_work(running, ignore)
    queue.take(may_sleep=True)
    queue.end()
    assert queue.computed([Result(running)], 0.0) == []


def test_results_are_counted_by_their_name() -> None:
    queue = DeviceQueue()
    steps = [work(A), work(B)]
    for step in steps:
        queue.put_work(step, ignore)
    answers = queue.computed([Result(steps[0]), Result(steps[1], error=StepFailed("no"))], 1.5)
    assert [result.work for _, result in answers] == steps
    stats = queue.stats()
    assert (stats.steps, stats.failures, stats.busy_seconds) == (1, {"step_failed": 1}, 1.5)
