"""Waiting for what should happen; nothing in these tests sleeps to let things happen."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds after which what a test waits for will not come; far longer than anything takes."""


async def eventually(condition: Callable[[], T]) -> T:
    """What `condition` gives as soon as that is true."""
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {DEADLINE:g} s")
        await asyncio.sleep(0.002)
    return result
