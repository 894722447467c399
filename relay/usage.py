"""How many tokens each access token's replies took, counted in memory until somebody writes it down.

    a reply ends -> counted here -> twice a minute added to SQL, by token, day and model

While the database is away what was counted waits. What was written just before the connection to the database
broke may be added twice. Owned by the event loop's thread. Does not know replies.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Protocol

from relay.records import UsageRecord
from schema.generation import Usage

DAY = 86_400.0
ANONYMOUS = "~"
"""What the name of an asker begins with that has no token."""
MAX_KEPT = 100_000
"""Sums that wait to be written; about 30 MB."""
ROWS_AT_ONCE = 500


class UsageStore(Protocol):
    """Where it is written."""

    async def add_usage(self, rows: Collection[UsageRecord]) -> None: ...
    async def usage_of(self, token_id: str, since: float) -> list[UsageRecord]: ...
    async def tokens_used(self, token_ids: Collection[str], day: float) -> dict[str, int]: ...


class UsageAccount:
    """What was counted and is not written yet."""

    def __init__(self) -> None:
        self.dropped = 0
        """Replies that there was no room for."""
        self._sums: defaultdict[str, dict[tuple[float, str], UsageRecord]] = defaultdict(dict)
        """By token, then by day and model: many wait while the database is away, of many tokens."""
        self._count = 0
        self._lock = asyncio.Lock()
        """Held while some are on their way: who reads then would miss them."""

    def count(self, asker: str, model: str, usage: Usage, now: float) -> None:
        """One more reply. `asker`: a token's id. `now`: Unix time."""
        if not asker or asker.startswith(ANONYMOUS):
            return
        cached = usage.prompt_tokens_details.cached_tokens
        self._add(
            UsageRecord(asker, day_of(now), model, 1, usage.prompt_tokens, cached, usage.completion_tokens)
        )

    async def of(self, store: UsageStore, token_id: str, since: float) -> list[UsageRecord]:
        """What one token has used since that day, the newest first; elsewhere, as far as it was written.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            found = {one.key: one for one in await store.usage_of(token_id, since)}
            for one in self._waiting(token_id):
                if one.day >= since:
                    found[one.key] = found[one.key].plus(one) if one.key in found else one
        return sorted(found.values(), key=lambda one: (-one.day, one.model))

    async def tokens_of(self, store: UsageStore, token_ids: Collection[str], day: float) -> dict[str, int]:
        """How many tokens each has used on a day, prompts included; those without any are left out.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            found = Counter(await store.tokens_used(token_ids, day))
            for one in (one for token_id in token_ids for one in self._waiting(token_id)):
                if one.day == day:
                    found[one.token_id] += one.prompt_tokens + one.completion_tokens
        return dict(found)

    async def write(self, store: UsageStore) -> None:
        """Add what waits to what is written.

        Raises:
            Unavailable: the database is away; it waits on.
        """
        async with self._lock:
            # Sorted, so that replicas that write the same rows take their locks in the same order.
            waiting = sorted(one.key for token_id in self._sums for one in self._waiting(token_id))
            for first in range(0, len(waiting), ROWS_AT_ONCE):
                rows = [self._take(*key) for key in waiting[first : first + ROWS_AT_ONCE]]
                try:
                    await store.add_usage(rows)
                except BaseException:
                    for row in rows:
                        self._add(row)
                    raise

    def _waiting(self, token_id: str) -> Iterable[UsageRecord]:
        """Of one token."""
        return self._sums[token_id].values() if token_id in self._sums else ()

    def _add(self, row: UsageRecord) -> None:
        key = row.day, row.model
        known = self._sums[row.token_id].get(key) if row.token_id in self._sums else None
        if known is not None:
            self._sums[row.token_id][key] = known.plus(row)
        elif self._count >= MAX_KEPT:
            self.dropped += row.replies
        else:
            self._sums[row.token_id][key] = row
            self._count += 1

    def _take(self, token_id: str, day: float, model: str) -> UsageRecord:
        """It waits no more."""
        row = self._sums[token_id].pop((day, model))
        self._count -= 1
        if not self._sums[token_id]:
            del self._sums[token_id]
        return row


def day_of(now: float) -> float:
    """The beginning of the UTC day. Unix time."""
    return now // DAY * DAY
