"""Volunteers' scores on this replica: loaded at a join, added to as things happen, written now and then.

    counted in memory (relay/outcomes.py) -> twice a minute: evidence in SQL, new scores in the swarm

Whoever comes back is what it was: a join reads all evidence, what waits to be written included. What other
replicas have seen meanwhile is read again every RELOAD_SECONDS. When the database is away the scores go on
with what is seen here, and it is written later. Evidence that was written just before the connection to the
database broke may be written twice; that costs a volunteer at most one sample of each kind.
Owned by the event loop's thread. Does not know what evidence weighs: that is relay/reputation.py.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay.outcomes import Outcomes
from relay.records import Evidence
from relay.reputation import HOUR, Standing
from relay.store import Store
from relay.swarm import Swarm, Volunteer
from relay.turns import in_turns
from schema.ids import PeerId

_T = TypeVar("_T")

KEEP_SECONDS = 14 * 24 * HOUR
"""How long evidence is kept. After 14 half-lives a bad sample counts less than a ten-thousandth."""
RECENT_SECONDS = 60.0
"""After a join, evidence is read once more: another replica may have written of it what it saw before."""
RELOAD_SECONDS = 1800.0
RELOADED = 200
"""Volunteers whose evidence is read again in one pass."""
ROWS_AT_ONCE = 50
"""Evidence in one statement: half a millisecond."""
PAUSE_SECONDS = 0.02
"""Between two statements: of thousands, all at once, every frame of a second would notice."""
FADE_SECONDS = 300.0
"""After which a score is computed anew though nothing was seen: it has changed by a thousandth at most."""
SHOWN_CHANGE = 5e-4
"""Of a score: less than that changes no route."""


@dataclass(slots=True)
class _Known:
    standing: Standing
    due: float
    """When its evidence is to be read again."""
    rated: float = -math.inf
    """When its score was computed from this standing; never, if it is new."""


class Standings:
    """The standing of each volunteer of this replica."""

    def __init__(self, store: Store, outcomes: Outcomes, swarm: Swarm) -> None:
        self._store = store
        self._outcomes = outcomes
        self._swarm = swarm
        self._known: dict[PeerId, _Known] = {}
        self._lock = asyncio.Lock()
        """Held while some is on its way from what waits to what is written: who reads then would miss it."""

    async def load(self, peer: PeerId, now: float) -> float:
        """The score of a volunteer that joins.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            await self._collect(now)
            await self._read([peer], now, due=now + RECENT_SECONDS)
        return self._known[peer].standing.score(now)

    async def follow(self, peers: Collection[PeerId], now: float) -> None:
        """Keep the standings of volunteers that have come from another replica; they have a score from there.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            await self._collect(now)
            for some in _batches(list(peers), ROWS_AT_ONCE):
                await self._read(some, now, due=now + RECENT_SECONDS)

    async def evidence(self, peer: PeerId, now: float) -> list[Evidence]:
        """All that is kept about a volunteer and all that this replica has seen of it, by kind and hour.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            await self._collect(now)
            written = await self._store.evidence_of([peer], now - KEEP_SECONDS)
            return written + self._outcomes.unwritten_of([peer])

    async def write(self, now: float) -> None:
        """Write down what was seen, and give the swarm's volunteers their present scores.

        Raises:
            Unavailable: the database is away; the scores are new all the same, and the evidence waits.
        """
        async with self._lock:
            await self._collect(now)
            await self._rate(now)
        for number in range(math.ceil(self._outcomes.waiting / ROWS_AT_ONCE)):
            if number:
                await asyncio.sleep(PAUSE_SECONDS)
            async with self._lock:
                rows = self._outcomes.unwritten(ROWS_AT_ONCE)
                await self._store.append_evidence(rows)
                self._outcomes.written(rows)

    async def reload(self, now: float) -> None:
        """Read the evidence of some volunteers again, those first that were not for the longest time.

        Raises:
            Unavailable: the database is away.
        """
        async with self._lock:
            await self._collect(now)
            due = [(one.due, peer) for peer, one in self._known.items() if one.due <= now]
            peers = [peer for _, peer in sorted(due)[:RELOADED]]
            if peers:
                await self._read(peers, now, due=now + RELOAD_SECONDS)

    async def _collect(self, now: float) -> None:
        async for one in in_turns(self._outcomes.collect(now)):
            known = self._known.get(one.peer)
            if known is not None:
                known.standing, known.rated = known.standing.plus(one), -math.inf

    async def _read(self, peers: Collection[PeerId], now: float, due: float) -> None:
        found: dict[PeerId, list[Evidence]] = {peer: [] for peer in peers}
        written = await self._store.evidence_of(peers, now - KEEP_SECONDS)
        for one in [*written, *self._outcomes.unwritten_of(peers)]:
            found[one.peer].append(one)
        for peer, evidence in found.items():
            self._known[peer] = _Known(Standing.of(evidence), due)

    async def _rate(self, now: float) -> None:
        """Give volunteers their scores; forget those who have left."""
        async for peer in in_turns(list(self._known)):
            known, volunteer = self._known[peer], self._swarm.get_here(peer)
            if volunteer is None:
                if known.due <= now:  # not before: it may be about to join
                    del self._known[peer]
            elif now - known.rated >= FADE_SECONDS:
                known.rated = now
                self._give(volunteer, known.standing.score(now))

    def _give(self, volunteer: Volunteer, score: float) -> None:
        if abs(score - volunteer.score) >= SHOWN_CHANGE:
            volunteer.score = score
            self._swarm.refresh(volunteer)


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
