"""Tokens that access tokens have used: sums by day, that all replicas add to."""

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import delete, func, select

from relay.database import reading, writing
from relay.queries.base import Queries, among, insert_into, listed
from relay.records import UsageRecord
from relay.tables import UsageRow

_KEY = ["token_id", "day", "model"]
_SUMS = ("replies", "prompt_tokens", "cached_tokens", "completion_tokens")
_FIELDS = tuple(getattr(UsageRow, name) for name in (*_KEY, *_SUMS))


class UsageQueries(Queries):
    """The table `usage`."""

    async def add_usage(self, rows: Collection[UsageRecord]) -> None:
        """Add to what is there."""
        if not rows:
            return
        async with writing(self._engine) as connection:
            put = insert_into(connection, UsageRow)
            sums = {name: getattr(UsageRow, name) + put.excluded[name] for name in _SUMS}
            added = put.on_conflict_do_update(index_elements=_KEY, set_=sums)
            await connection.execute(added, [asdict(row) for row in rows])

    async def remove_usage(self, before: float) -> bool:
        """Remove the oldest day, if it is older; whether it was. One day of all tokens takes not long."""
        oldest = select(func.min(UsageRow.day))
        async with writing(self._engine) as connection:
            day = await connection.scalar(oldest)
            if day is None or day >= before:
                return False
            await connection.execute(delete(UsageRow).where(UsageRow.day == day))
        return True

    async def usage_of(self, token_id: str, since: float) -> list[UsageRecord]:
        """What one token has used since that day, the newest first."""
        query = select(*_FIELDS).where(UsageRow.token_id == token_id, UsageRow.day >= since)
        async with reading(self._engine) as connection:
            rows = await connection.execute(query.order_by(UsageRow.day.desc(), UsageRow.model))
            return [UsageRecord(*row) for row in rows]

    async def tokens_used(self, token_ids: Collection[str], day: float) -> dict[str, int]:
        """How many tokens each of these has used on a day, prompts included."""
        used = func.sum(UsageRow.prompt_tokens + UsageRow.completion_tokens)
        query = select(UsageRow.token_id, used).where(UsageRow.day == day).group_by(UsageRow.token_id)
        async with reading(self._engine) as connection:
            query = query.where(among(connection, UsageRow.token_id))
            rows = await connection.execute(query, listed(connection, token_ids))
            return {token_id: int(count) for token_id, count in rows}
