"""relay/batches/recorder.py: what cannot be written keeps nothing else from being written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import cast

import pytest

from relay.batches import recorder
from relay.batches.recorder import CannotBeWritten, Recorder
from relay.records import AnswerRecord
from relay.store import Store
from schema.errors import Unavailable


class Answers:
    """In the place of the store: takes all but one, and remembers how many came at once."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        """What becomes of transactions with the line 7 in them."""
        self.written: set[int] = set()
        self.sizes: list[int] = []

    async def record_answers(self, answers: Sequence[AnswerRecord]) -> None:
        if self.error is not None and 7 in {answer.line for answer in answers}:
            raise self.error
        self.sizes.append(sum(len(answer.output) for answer in answers))
        self.written |= {answer.line for answer in answers}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.001)
    return Answers()


@pytest.fixture
async def running(answers: Answers) -> AsyncIterator[Recorder]:
    made = Recorder(cast(Store, answers))
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def answer(line: int, size: int = 2) -> AnswerRecord:
    return AnswerRecord("batch_a", line, False, "x" * size)


async def test_an_answer_that_the_database_does_not_take_fails_alone(
    running: Recorder, answers: Answers
) -> None:
    answers.error = ValueError("no such text")
    ends = await asyncio.gather(*(running.record(answer(n)) for n in range(20)), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if end is not None] == [7]
    assert isinstance(ends[7], CannotBeWritten)
    assert answers.written == set(range(20)) - {7}


async def test_an_answer_that_looks_like_an_outage_fails_when_others_do_not(
    running: Recorder, answers: Answers
) -> None:
    answers.error = Unavailable("the connection broke")
    bad = asyncio.create_task(running.record(answer(7)))
    for n in range(100, 200):
        await running.record(answer(n))
        if bad.done():
            break
    with pytest.raises(CannotBeWritten):
        await bad


async def test_an_outage_fails_nobody(running: Recorder, answers: Answers) -> None:
    answers.error = Unavailable("the database is away")
    bad = asyncio.create_task(running.record(answer(7)))
    while not running._waiting or running._waiting[0].seen < 0:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert not bad.done()
    answers.error = None
    await bad


async def test_long_answers_go_few_at_a_time(running: Recorder, answers: Answers) -> None:
    size = recorder.CHARS_AT_ONCE // 3
    await asyncio.gather(*(running.record(answer(n, size)) for n in range(7)))
    assert max(answers.sizes) <= recorder.CHARS_AT_ONCE
    assert len(answers.sizes) == 3
    await running.record(answer(8, 2 * recorder.CHARS_AT_ONCE))
