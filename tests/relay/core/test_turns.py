"""relay/turns.py: whoever works through thousands of things lets the others have their turns."""

import asyncio
from itertools import count

from relay.turns import TURN_SECONDS, in_turns
from tests.relay.core.waiting import DEADLINE

ITEMS = list(range(100))


async def turns_of_others(done: asyncio.Event) -> int:
    """How many somebody else had until then."""
    turns = 0
    while not done.is_set():
        await asyncio.sleep(0)
        turns += 1
    return turns


async def worked_through(seconds_each: float) -> int:
    """The turns of somebody else while all items are worked through, each of them for so long."""
    done = asyncio.Event()
    other = asyncio.create_task(turns_of_others(done))
    clock = count(step=seconds_each)
    assert [item async for item in in_turns(ITEMS, lambda: next(clock))] == ITEMS
    done.set()
    return await asyncio.wait_for(other, DEADLINE)


async def test_others_have_their_turn_whenever_one_is_over() -> None:
    # One look at the clock for each item, and one more when a turn begins.
    assert len(ITEMS) // 11 <= await worked_through(TURN_SECONDS / 9.5) <= len(ITEMS) // 9


async def test_what_takes_no_time_is_done_in_one_turn() -> None:
    assert await worked_through(0.0) <= 1


async def test_nothing_is_over_at_once() -> None:
    assert [item async for item in in_turns([])] == []
