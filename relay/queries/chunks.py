"""Chunks of batches: who works on which, and what came of their lines.

A chunk is worked on under a lease. Its holder renews it; when the holder dies, somebody else takes the chunk
over and answers the lines that have no answer yet. A line may so be computed twice. It is recorded once: the
first answer stays, and none is taken after its batch has left `in_progress`.
Does not know how lines are answered.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, distinct, exists, func, select, update

from relay.database import reading, writing
from relay.queries.base import Queries, among, insert_into, listed
from relay.records import AnswerRecord, ChunkKey, ChunkRecord, HeldChunk
from relay.tables import BatchAnswer, BatchChunk, BatchRow

_FREE: dict[str, Any] = {"holder": None, "leased_until": 0.0, "running": 0}


class ChunkQueries(Queries):
    """The tables `batch_chunks` and `batch_answers`."""

    async def take_chunk(
        self, holder: str, now: float, until: float, without: Collection[str] = ()
    ) -> HeldChunk | None:
        """A chunk that nobody works on, for this holder until then; None: there is none.

        The first chunks of all batches go before the second ones: no small batch waits for a large one.
        `without`: batches that are not to be looked at.
        """
        while True:
            found = await self._free_chunk(now, without)
            if found is None:
                return None
            batch_id, number = found.key
            this = (BatchChunk.batch_id == batch_id) & (BatchChunk.number == number)
            is_open = exists().where(BatchRow.id == batch_id, BatchRow.status == "in_progress")
            change = update(BatchChunk).where(this, BatchChunk.leased_until < now, is_open)
            mine = {"holder": holder, "leased_until": until, "running": 0}
            async with writing(self._engine) as connection:
                if (await connection.execute(change.values(mine))).rowcount:
                    return found
            # Somebody else was faster, and has it by now.

    async def _free_chunk(self, now: float, without: Collection[str]) -> HeldChunk | None:
        """What `take_chunk` may take. It is looked for often, mostly in vain: no lock is taken for that."""
        free = (
            select(BatchChunk.number)
            .where(BatchChunk.batch_id == BatchRow.id, BatchChunk.leased_until < now)
            .order_by(BatchChunk.number)
            .limit(1)
            .scalar_subquery()
        )
        # Of each batch only its first free chunk is looked at, and of those in `without` none.
        first = select(BatchRow.id, free.label("number")).where(BatchRow.status == "in_progress")
        async with reading(self._engine) as connection:
            if without:
                first = first.where(~among(connection, BatchRow.id))
            firsts = first.subquery()
            query = (
                select(
                    BatchChunk.batch_id,
                    BatchRow.token_id,
                    BatchRow.endpoint,
                    BatchRow.input_file_id,
                    BatchChunk.number,
                    BatchChunk.first_line,
                    BatchChunk.lines,
                    BatchChunk.offset,
                    BatchChunk.size,
                )
                .join(BatchRow, BatchRow.id == BatchChunk.batch_id)
                .join(firsts, (firsts.c.id == BatchChunk.batch_id) & (firsts.c.number == BatchChunk.number))
                .order_by(BatchChunk.number, BatchChunk.batch_id)
                .limit(1)
            )
            rows = await connection.execute(query, listed(connection, without) if without else {})
            found = rows.one_or_none()
            return None if found is None else HeldChunk(*found[:4], ChunkRecord(*found[4:]))

    async def renew_chunks(self, holder: str, running: Mapping[ChunkKey, int], until: float) -> set[ChunkKey]:
        """Keep chunks until then. Those that are this holder's still; the others are nothing to it any more.

        `running`: the chunks, and how many of their lines are under way.
        """
        if not running:
            return set()
        change = (
            update(BatchChunk)
            .where(
                BatchChunk.holder == holder,
                BatchChunk.batch_id == bindparam("of"),
                BatchChunk.number == bindparam("at"),
            )
            .values(leased_until=until, running=bindparam("under_way"))
        )
        rows = [{"of": batch, "at": number, "under_way": lines} for (batch, number), lines in running.items()]
        held = select(BatchChunk.batch_id, BatchChunk.number).where(BatchChunk.holder == holder)
        async with writing(self._engine) as connection:
            await connection.execute(change, rows)
            return {(batch, number) for batch, number in await connection.execute(held)} & running.keys()

    async def others_at_work(self, holder: str, now: float) -> int:
        """How many others work on chunks."""
        query = select(func.count(distinct(BatchChunk.holder))).where(
            BatchChunk.leased_until >= now, BatchChunk.holder != holder
        )
        async with reading(self._engine) as connection:
            return int(await connection.scalar(query) or 0)

    async def record_answers(self, answers: Sequence[AnswerRecord]) -> None:
        """Write down what came of lines: of each line what came first.

        Those of batches that are not in progress any more are dropped.
        """
        of = {answer.batch_id for answer in answers}
        query = select(BatchRow.id).where(BatchRow.status == "in_progress")
        async with writing(self._engine) as connection:
            # Locked for reading, so that no batch ends between this look and the writing.
            query = query.where(among(connection, BatchRow.id)).with_for_update(read=True)
            open_ones = set(await connection.scalars(query, listed(connection, of)))
            # In one order everywhere, so that two that write the same lines do not wait for each other.
            in_order = sorted(answers, key=lambda answer: (answer.batch_id, answer.line))
            rows = [answer._asdict() for answer in in_order if answer.batch_id in open_ones]
            if rows:
                put = insert_into(connection, BatchAnswer).on_conflict_do_nothing()
                await connection.execute(put, rows)

    async def finish_chunk(self, holder: str, key: ChunkKey, now: float) -> bool:
        """A chunk's lines are all recorded: forget it. Whether it was the last one, and its batch goes on."""
        batch_id, number = key
        this = (BatchChunk.batch_id == batch_id) & (BatchChunk.number == number)
        async with writing(self._engine) as connection:
            # The batch is locked first: of two that finish its last chunks at once, one must see both gone.
            lock = select(BatchRow.id).where(BatchRow.id == batch_id).with_for_update()
            await connection.execute(lock)
            await connection.execute(delete(BatchChunk).where(this, BatchChunk.holder == holder))
            more = exists(select(BatchChunk.number).where(BatchChunk.batch_id == batch_id))
            ended = (BatchRow.id == batch_id) & (BatchRow.status == "in_progress") & ~more
            values = {"status": "finalizing", "finalizing_at": now, "leased_until": 0.0}
            return bool((await connection.execute(update(BatchRow).where(ended).values(values))).rowcount)

    async def release_chunks(self, holder: str, key: ChunkKey | None = None) -> None:
        """Let others work on a chunk, or on all that this holder has."""
        mine = BatchChunk.holder == holder
        if key is not None:
            mine &= (BatchChunk.batch_id == key[0]) & (BatchChunk.number == key[1])
        async with writing(self._engine) as connection:
            await connection.execute(update(BatchChunk).where(mine).values(_FREE))
