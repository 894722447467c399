"""The volunteers that have done most for others, added up now and then and kept.

    somebody asks for so many days ─> the first time added up, and kept
    twice a minute ─────────────────> added up anew, as long as somebody has asked lately

So nobody waits for a sum over the days of ten thousand volunteers but who asks first. Owned by the event
loop's thread. Does not know scores, nor what anything is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.records import Leader
from relay.sharing import SharedLookups
from relay.usage import DAY, day_of

MOST_LEADERS = 100
FORGET_SECONDS = 600.0
"""After which what nobody has asked for is not added up any more."""


class LeaderStore(Protocol):
    """Where it is written what they have done."""

    async def leaders(self, since: float, most: int) -> list[Leader]: ...


@dataclass(slots=True)
class Board:
    """The leaders of some days."""

    leaders: Sequence[Leader]
    version: int
    """Another one each time that any board is added up and differs."""
    asked: float
    """When somebody has asked for it last."""


class Leaderboard:
    """The boards that are asked for, one for each number of days."""

    def __init__(self, store: LeaderStore) -> None:
        self._store = store
        self._boards: dict[int, Board] = {}
        self._version = 0
        self._adding = SharedLookups(self._add_up)
        """Who asks first waits together: one after the other, each would wait for a database that is away."""

    async def of(self, days: int, now: float) -> Board:
        """The board of so many days, today included. `now`: Unix time.

        Raises:
            Unavailable: it was not added up yet, and the database is away.
        """
        board = self._boards.get(days) or await self._adding.find((days, day_of(now)))
        board.asked = now
        return board

    async def refresh(self, now: float) -> None:
        """Add up anew what somebody has asked for lately; forget the rest. Raises Unavailable as `of`."""
        for days, board in list(self._boards.items()):
            if now - board.asked > FORGET_SECONDS:
                del self._boards[days]
                continue
            await self._adding.find((days, day_of(now)))

    async def _add_up(self, which: tuple[int, float]) -> Board:
        """Of so many days, the last of which begins then."""
        days, today = which
        leaders = await self._store.leaders(today - (days - 1) * DAY, MOST_LEADERS)
        known = self._boards.get(days)
        if known is not None and known.leaders == leaders:
            return known
        self._version += 1
        board = self._boards[days] = Board(leaders, self._version, today if known is None else known.asked)
        return board
