"""What volunteers have done for others, on its way to SQL: by volunteer and day.

    steps and replies pass ─> relay/outcomes.py ─> twice a minute added here, and to SQL

While the database is away it waits. What was written just before the connection to the database broke may be
added twice. Owned by the event loop's thread. Does not know what it is worth.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from relay.outcomes import Outcomes
from relay.records import Contribution, Leader
from relay.reputation import HOUR
from relay.swarm import Swarm
from relay.usage import DAY, day_of
from schema.history import MOST_DAYS
from schema.ids import PeerId

ROWS_AT_ONCE = 200
MAX_KEPT = 50_000
"""Sums that wait to be written, while the database is away: some of 10 MB."""


class ContributionStore(Protocol):
    """Where it is written."""

    async def add_contributions(self, rows: Collection[Contribution]) -> None: ...
    async def contribution_of(self, peer: PeerId, since: float) -> Leader | None: ...


class Contributions:
    """What was done and is not written yet."""

    def __init__(self, store: ContributionStore, outcomes: Outcomes, swarm: Swarm) -> None:
        self._store = store
        self._outcomes = outcomes
        self._swarm = swarm
        self.dropped = 0
        """Sums that there was no room for."""
        self._sums: dict[tuple[PeerId, float], Contribution] = {}
        self._lock = asyncio.Lock()
        """Held while some are on their way."""

    async def of(self, peer: PeerId, now: float) -> Leader | None:
        """What a volunteer has done in `MOST_DAYS` days, as far as it was written; None: nothing.

        Raises:
            Unavailable: the database is away.
        """
        return await self._store.contribution_of(peer, day_of(now) - (MOST_DAYS - 1) * DAY)

    async def write(self) -> None:
        """Add what was collected to what is written.

        Raises:
            Unavailable: the database is away; it waits on.
        """
        async with self._lock:
            self._collect()
            # Sorted, so that replicas that write the same rows take their locks in the same order.
            waiting = sorted(self._sums)
            for first in range(0, len(waiting), ROWS_AT_ONCE):
                rows = [self._sums.pop(key) for key in waiting[first : first + ROWS_AT_ONCE]]
                await self._write_some(rows)

    async def _write_some(self, rows: Sequence[Contribution]) -> None:
        try:
            await self._store.add_contributions(rows)
        except BaseException:
            for row in rows:
                self._add(row)
            raise

    def _collect(self) -> None:
        for (peer, hour), done in self._outcomes.take_done().items():
            volunteer = self._swarm.get(peer)
            day = day_of(hour)
            self._add(
                Contribution(
                    peer=peer,
                    day=day,
                    name=volunteer.peer.name if volunteer else "",
                    blocks_steps=done.blocks_steps,
                    replies=done.replies,
                    hours=1 << int((hour - day) // HOUR),
                )
            )

    def _add(self, more: Contribution) -> None:
        key = more.peer, more.day
        known = self._sums.get(key)
        if known is not None:
            more = Contribution(
                *key,
                more.name or known.name,
                known.blocks_steps + more.blocks_steps,
                known.replies + more.replies,
                known.hours | more.hours,
            )
        elif len(self._sums) >= MAX_KEPT:
            self.dropped += 1  # the database has been away for long
            return
        self._sums[key] = more
