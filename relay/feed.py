"""What changes in the swarm, told to any number of readers: who joined, left, serves, holds other blocks.

    the swarm's bell -> two pictures compared, once for all readers -> each reader's bounded queue

A reader that is too slow misses events and is told so; nobody waits for it. While there is no reader nothing
is compared. Owned by the event loop's thread. Does not know HTTP.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from relay.swarm import Swarm
from schema.errors import TooManyRequests, Unavailable
from schema.overview import SwarmEvent
from schema.swarm import SwarmStatus, VolunteerStatus

MOST_WAITING = 256
"""Events of one reader: somewhat more than a hundred kilobytes."""
MOST_READERS = 1000
MOST_READERS_OF_ONE = 16
"""Of one token."""
RETRY_SECONDS = 30.0
"""When asking again makes sense where there are that many."""
PACE_SECONDS = 0.25
"""Between two pictures, however much changes."""
PROGRESS_STEPS = 20
"""News of one volunteer while it loads: many may load at once."""
PACED_VOLUNTEERS = 250
"""Of more volunteers there are fewer pictures: those of thousands take milliseconds to compare."""


class Reader:
    """What waits for one reader. It belongs to the task that reads; the feed puts in."""

    def __init__(self) -> None:
        self._waiting: deque[SwarmEvent] = deque()
        self._missed = 0
        self._bell = asyncio.Event()

    def put(self, events: Iterable[SwarmEvent]) -> None:
        for event in events:
            if self._missed or len(self._waiting) >= MOST_WAITING:
                self._missed += 1
            else:
                self._waiting.append(event)
        self._bell.set()

    async def take(self) -> list[SwarmEvent]:
        """All that waits, as soon as there is something. What comes after `missed` is new again."""
        await self._bell.wait()
        self._bell.clear()
        events = list(self._waiting)
        self._waiting.clear()
        if self._missed:
            events.append(SwarmEvent(type="missed", missed=self._missed))
            self._missed = 0
        return events


class Feed:
    """The readers of one replica."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._readers: set[Reader] = set()
        self._askers: Counter[str] = Counter()
        self._somebody = asyncio.Event()
        """Whether there is a reader."""

    def __len__(self) -> int:
        return len(self._readers)

    @contextmanager
    def reader(self, asker: str | None = None) -> Generator[Reader]:
        """One more reader, which is told the whole swarm first. An event may tell what was in that already.

        `asker`: the token's id; None where nobody signs in.

        Raises:
            Unavailable: there are too many. TooManyRequests: this token has too many.
        """
        if asker is not None and self._askers[asker] >= MOST_READERS_OF_ONE:
            many = f"this token reads the swarm's events {MOST_READERS_OF_ONE} times already: end one of them"
            raise TooManyRequests(many, retry_after=RETRY_SECONDS)
        if len(self._readers) >= MOST_READERS:
            raise Unavailable("too many read the swarm's events here: try again", retry_after=RETRY_SECONDS)
        reader = Reader()
        reader.put([SwarmEvent(type="swarm", swarm=self._swarm.status())])
        self._readers.add(reader)
        self._askers.update([asker] if asker is not None else [])
        self._somebody.set()
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self._leave(asker)
            if not self._readers:
                self._somebody.clear()

    def _leave(self, asker: str | None) -> None:
        if asker is None:
            return
        self._askers[asker] -= 1
        if not self._askers[asker]:
            del self._askers[asker]

    async def run(self) -> None:
        """Tell the readers of every change, until cancelled."""
        while True:
            await self._somebody.wait()
            seen, before = self._swarm.version, self._swarm.status()
            while self._readers:
                await self._swarm.wait_for_change(seen)
                await asyncio.sleep(PACE_SECONDS * max(1.0, len(self._swarm) / PACED_VOLUNTEERS))
                seen, now = self._swarm.version, self._swarm.status()
                events = changes(before, now)
                for reader in self._readers if events else ():
                    reader.put(events)
                before = now


def changes(before: SwarmStatus, now: SwarmStatus) -> list[SwarmEvent]:
    """What is to be told of two pictures: who is where, does what, and how far it is; not figures of load."""
    earlier = {one.id: one for one in before.volunteers}
    there = {one.id for one in now.volunteers}
    events = [SwarmEvent(type="left", volunteer=one) for one in before.volunteers if one.id not in there]
    for one in now.volunteers:
        events += _changes_of(earlier.get(one.id), one)
    models = {one.id: one for one in before.models}
    events += [SwarmEvent(type="model", model=one) for one in now.models if models.get(one.id) != one]
    return events


def _changes_of(before: VolunteerStatus | None, now: VolunteerStatus) -> list[SwarmEvent]:
    if before is None:
        return [SwarmEvent(type="joined", volunteer=now)]
    events: list[SwarmEvent] = []
    if (before.model, before.start, before.end, before.head) != (now.model, now.start, now.end, now.head):
        events.append(SwarmEvent(type="moved", volunteer=now))
    if before.state != now.state:
        events.append(SwarmEvent(type="serving" if now.state == "serving" else "state", volunteer=now))
    elif not events and _progress(before) != _progress(now):
        events.append(SwarmEvent(type="progress", volunteer=now))
    return events


def _progress(one: VolunteerStatus) -> int:
    """How far it is with what it does, in steps."""
    return PROGRESS_STEPS * one.done // one.total if one.total else 0
