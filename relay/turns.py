"""Work on thousands of things, in turns so short that no frame notices.

What takes a microsecond for each of ten thousand peers is a hundredth of a second in which no frame goes on.
Whoever has that much to do here gives everybody else a turn after `TURN_SECONDS`. Does not know what is done.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

TURN_SECONDS = 0.2e-3
"""That the event loop's thread works on one job before it looks after all others."""

T = TypeVar("T")


class Turn:
    """The turn of a job whose items come by themselves."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._end = clock() + TURN_SECONDS

    async def go_on(self) -> None:
        """At once, or after everybody else's turn if this one is over."""
        if self._clock() >= self._end:
            await asyncio.sleep(0)
            self._end = self._clock() + TURN_SECONDS


async def in_turns(items: Iterable[T], clock: Callable[[], float] = time.perf_counter) -> AsyncIterator[T]:
    """The items, with a turn of the event loop whenever `TURN_SECONDS` have gone into them.

    What they are taken from may not change meanwhile: give a copy of what others write.
    """
    turn = Turn(clock)
    for item in items:
        yield item
        await turn.go_on()
