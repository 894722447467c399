"""Tells the volunteer's owner, now and then, how many steps were not computed, by reason.

Each was refused by name to whoever drives it, where the owner does not see it. Reads counters that only go
up. Does not know steps, queues or the relay.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

TELL_SECONDS = 60.0

log = logging.getLogger(__name__)


class Refusals:
    """What has been told of the counters so far."""

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        """`count`: the steps not computed since the start, by reason (`DeviceStats.failures`)."""
        self._count = count
        self._told = Counter[str]()

    def tell(self) -> None:
        """Log what has been counted since the last call; nothing where that is nothing."""
        counted = Counter(self._count())
        new = counted - self._told
        self._told = counted
        if new:
            log.info(
                "not computed: %s", ", ".join(f"{reason} {count}" for reason, count in new.most_common())
            )


@asynccontextmanager
async def telling(refusals: Refusals) -> AsyncGenerator[None]:
    """Tells every minute inside of the `with` block, and of the rest at its end."""

    async def tell_again_and_again() -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            refusals.tell()

    task = asyncio.create_task(tell_again_and_again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        refusals.tell()
