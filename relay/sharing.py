"""Look-ups that whoever asks for the same thing at the same time shares.

Sixty-four requests of one token that come together would ask the database the same question sixty-four times,
one after the other. Here those that come while one is being answered wait for the next one, which answers all
of them: so nobody is told what was so before they asked. Does not know what is looked up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedLookups(Generic[K, V]):
    """Owned by the event loop's thread. Nothing is kept of what was looked up."""

    def __init__(self, look_up: Callable[[K], Awaitable[V]]) -> None:
        self._look_up = look_up
        self._running: dict[K, asyncio.Future[V]] = {}
        self._next: dict[K, asyncio.Future[V]] = {}
        """Those that begin when the running ones are over."""

    async def find(self, key: K) -> V:
        """What `look_up` gives, or raises, when it is called from now on."""
        if key not in self._running:
            shared = self._running[key] = asyncio.ensure_future(self._begin(key))
        elif key not in self._next:
            shared = self._next[key] = asyncio.ensure_future(self._begin_after(self._running[key], key))
        else:
            shared = self._next[key]
        # Whoever goes away ends nothing that others wait for.
        return await asyncio.shield(shared)

    async def _begin(self, key: K) -> V:
        try:
            return await self._look_up(key)
        finally:
            del self._running[key]
            if key in self._next:
                self._running[key] = self._next.pop(key)

    async def _begin_after(self, running: "asyncio.Future[V]", key: K) -> V:
        await asyncio.wait([running])
        return await self._begin(key)
