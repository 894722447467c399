"""relay/queries/usage.py: sums that several replicas add to."""

import asyncio

from relay.records import UsageRecord
from relay.store import Store

DAY = 86_400.0


def row(token: str, day: int, replies: int = 1) -> UsageRecord:
    return UsageRecord(token, day * DAY, "model", replies, 10 * replies, replies, 3_000_000_000 * replies)


async def test_rows_are_added_to_what_is_there(store: Store) -> None:
    await store.add_usage([])
    await store.add_usage([row("a", 1), row("b", 1)])
    await store.add_usage([row("a", 1, 2), row("a", 2)])
    assert await store.usage_of("a", 0.0) == [row("a", 2), row("a", 1, 3)]
    assert await store.usage_of("a", 2 * DAY) == [row("a", 2)]
    assert await store.usage_of("nobody", 0.0) == []


async def test_replicas_that_add_at_once_lose_nothing(store: Store) -> None:
    tokens = [f"t{number}" for number in range(20)]
    await asyncio.gather(*(store.add_usage([row(token, 1) for token in tokens]) for _ in range(8)))
    assert [await store.usage_of(token, 0.0) for token in tokens] == [[row(token, 1, 8)] for token in tokens]


async def test_usage_of_long_ago_is_removed_day_by_day(store: Store) -> None:
    assert not await store.remove_usage(9 * DAY), "there is nothing"
    await store.add_usage([row(token, day) for token in ("a", "b") for day in (1, 2, 3)])
    assert await store.remove_usage(3 * DAY)
    assert await store.usage_of("a", 0.0) == [row("a", 3), row("a", 2)]
    assert await store.remove_usage(3 * DAY)
    assert not await store.remove_usage(3 * DAY)
    assert await store.usage_of("a", 0.0) == [row("a", 3)]
    assert await store.usage_of("b", 0.0) == [row("b", 3)]
