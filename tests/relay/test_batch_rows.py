"""relay/queries/: files, batches, chunks and keys, on both databases, and races end well."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.database import writing
from relay.queries import batches
from relay.queries.keys import KEEP_SECONDS, Repeatable
from relay.queries.quotas import LEAST_BYTES
from relay.records import AnswerRecord, BatchRecord, ChunkRecord, FileRecord, Page, WebhookRecord
from relay.settings import Settings
from relay.store import Store
from schema.errors import Conflict, IdempotencyKeyReused, NotFound, QuotaExceeded

FILE, BATCH = "file-a", "batch_a"
Took = tuple[int | None, int | None, int | None]
"""Tokens of prompts, those of them that were not computed again, and of what was said."""
ONE, OTHER = "one replica", "another"


@pytest.fixture
async def other_replica(settings: Settings, store: Store) -> AsyncIterator[Store]:
    """A second relay process on the same database."""
    async with Store.open(dataclasses.replace(settings, replica="there")) as opened:
        yield opened


@pytest.fixture
async def token(store: Store) -> str:
    return (await store.create_token("client", "Ada", "https://relay.example")).id


def batch_of(token: str, **changes: Any) -> BatchRecord:
    fields: dict[str, Any] = {"id": BATCH, "status": "validating", "created_at": 10.0, "expires_at": 1000.0}
    return BatchRecord(token_id=token, endpoint="/v1/completions", input_file_id=FILE, **(fields | changes))


def chunks(count: int) -> list[ChunkRecord]:
    return [ChunkRecord(number, 16 * number, 16, 100 * number, 100) for number in range(count)]


def answer(
    line: int, output: str = "{}", is_error: bool = False, batch: str = BATCH, took: Took = (0, 0, 0)
) -> AnswerRecord:
    return AnswerRecord(batch, line, is_error, output, *took)


def took_of(record: BatchRecord) -> Took:
    return record.prompt_tokens, record.cached_tokens, record.completion_tokens


@pytest.fixture
async def batch(store: Store, token: str) -> BatchRecord:
    """A batch in progress, of three chunks."""
    await store.add_file(FileRecord(FILE, token, "lines.jsonl", "batch", 300, 5.0))
    await store.add_batch(batch_of(token))
    assert await store.begin_batch(BATCH, chunks(3), 48, 20.0)
    return await store.batch(BATCH, token)


# ---- chunks and their leases ----


async def test_a_chunk_is_taken_once(store: Store, other_replica: Store, batch: BatchRecord) -> None:
    taken = await asyncio.gather(
        *(one.take_chunk(f"holder {n}", 100.0, 110.0) for n, one in enumerate([store, other_replica] * 4))
    )
    numbers = sorted(held.chunk.number for held in taken if held is not None)
    assert numbers == [0, 1, 2]
    assert await store.take_chunk("late", 109.0, 120.0) is None


async def test_a_chunk_whose_holder_died_is_taken_over_and_lost_to_it(
    store: Store, other_replica: Store, batch: BatchRecord
) -> None:
    held = await store.take_chunk(ONE, 100.0, 110.0)
    assert held is not None
    assert (held.endpoint, held.input_file_id, held.chunk) == (batch.endpoint, FILE, chunks(3)[0])
    assert await store.renew_chunks(ONE, {held.key: 5}, 115.0) == {held.key}
    assert await other_replica.others_at_work(OTHER, 111.0) == 1
    second, third, none = [await other_replica.take_chunk(OTHER, 112.0, 122.0) for _ in range(3)]
    assert [one and one.chunk.number for one in (second, third, none)] == [1, 2, None]
    assert await other_replica.take_chunk(OTHER, 116.0, 126.0) == held
    assert await store.renew_chunks(ONE, {held.key: 5}, 130.0) == set()
    assert not await store.finish_chunk(ONE, held.key, 120.0)
    assert await other_replica.renew_chunks(OTHER, {held.key: 0}, 130.0) == {held.key}, "it is still there"


async def test_a_chunk_that_is_given_back_is_anybodys(store: Store, batch: BatchRecord) -> None:
    first = await store.take_chunk(ONE, 100.0, 110.0)
    second = await store.take_chunk(ONE, 100.0, 110.0)
    assert first is not None
    assert second is not None
    await store.release_chunks(ONE, first.key)
    assert await store.take_chunk(OTHER, 101.0, 111.0) == first
    await store.release_chunks(ONE)
    assert await store.take_chunk(OTHER, 101.0, 111.0) == second


async def test_a_small_batch_does_not_wait_for_a_large_one(
    store: Store, token: str, batch: BatchRecord
) -> None:
    assert await store.take_chunk(ONE, 100.0, 110.0)
    await store.add_batch(batch_of(token, id="batch_b"))
    await store.begin_batch("batch_b", chunks(1), 16, 20.0)
    taken = await store.take_chunk(ONE, 100.0, 110.0)
    assert taken is not None
    assert taken.key == ("batch_b", 0)
    assert await store.take_chunk(ONE, 100.0, 110.0, [BATCH]) is None


async def test_a_line_is_recorded_once(store: Store, other_replica: Store, batch: BatchRecord) -> None:
    first, second = [answer(n, f'"{n}"') for n in range(5)], [answer(n, '"late"') for n in range(3, 8)]
    await asyncio.gather(store.record_answers(first), other_replica.record_answers(second))
    found = await store.answers_of(BATCH, False, -1, 100)
    assert [one.line for one in found] == list(range(8))
    assert [found[3].output, found[4].output] in (['"3"', '"4"'], ['"late"', '"late"'])
    assert await store.answered_lines(BATCH, 4, 7) == {4, 5, 6}
    assert [one.line for one in await store.answers_of(BATCH, False, 2, 2)] == [3, 4]
    assert [one.line for one in await store.answers_of(BATCH, False, 2, 9, most_chars=4)] == [3]
    assert [one.line for one in await store.answers_of(BATCH, False, 5, 9, most_chars=1)] == [6]
    await store.record_answers([answer(0, '"again"'), answer(0)])
    assert (await store.answers_of(BATCH, False, -1, 1))[0].output == '"0"'


async def test_answers_are_forgotten_some_at_a_time_when_their_batch_has_ended(
    store: Store, token: str, batch: BatchRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FORGOTTEN_AT_ONCE", 2)
    await store.record_answers([answer(n) for n in range(3)])
    assert not await store.forget_answers(BATCH)
    assert await store.answered_lines(BATCH) == {0, 1, 2}, "it has not ended"
    await store.cancel_batch(BATCH, token, 30.0)
    taken = await store.take_batch(ONE, 100.0, 160.0)
    assert taken is not None
    assert await store.end_batch(taken, taken._replace(status="cancelled"), [])
    assert await store.forget_answers(BATCH)
    assert await store.answered_lines(BATCH) == {2}
    assert not await store.forget_answers(BATCH)
    assert await store.answered_lines(BATCH) == set()


async def test_nobody_looks_for_work_under_a_lock(
    settings: Settings, store: Store, other_replica: Store, token: str, batch: BatchRecord
) -> None:
    held = [await store.take_chunk(ONE, 100.0, 110.0) for _ in range(3)]
    assert None not in held
    async with writing(other_replica._engine), asyncio.timeout(2.0):
        assert await store.take_chunk(ONE, 100.0, 110.0) is None
        assert await store.take_batch(ONE, 100.0, 110.0) is None


async def test_the_last_chunk_has_the_batch_finalized_once(
    store: Store, other_replica: Store, token: str, batch: BatchRecord
) -> None:
    held = [await store.take_chunk(ONE, 100.0, 110.0) for _ in range(3)]
    ends = await asyncio.gather(
        *(
            one.finish_chunk(ONE, chunk.key, 105.0)
            for one, chunk in zip((store, other_replica, store), held, strict=True)
            if chunk is not None
        )
    )
    assert sorted(ends) == [False, False, True]
    assert (await store.batch(BATCH, token)).status == "finalizing"
    await store.record_answers([answer(0)])
    assert await store.answered_lines(BATCH) == set(), "its files are being written"


# ---- batches ----


async def test_answers_are_counted_while_a_batch_is_in_progress(
    store: Store, token: str, batch: BatchRecord
) -> None:
    await store.record_answers([answer(0), answer(1), answer(2, is_error=True)])
    found = await store.batch(BATCH, token)
    assert (found.total, found.completed, found.failed) == (48, 2, 1)
    assert await store.batches(token, Page(10)) == [found]


async def test_what_lines_took_counts_once_though_two_replicas_answer_them(
    store: Store, other_replica: Store, token: str, batch: BatchRecord
) -> None:
    assert took_of(batch) == (0, 0, 0), "nothing was answered yet"
    first = [answer(n, took=(10, 4, 2)) for n in range(5)]
    second = [answer(n, took=(10, 4, 2)) for n in range(3, 8)]
    await asyncio.gather(store.record_answers(first), other_replica.record_answers(second))
    await store.record_answers([*first, answer(8, is_error=True)])
    found = await store.batch(BATCH, token)
    assert (found.completed, found.failed, took_of(found)) == (8, 1, (80, 32, 16))
    await store.cancel_batch(BATCH, token, 30.0)
    taken = await store.take_batch(ONE, 100.0, 160.0)
    assert taken is not None
    ended = taken._replace(status="cancelled", completed=8, failed=1)
    assert await store.end_batch(taken, ended, [])
    assert not await other_replica.end_batch(taken, ended, [])
    assert not await store.forget_answers(BATCH)
    assert took_of(await store.batch(BATCH, token)) == (80, 32, 16)


async def test_what_tokens_were_taken_is_not_known_where_a_relay_did_not_note_it(
    store: Store, token: str, batch: BatchRecord
) -> None:
    await store.record_answers([answer(0, took=(10, 0, 2)), answer(1, took=(None, None, None))])
    assert took_of(await store.batch(BATCH, token)) == (None, None, None)
    await store.cancel_batch(BATCH, token, 30.0)
    taken = await store.take_batch(ONE, 100.0, 160.0)
    assert taken is not None
    assert await store.end_batch(taken, taken._replace(status="cancelled"), [])
    assert took_of(await store.batch(BATCH, token)) == (None, None, None)


async def test_more_tokens_than_an_integer_has_are_summed(
    store: Store, token: str, batch: BatchRecord
) -> None:
    await store.record_answers([answer(n, took=(2**40, 2**39, 2**41)) for n in range(3)])
    assert took_of(await store.batch(BATCH, token)) == (3 * 2**40, 3 * 2**39, 3 * 2**41)


async def test_what_is_done_with_a_batch_is_done_by_one(
    store: Store, other_replica: Store, token: str
) -> None:
    await store.add_file(FileRecord(FILE, token, "lines.jsonl", "batch", 300, 5.0))
    await store.add_batch(batch_of(token))
    taken = await asyncio.gather(
        *(one.take_batch(f"holder {n}", 100.0, 160.0) for n, one in enumerate([store, other_replica] * 3))
    )
    assert [one.id for one in taken if one is not None] == [BATCH]
    assert await store.take_batch(OTHER, 161.0, 200.0), "its holder has died"
    begun = await asyncio.gather(
        *(one.begin_batch(BATCH, chunks(3), 48, 20.0) for one in (store, other_replica))
    )
    assert sorted(begun) == [False, True]
    assert not await store.fail_batch(BATCH, "[]", 21.0)
    assert await store.take_batch(OTHER, 161.0, 200.0) is None


async def test_a_batch_ends_once_with_its_files(
    store: Store, other_replica: Store, token: str, batch: BatchRecord
) -> None:
    await store.record_answers([answer(0)])
    await store.cancel_batch(BATCH, token, 30.0)
    assert await store.take_chunk(ONE, 100.0, 110.0) is None
    await store.record_answers([answer(1)])
    assert await store.answered_lines(BATCH) == {0}
    taken = await store.take_batch(ONE, 100.0, 160.0)
    assert taken is not None
    webhook = WebhookRecord("evt_a", token, "https://a.example", "{}", 31.0)

    def end(one: Store, file: str) -> Any:
        after = taken._replace(status="cancelled", cancelled_at=31.0, output_file_id=file, completed=1)
        return one.end_batch(taken, after, [FileRecord(file, token, "o", "batch_output", 1, 31.0)], webhook)

    ends = await asyncio.gather(end(store, "file-b"), end(other_replica, "file-c"))
    assert sorted(ends) == [False, True]
    found = await store.batch(BATCH, token)
    assert (found.status, found.completed) == ("cancelled", 1)
    assert found.output_file_id == ("file-b" if ends[0] else "file-c")
    assert [one.id for one in await store.files(token, Page(10), "batch_output")] == [found.output_file_id]
    assert await store.ended_with_answers() == [BATCH]
    assert not await store.forget_answers(BATCH), "there are no more"
    assert await store.answers_of(BATCH, False, -1, 10) == []
    assert await store.ended_with_answers() == []
    assert await store.cancel_batch(BATCH, token, 32.0) == found, "it stays as it is"


async def test_what_is_overdue_or_revoked_is_closed(store: Store, token: str, batch: BatchRecord) -> None:
    assert await store.close_overdue(999.0) == 0
    assert await store.close_overdue(1001.0) == 1
    found = await store.batch(BATCH, token)
    assert (found.status, found.expired_at) == ("finalizing", 1001.0)
    with pytest.raises(Conflict):
        await store.cancel_batch(BATCH, token, 1002.0)
    await store.add_batch(batch_of(token, id="batch_b"))
    await store.revoke_token(token)
    assert await store.close_overdue(500.0) == 1
    assert (await store.batch("batch_b", token)).status == "cancelling"


async def test_what_an_expired_token_has_begun_is_closed(
    store: Store, token: str, batch: BatchRecord
) -> None:
    await store.change_token(token, {"expires_at": 400.0})
    assert await store.close_overdue(399.0) == 0
    assert await store.close_overdue(400.0) == 1
    assert (await store.batch(BATCH, token)).status == "cancelling"


async def test_a_file_is_removed_or_read_by_a_batch_and_not_both(
    store: Store, other_replica: Store, token: str
) -> None:
    for number in range(10):
        file, name = f"file-{number}", f"batch_{number}"
        await store.add_file(FileRecord(file, token, "lines.jsonl", "batch", 300, 5.0))
        record = batch_of(token, id=name)._replace(input_file_id=file)
        ends = await asyncio.gather(
            store.add_batch(record), other_replica.remove_file(file, token), return_exceptions=True
        )
        assert [isinstance(end, NotFound | Conflict) for end in ends].count(True) == 1


async def test_nobody_reads_what_is_anothers(store: Store, batch: BatchRecord) -> None:
    for asked in (
        store.batch(BATCH, "nobody"),
        store.file(FILE, "nobody"),
        store.remove_file(FILE, "nobody"),
        store.file("\0", "nobody"),
        store.batch("\0", "nobody"),
    ):
        with pytest.raises(NotFound):
            await asked


async def test_lists_are_paged_by_time_and_id(store: Store, token: str) -> None:
    names = [f"file-{n}" for n in range(6)]
    for name in names:
        await store.add_file(FileRecord(name, token, name, "batch", 1, 7.0))
    first = await store.files(token, Page(2))
    assert [one.id for one in first] == ["file-5", "file-4", "file-3"], (
        "one more than asked for: there are more"
    )
    assert [one.id for one in await store.files(token, Page(9, "file-4"))] == names[3::-1]
    assert [one.id for one in await store.files(token, Page(9, "file-4", True))] == ["file-5"]


# ---- how much one token may have ----


async def test_no_token_keeps_more_than_it_may_however_it_comes(
    store: Store, other_replica: Store, token: str
) -> None:
    def add_file(number: int, size: int) -> Any:
        record = FileRecord(f"file-{number}", token, "lines", "batch", size, 1.0)
        return (store, other_replica)[number % 2].add_file(record, most_bytes=3 * LEAST_BYTES)

    outcomes = await asyncio.gather(*(add_file(number, 1) for number in range(6)), return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [QuotaExceeded] * 3
    assert len(await store.files(token, Page(10))) == 3


async def test_no_token_has_more_open_batches_than_it_may(
    store: Store, other_replica: Store, token: str
) -> None:
    await store.add_file(FileRecord(FILE, token, "lines.jsonl", "batch", 300, 5.0))

    def add_batch(number: int) -> Any:
        return (store, other_replica)[number % 2].add_batch(batch_of(token, id=f"batch_{number}"), most=2)

    outcomes = await asyncio.gather(*map(add_batch, range(6)), return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [QuotaExceeded] * 4
    ended = (await store.batches(token, Page(10)))[0]
    assert await store.fail_batch(ended.id, "[]", 20.0)
    assert await add_batch(7) is None


async def test_events_of_a_busy_token_are_left_for_later(store: Store, token: str) -> None:
    other = (await store.create_token("client", "Bob", "https://relay.example")).id
    for name, whose in (("a", token), ("b", other)):
        await store.add_file(FileRecord(f"file-{name}", whose, "lines", "batch", 1, 1.0))
        record = batch_of(whose, id=name)._replace(input_file_id=f"file-{name}")
        await store.add_batch(record)
        event = WebhookRecord(f"evt_{name}", whose, "https://a.example", "{}", 1.0)
        await store.fail_batch(name, "[]", 2.0, event)
    assert await store.take_webhook(10.0, 20.0, [token, other]) is None
    taken = await store.take_webhook(10.0, 20.0, [token])
    assert taken is not None
    assert taken.token_id == other
    assert await store.take_webhook(10.0, 20.0) is not None


# ---- keys ----


async def test_a_request_that_comes_again_makes_nothing(
    store: Store, other_replica: Store, token: str
) -> None:
    again = Repeatable("key", "a" * 64)

    def add(number: int, at: float = 1.0, request: Repeatable = again) -> Any:
        record = FileRecord(f"file-{number}", token, "lines", "batch", 1, at)
        replica = (store, other_replica)[number % 2]
        return replica.add_file(record, f"{number}".encode(), request)

    answers = await asyncio.gather(*(add(number) for number in range(6)))
    (made,) = [number for number, answer in enumerate(answers) if answer is None]
    assert {answer for answer in answers if answer is not None} == {f"{made}".encode()}
    assert [one.id for one in await store.files(token, Page(10))] == [f"file-{made}"]
    with pytest.raises(IdempotencyKeyReused):
        await add(7, request=Repeatable("key", "b" * 64))
    assert await add(8, KEEP_SECONDS + 2.0, Repeatable("key", "b" * 64)) is None, "it is forgotten by then"


async def test_keys_are_forgotten_after_a_day(store: Store, token: str) -> None:
    record = FileRecord(FILE, token, "lines", "batch", 1, 1.0)
    await store.add_file(record, b"{}", Repeatable("key", "a" * 64))
    assert await store.remove_old_keys(KEEP_SECONDS) == 0
    assert await store.remove_old_keys(KEEP_SECONDS + 2.0) == 1


async def test_replicas_tell_each_other_how_many_people_wait(store: Store, other_replica: Store) -> None:
    await store.renew_lease(100.0, {"llama": 2, "other": 1})
    await other_replica.renew_lease(100.0, {"llama": 5})
    assert await store.replies_elsewhere(99.0) == {"llama": 5}
    assert await other_replica.replies_elsewhere(99.0) == {"llama": 2, "other": 1}
    assert await store.replies_elsewhere(101.0) == {}
