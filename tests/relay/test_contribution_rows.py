"""relay/queries/contributions.py: sums by day, that several replicas add to, on both databases."""

import asyncio

from relay.records import Contribution, Leader
from relay.store import Store
from schema.ids import PeerId

DAY = 86_400.0
A, B, C = PeerId("a" * 16), PeerId("b" * 16), PeerId("c" * 16)


def done(
    peer: PeerId, day: int, blocks_steps: int = 0, replies: int = 0, hours: int = 1, name: str = "x"
) -> Contribution:
    return Contribution(peer, day * DAY, name, blocks_steps, replies, hours)


async def test_days_are_added_up_and_hours_count_once(store: Store) -> None:
    await store.add_contributions([])
    await store.add_contributions([done(A, 1, 10, 1, 0b11, "old"), done(A, 2, 5, hours=1 << 23, name="new")])
    await store.add_contributions([done(A, 1, 2**40, 0, 0b110, ""), done(A, 2, name="")])
    assert await store.contribution_of(A, DAY) == Leader(A, "new", 2**40 + 15, 1, 3 + 2)
    assert await store.contribution_of(A, 2 * DAY) == Leader(A, "new", 5, 0, 2)
    assert await store.contribution_of(B, 0.0) is None


async def test_those_who_have_done_most_come_first_and_replies_decide_between_equals(store: Store) -> None:
    await store.add_contributions(
        [done(A, 1, 10), done(A, 2, 10), done(B, 2, 15, 1), done(C, 2, 15, 2), done(C, 1, name="")]
    )
    assert [one.peer for one in await store.leaders(DAY, 10)] == [A, C, B]
    assert [one.peer for one in await store.leaders(2 * DAY, 2)] == [C, B]
    assert await store.leaders(3 * DAY, 10) == []


async def test_replicas_that_add_at_once_lose_nothing(store: Store) -> None:
    peers = [PeerId(f"{number:016x}") for number in range(20)]
    await asyncio.gather(*(store.add_contributions([done(one, 1, 1) for one in peers]) for _ in range(8)))
    assert {one.blocks_steps for one in await store.leaders(0.0, 100)} == {8}


async def test_old_days_are_removed(store: Store) -> None:
    await store.add_contributions([done(A, 1), done(A, 2)])
    assert await store.remove_contributions(2 * DAY) == 1
    found = await store.contribution_of(A, 0.0)
    assert found is not None
    assert found.hours == 1
