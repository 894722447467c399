"""Files: who has which, and what is known of them. Their bytes are in the storage (relay/batches/storage.py).

Whoever asks for a file of another token's is told that there is none.
"""

from enum import Enum

from sqlalchemy import ColumnElement, delete, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import reading, writing
from relay.queries.base import Queries, insert_into
from relay.queries.keys import Repeatable, remember
from relay.queries.quotas import require_room_for_file
from relay.records import FileRecord, Page
from relay.tables import BatchRow, File
from schema.errors import Conflict, NotFound

_ENDED = ("failed", "completed", "expired", "cancelled")


class FileQueries(Queries):
    """The table `files`."""

    async def add_file(
        self,
        record: FileRecord,
        answer: bytes = b"",
        request: Repeatable | None = None,
        most_bytes: int | None = None,
    ) -> bytes | None:
        """Note a file; or, when its request came before, only say what that was answered.

        `answer`: what it is answered if it is new. `most_bytes`: of all files of its token.

        Raises:
            IdempotencyKeyReused: the request's key came with another one. QuotaExceeded: too many bytes.
        """
        async with writing(self._engine) as connection:
            if request is not None:
                earlier = await remember(connection, record.token_id, request, answer, record.created_at)
                if earlier is not None:
                    return earlier
            if most_bytes is not None:
                await require_room_for_file(connection, record, most_bytes)
            await put_file(connection, record)
        return None

    async def file(self, file_id: str, token_id: str) -> FileRecord:
        """Raises NotFound: there is none of this id, or it is another token's."""
        async with reading(self._engine) as connection:
            return await find_file(connection, file_id, token_id)

    async def files(self, token_id: str, page: Page, purpose: str | None = None) -> list[FileRecord]:
        """One page of a token's files, and one more where there are more.

        Raises:
            NotFound: there is no file to begin after.
        """
        query = select(File).where(File.token_id == token_id)
        if purpose is not None:
            query = query.where(File.purpose == purpose)
        async with reading(self._engine) as connection:
            if page.after is not None:
                last = await find_file(connection, page.after, token_id)
                query = query.where(_follows(last, page.ascending))
            order = (File.created_at, File.id)
            query = query.order_by(*(order if page.ascending else (one.desc() for one in order)))
            rows = await connection.execute(query.limit(page.limit + 1))
            return [FileRecord(*row) for row in rows]

    async def remove_file(self, file_id: str, token_id: str) -> None:
        """Forget a file.

        Raises:
            NotFound: as `file`. Conflict: a batch still reads it.
        """
        async with writing(self._engine) as connection:
            await find_file(connection, file_id, token_id, lock=Lock.WRITE)
            used = (BatchRow.input_file_id == file_id) & BatchRow.status.not_in(_ENDED)
            by = await connection.scalar(select(BatchRow.id).where(used).limit(1))
            if by is not None:
                raise Conflict(f"{by} still reads this file: cancel it first, or wait for its end")
            await connection.execute(delete(File).where(File.id == file_id))


class Lock(Enum):
    """What nobody else may do with a row until the transaction's end. SQLite has but one writer anyway."""

    READ = "change or remove it"
    WRITE = "read it under a lock"


async def find_file(
    connection: AsyncConnection, file_id: str, token_id: str | None = None, lock: Lock | None = None
) -> FileRecord:
    """As `FileQueries.file`, in a transaction; without a token, whoever has it."""
    if not file_id.isprintable():  # PostgreSQL takes no NUL, not even to look for it
        raise NotFound("there is no such file")
    whose: ColumnElement[bool] = true() if token_id is None else File.token_id == token_id
    query = select(File).where(File.id == file_id, whose)
    if lock is not None:
        query = query.with_for_update(read=lock is Lock.READ)
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        raise NotFound(f"there is no file {file_id!r}")
    return FileRecord(*found)


async def put_file(connection: AsyncConnection, record: FileRecord) -> None:
    """Note a file, in a transaction."""
    await connection.execute(insert_into(connection, File).values(record._asdict()))


def _follows(last: FileRecord, ascending: bool) -> ColumnElement[bool]:
    here, there = tuple_(File.created_at, File.id), tuple_(last.created_at, last.id)
    return here > there if ascending else here < there
