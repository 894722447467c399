"""Look-ups are shared, and never older than the question."""

import asyncio

import pytest

from relay.sharing import SharedLookups


class Slow:
    """Answers when it is told to, with how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Semaphore(0)
        self._more = asyncio.Event()

    async def look_up(self, key: str) -> int:
        self.asked.append(key)
        self._more.set()
        number = len(self.asked)
        await self.go.acquire()
        if key == "wrong":
            raise LookupError(key)
        return number

    async def begun(self, count: int) -> None:
        """Return when it was asked so often."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                self._more.clear()
                await self._more.wait()


async def test_those_that_come_meanwhile_share_the_next_one() -> None:
    slow = Slow()
    lookups = SharedLookups(slow.look_up)
    first = asyncio.create_task(lookups.find("a"))
    await slow.begun(1)
    others = [asyncio.create_task(lookups.find("a")) for _ in range(5)]
    await asyncio.sleep(0)
    slow.go.release()
    assert await first == 1
    await slow.begun(2)
    late = asyncio.create_task(lookups.find("a"))
    await asyncio.sleep(0)
    slow.go.release()
    assert await asyncio.gather(*others) == [2] * 5
    await slow.begun(3)
    slow.go.release()
    assert await late == 3


async def test_different_things_do_not_wait_for_each_other() -> None:
    slow = Slow()
    lookups = SharedLookups(slow.look_up)
    finding = [asyncio.create_task(lookups.find(key)) for key in "ab"]
    await slow.begun(2)
    slow.go.release()
    slow.go.release()
    assert sorted(await asyncio.gather(*finding)) == [1, 2]


async def test_an_error_is_told_to_all_and_to_nobody_later() -> None:
    slow = Slow()
    lookups = SharedLookups(slow.look_up)
    finding = [asyncio.create_task(lookups.find("wrong")) for _ in range(3)]
    await slow.begun(1)
    for _ in range(2):
        slow.go.release()
    found = await asyncio.gather(*finding, return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 3
    assert len(slow.asked) == 2
    again = asyncio.create_task(lookups.find("wrong"))
    slow.go.release()
    with pytest.raises(LookupError):
        await again


async def test_who_goes_away_ends_nothing_for_others() -> None:
    slow = Slow()
    lookups = SharedLookups(slow.look_up)
    first = asyncio.create_task(lookups.find("a"))
    await slow.begun(1)
    second = asyncio.create_task(lookups.find("a"))
    third = asyncio.create_task(lookups.find("a"))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    slow.go.release()
    slow.go.release()
    assert await third == 2
    assert await asyncio.gather(first, second, return_exceptions=True) != [1, 2]
