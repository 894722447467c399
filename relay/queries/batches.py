"""Batches as a whole: made, looked at, checked, cancelled, ended.

    validating ──> in_progress ──> finalizing ──> completed
        │               │  └─ its time is over ──> finalizing ──> expired
        └──> failed     └──> cancelling ──> cancelled

Every change says from which status it goes, so that of several that try only one makes it. What takes a while
(checking a file, writing one) is done under a lease, which somebody else takes over when its holder dies.
Does not know what lines are answered: relay/queries/chunks.py does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import case, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import reading, writing
from relay.queries.base import Queries, among, insert_into, listed
from relay.queries.files import Lock, find_file, put_file
from relay.queries.keys import Repeatable, remember
from relay.queries.quotas import require_room_for_batch
from relay.records import AnswerRecord, BatchRecord, ChunkRecord, FileRecord, Page, WebhookRecord
from relay.tables import BatchAnswer, BatchChunk, BatchRow, Token, Webhook
from schema.batches import BatchStatus
from schema.errors import Conflict, InvalidRequest, NotFound

_OPEN: tuple[BatchStatus, ...] = ("validating", "in_progress")
_TO_DO: tuple[BatchStatus, ...] = ("validating", "finalizing", "cancelling")
"""In which somebody has to do something with the batch as a whole."""
_COUNTED: tuple[BatchStatus, ...] = ("in_progress", "finalizing", "cancelling")
"""Whose answers are still there to be counted."""
_ENDED: tuple[BatchStatus, ...] = ("failed", "completed", "expired", "cancelled")
ROWS_AT_ONCE = 2000
PAGE_CHARS = 8 * 1024 * 1024
"""Of answers that are read at once."""
FORGOTTEN_AT_ONCE = 100
"""Answers; they may be long."""


class BatchQueries(Queries):
    """The table `batches`."""

    async def add_batch(
        self,
        record: BatchRecord,
        answer: bytes = b"",
        request: Repeatable | None = None,
        most: int | None = None,
    ) -> bytes | None:
        """Note a batch; or, when its request came before, only say what that was answered.

        `most`: batches of its token that have not ended.

        Raises:
            NotFound: its input file is not there, or another token's. InvalidRequest: it is an output file.
            IdempotencyKeyReused: the request's key came with another one. QuotaExceeded: too many are open.
        """
        async with writing(self._engine) as connection:
            if request is not None:
                earlier = await remember(connection, record.token_id, request, answer, record.created_at)
                if earlier is not None:
                    return earlier
            file = await find_file(connection, record.input_file_id, record.token_id, lock=Lock.READ)
            if file.purpose != "batch":
                raise InvalidRequest("this file was written by a batch", param="input_file_id")
            if most is not None:
                await require_room_for_batch(connection, record.token_id, most)
            await connection.execute(insert(BatchRow).values(record._asdict()))
        return None

    async def batch(self, batch_id: str, token_id: str) -> BatchRecord:
        """Raises NotFound: there is none of this id, or it is another token's."""
        async with reading(self._engine) as connection:
            found = await _find(connection, batch_id, token_id)
            return (await _counted(connection, [found]))[0]

    async def batches(self, token_id: str, page: Page) -> list[BatchRecord]:
        """One page of a token's batches, the newest first, and one more where there are more.

        Raises:
            NotFound: there is no batch to begin after.
        """
        query = select(BatchRow).where(BatchRow.token_id == token_id)
        order = (BatchRow.created_at, BatchRow.id)
        async with reading(self._engine) as connection:
            if page.after is not None:
                last = await _find(connection, page.after, token_id)
                query = query.where(tuple_(*order) < tuple_(last.created_at, last.id))
            query = query.order_by(*(one.desc() for one in order)).limit(page.limit + 1)
            found = [BatchRecord(*row) for row in await connection.execute(query)]
            return await _counted(connection, found)

    async def cancel_batch(self, batch_id: str, token_id: str, now: float) -> BatchRecord:
        """Have nothing more of a batch begun; one that is being cancelled stays as it is.

        Raises:
            NotFound: as `batch`. Conflict: it has ended, or is about to.
        """
        async with writing(self._engine) as connection:
            found = await _find(connection, batch_id, token_id)
            if found.status not in ("cancelling", "cancelled"):
                values = {"status": "cancelling", "cancelling_at": now, "leased_until": 0.0}
                if not await _change(connection, found.id, _OPEN, values):
                    raise Conflict(f"a batch that is {found.status} cannot be cancelled")
                await connection.execute(delete(BatchChunk).where(BatchChunk.batch_id == batch_id))
                found = await _find(connection, batch_id, token_id)
            return (await _counted(connection, [found]))[0]

    async def close_overdue(self, now: float) -> int:
        """Have batches ended whose time is over, or whose token was revoked or has expired. How many there
        were."""
        late = BatchRow.expires_at < now
        is_over = Token.revoked_at.is_not(None) | (Token.expires_at <= now)
        has_nobody = exists().where(Token.id == BatchRow.token_id, is_over)
        query = select(BatchRow.id, late).where(BatchRow.status.in_(_OPEN), late | has_nobody)
        async with reading(self._engine) as connection:
            found = [(str(row[0]), bool(row[1])) for row in await connection.execute(query)]
        for batch_id, is_late in found:
            values: dict[str, Any] = {"status": "cancelling", "cancelling_at": now}
            if is_late:
                values = {"status": "finalizing", "finalizing_at": now, "expired_at": now}
            async with writing(self._engine) as connection:
                if await _change(connection, batch_id, _OPEN, values | {"leased_until": 0.0}):
                    await connection.execute(delete(BatchChunk).where(BatchChunk.batch_id == batch_id))
        return len(found)

    async def take_batch(self, holder: str, now: float, until: float) -> BatchRecord | None:
        """A batch that has to be checked or ended, for this holder alone until then; None: there is none."""
        query = (
            select(BatchRow)
            .where(BatchRow.status.in_(_TO_DO), BatchRow.leased_until < now)
            .order_by(BatchRow.created_at)
            .limit(1)
        )
        async with reading(self._engine) as connection:
            if (await connection.execute(query)).one_or_none() is None:
                return None  # as it mostly is: no lock is taken for that
        query = query.with_for_update(skip_locked=True)
        async with writing(self._engine) as connection:
            found = (await connection.execute(query)).one_or_none()
            if found is None:
                return None
            record = BatchRecord(*found)
            mine = {"holder": holder, "leased_until": until}
            await connection.execute(update(BatchRow).where(BatchRow.id == record.id).values(mine))
            return record._replace(**mine)

    async def begin_batch(self, batch_id: str, chunks: Sequence[ChunkRecord], total: int, now: float) -> bool:
        """Have its lines answered. Whether it was still being checked."""
        values = {"status": "in_progress", "in_progress_at": now, "total": total, "leased_until": 0.0}
        free = {"batch_id": batch_id, "holder": None, "leased_until": 0.0, "running": 0}
        async with writing(self._engine) as connection:
            if not await _change(connection, batch_id, ("validating",), values):
                return False
            for first in range(0, len(chunks), ROWS_AT_ONCE):
                rows = [chunk._asdict() | free for chunk in chunks[first : first + ROWS_AT_ONCE]]
                await connection.execute(insert(BatchChunk), rows)
        return True

    async def fail_batch(
        self, batch_id: str, errors: str, now: float, webhook: WebhookRecord | None = None
    ) -> bool:
        """Note that its file cannot be taken, and why (JSON). Whether it was still being checked."""
        values = {"status": "failed", "failed_at": now, "errors": errors}
        async with writing(self._engine) as connection:
            changed = await _change(connection, batch_id, ("validating",), values)
            if changed and webhook is not None:
                await connection.execute(insert(Webhook).values(webhook._asdict()))
        return changed

    async def answers_of(
        self, batch_id: str, is_error: bool, after: int, limit: int, most_chars: int = PAGE_CHARS
    ) -> list[AnswerRecord]:
        """What came of its lines after a certain one, in their order.

        `most_chars`: what is given at most, but for a single answer that is longer.
        """
        mine = (BatchAnswer.batch_id == batch_id) & (BatchAnswer.is_error == is_error)
        mine &= BatchAnswer.line > after
        sizes = select(BatchAnswer.line, func.length(BatchAnswer.output)).where(mine)
        rows = select(BatchAnswer).where(mine).order_by(BatchAnswer.line)
        async with reading(self._engine) as connection:
            last, chars = after, 0
            for line, size in await connection.execute(sizes.order_by(BatchAnswer.line).limit(limit)):
                chars += size
                if chars > most_chars and last != after:
                    break
                last = line
            return [
                AnswerRecord(*row) for row in await connection.execute(rows.where(BatchAnswer.line <= last))
            ]

    async def answered_lines(self, batch_id: str, first: int = 0, end: int | None = None) -> set[int]:
        """The numbers of the lines that have an answer, of all or of `[first, end)`."""
        query = select(BatchAnswer.line).where(BatchAnswer.batch_id == batch_id, BatchAnswer.line >= first)
        if end is not None:
            query = query.where(BatchAnswer.line < end)
        async with reading(self._engine) as connection:
            return set(await connection.scalars(query))

    async def end_batch(
        self,
        before: BatchRecord,
        after: BatchRecord,
        files: Sequence[FileRecord],
        webhook: WebhookRecord | None = None,
    ) -> bool:
        """Put a batch's end and its files there. Whether nobody else has ended it.

        Its answers are to be forgotten then (`forget_answers`).
        """
        async with writing(self._engine) as connection:
            # Of a batch in this state no more answers are taken: they are all that there will be.
            took = (await _sums(connection, [before.id])).get(before.id, _NOTHING).tokens
            values = after._asdict() | took._asdict()
            del values["id"]
            if not await _change(connection, before.id, (before.status,), values):
                return False
            for file in files:
                await put_file(connection, file)
            if webhook is not None:
                await connection.execute(insert_into(connection, Webhook).values(webhook._asdict()))
        return True

    async def ended_with_answers(self) -> list[str]:
        """Batches that have ended, and whose answers nobody has forgotten yet."""
        answers = exists().where(BatchAnswer.batch_id == BatchRow.id)
        async with reading(self._engine) as connection:
            ended = select(BatchRow.id).where(BatchRow.status.in_(_ENDED), answers)
            return list(await connection.scalars(ended))

    async def forget_answers(self, batch_id: str) -> bool:
        """Forget some answers of a batch that has ended: few, so that nobody waits long for the lock.

        Whether there may be more.
        """
        mine = BatchAnswer.batch_id == batch_id
        some = select(BatchAnswer.line).where(mine).order_by(BatchAnswer.line).limit(FORGOTTEN_AT_ONCE)
        is_ended = exists().where(BatchRow.id == batch_id, BatchRow.status.in_(_ENDED))
        async with writing(self._engine) as connection:
            gone = await connection.execute(
                delete(BatchAnswer).where(mine, BatchAnswer.line.in_(some), is_ended)
            )
        return gone.rowcount == FORGOTTEN_AT_ONCE


async def _find(connection: AsyncConnection, batch_id: str, token_id: str) -> BatchRecord:
    if not batch_id.isprintable():  # as in `find_file`
        raise NotFound("there is no such batch")
    query = select(BatchRow).where(BatchRow.id == batch_id, BatchRow.token_id == token_id)
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        raise NotFound(f"there is no batch {batch_id!r}")
    return BatchRecord(*found)


async def _change(
    connection: AsyncConnection, batch_id: str, before: Sequence[BatchStatus], values: dict[str, Any]
) -> bool:
    """Change a batch that is in one of these states. Whether it was."""
    this = (BatchRow.id == batch_id) & BatchRow.status.in_(before)
    return bool((await connection.execute(update(BatchRow).where(this).values(values))).rowcount)


class _Tokens(NamedTuple):
    """That answers took; None: not known. In the words of the columns."""

    prompt_tokens: int | None = 0
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Sums(NamedTuple):
    """Of a batch's answers."""

    completed: int
    failed: int
    tokens: _Tokens


_NOTHING = _Sums(0, 0, _Tokens())
_NOT_KNOWN = _Tokens(None, None, None)


async def _counted(connection: AsyncConnection, found: list[BatchRecord]) -> list[BatchRecord]:
    """With the answers that there are so far."""
    sums = await _sums(connection, [record.id for record in found if record.status in _COUNTED])
    return [
        record._replace(completed=one.completed, failed=one.failed, **one.tokens._asdict())
        if (one := sums.get(record.id))
        else record
        for record in found
    ]


async def _sums(connection: AsyncConnection, batch_ids: Sequence[str]) -> dict[str, _Sums]:
    """What each of these batches' answers come to; those without any are left out."""
    if not batch_ids:
        return {}
    failed = func.sum(case((BatchAnswer.is_error, 1), else_=0))
    query = select(
        BatchAnswer.batch_id,
        func.count(),
        failed,
        func.count(BatchAnswer.prompt_tokens),
        func.sum(BatchAnswer.prompt_tokens),
        func.sum(BatchAnswer.cached_tokens),
        func.sum(BatchAnswer.completion_tokens),
    ).group_by(BatchAnswer.batch_id)
    query = query.where(among(connection, BatchAnswer.batch_id))
    rows = await connection.execute(query, listed(connection, batch_ids))
    found: dict[str, _Sums] = {}
    for batch, every, errors, noted, prompt, cached, completion in rows:
        is_known = noted == every
        took = _Tokens(int(prompt or 0), int(cached or 0), int(completion or 0)) if is_known else _NOT_KNOWN
        found[str(batch)] = _Sums(int(every) - int(errors), int(errors), took)
    return found
