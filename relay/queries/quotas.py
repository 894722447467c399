"""How much one token may keep and have waiting, looked at in the transaction that adds to it.

What tokens keep that it has made counts as its own. The token's row is locked first, so that of several
requests at once each sees what the others have added. What batches write counts, but is never refused: a
batch that has ended keeps its answers. Does not know what is added.
"""

from sqlalchemy import Select, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.records import FileRecord
from relay.tables import BatchRow, File, Token
from schema.batches import BatchStatus
from schema.errors import QuotaExceeded

LEAST_BYTES = 4096
"""That a file counts, however small it is: it has a row, and a file of its own."""
_OPEN: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")


async def require_room_for_file(connection: AsyncConnection, record: FileRecord, most_bytes: int) -> None:
    """Raises QuotaExceeded: with this file, its token's files would have more bytes."""
    owner = await _lock_owner(connection, record.token_id)
    size = case((File.bytes < LEAST_BYTES, LEAST_BYTES), else_=File.bytes)
    theirs = File.token_id.in_(_family(owner))
    kept = int(await connection.scalar(select(func.sum(size)).where(theirs)) or 0)
    if kept + max(LEAST_BYTES, record.bytes) > most_bytes:
        raise QuotaExceeded(
            f"this token's files have {kept} bytes already, and may have {most_bytes}: delete some, "
            "or ask for a higher TOKEN_FILE_BYTES"
        )


async def require_room_for_batch(connection: AsyncConnection, token_id: str, most: int) -> None:
    """Raises QuotaExceeded: so many of the token's batches have not ended yet."""
    owner = await _lock_owner(connection, token_id)
    open_ = BatchRow.token_id.in_(_family(owner)) & BatchRow.status.in_(_OPEN)
    count = int(await connection.scalar(select(func.count()).select_from(BatchRow).where(open_)) or 0)
    if count >= most:
        raise QuotaExceeded(
            f"{count} batches of this token have not ended yet: wait for one, cancel one, "
            "or ask for a higher TOKEN_BATCHES"
        )


async def _lock_owner(connection: AsyncConnection, token_id: str) -> str:
    """The token that answers for this one; its row is locked."""
    parent = await connection.scalar(select(Token.parent).where(Token.id == token_id))
    owner = parent or token_id
    await lock_token(connection, owner)
    return owner


def _family(owner: str) -> Select[str]:
    return select(Token.id).where(or_(Token.id == owner, Token.parent == owner))


async def lock_token(connection: AsyncConnection, token_id: str) -> None:
    """Nobody else who calls this for the same token goes on before this transaction's end."""
    # FOR NO KEY UPDATE: whoever only refers to the token need not wait.
    await connection.execute(select(Token.id).where(Token.id == token_id).with_for_update(key_share=True))
