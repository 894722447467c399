"""Requests that may come again: what they were answered, under the key that their sender has given them.

Does not know what was made. Called within the transaction that makes it, so that both are there or neither.
"""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import writing
from relay.queries.base import Queries, insert_into
from relay.tables import IdempotencyKey
from schema.errors import IdempotencyKeyReused

KEEP_SECONDS = 24 * 3600.0
"""How long a key stands for its request."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with a key. `fingerprint`: SHA-256 of all that it asks for, hex."""

    key: str
    fingerprint: str


class KeyQueries(Queries):
    """The table `idempotency_keys`."""

    async def remove_old_keys(self, now: float) -> int:
        """Forget the keys whose time is over. How many there were."""
        old = IdempotencyKey.created_at < now - KEEP_SECONDS
        async with writing(self._engine) as connection:
            return (await connection.execute(delete(IdempotencyKey).where(old))).rowcount


async def remember(
    connection: AsyncConnection, token_id: str, request: Repeatable, answer: bytes, now: float
) -> bytes | None:
    """Note what a request is answered; None when it is new, else what it was answered before.

    Of two at the same time the later one waits here for the other's transaction.

    Raises:
        IdempotencyKeyReused: the key came with another request.
    """
    mine = (IdempotencyKey.token_id == token_id) & (IdempotencyKey.key == request.key)
    await connection.execute(
        delete(IdempotencyKey).where(mine, IdempotencyKey.created_at < now - KEEP_SECONDS)
    )
    put = insert_into(connection, IdempotencyKey).values(
        token_id=token_id,
        key=request.key,
        fingerprint=request.fingerprint,
        answer=answer.decode(),
        created_at=now,
    )
    if (await connection.execute(put.on_conflict_do_nothing())).rowcount:
        return None
    found = await connection.execute(select(IdempotencyKey.fingerprint, IdempotencyKey.answer).where(mine))
    fingerprint, earlier = found.one()
    if fingerprint != request.fingerprint:
        raise IdempotencyKeyReused(
            f"the Idempotency-Key {request.key!r} came with another request before: take a new key"
        )
    return earlier.encode()
