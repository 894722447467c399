"""What this replica has seen in the last day: minutes of replies, and what happened with volunteers.

    a reply ends ─────────────────> counted in the minute that is
    every few seconds, a look ────> the swarm compared with what it was: joined, left, lost, moved
    a head goes on with a broken reply, over another route or in place of another head
                                  ─> repaired, told with the next look

In memory only, and bounded: a day of minutes, and `MOST_EVENTS`. A replica that starts begins with nothing. A
volunteer that comes and goes between two looks has not been here. Owned by the event loop's thread.
Does not know HTTP, and asks no clock.
"""

import math
from collections import Counter, deque
from collections.abc import Reversible
from itertools import takewhile
from typing import NamedTuple, Protocol, TypeVar

from msgspec import UNSET

from relay.minutes import MINUTE, Tally, minute_of, minutes_between
from relay.placement import Placement
from relay.swarm import Swarm, Volunteer
from relay.turns import in_turns
from schema.history import MOST_MINUTES, History, HistoryEvent, HistoryEventType, HistoryMinute
from schema.ids import PeerId

MOST_EVENTS = 1000
"""That are kept; about 200 kB."""
LOOKED_AT_A_SECOND = 1000
"""Volunteers: of more than two thousand there are fewer looks."""


class _Seen(NamedTuple):
    """A volunteer at the last look."""

    name: str
    place: Placement


class HistoryOfSwarm:
    """Minutes and events of one replica."""

    def __init__(self, swarm: Swarm, now: float) -> None:
        """`now`: Unix time, as everywhere here."""
        self._swarm = swarm
        self._present = Tally(minute_of(now))
        self._past: deque[HistoryMinute] = deque(maxlen=MOST_MINUTES - 1)
        self._events: deque[HistoryEvent] = deque(maxlen=MOST_EVENTS)
        self._volunteers: dict[PeerId, _Seen] | None = None
        """None before the first look: whoever is there then has not just come."""
        self._looked_at = -1
        """The swarm's version at the last look."""
        self._compared = -math.inf
        self._have_said_so: set[PeerId] = set()
        """Those that have left since the last look, and had said that they would."""
        self._repairs: Counter[PeerId] = Counter()
        """Since the last look, by the head."""
        self._serving = 0
        self.version = 0
        """Counts the changes."""
        swarm.watch_departures(self._departed)

    # ---- what happens ----

    def finished(self, tokens: int, first_token: float, total: float, now: float) -> None:
        """A reply has ended well. Seconds since its request; `tokens`: that it has."""
        self._changed(now).finished(tokens, first_token, total)

    def stopped(self, tokens: int, now: float) -> None:
        """Nobody waited for the end of a reply that had these tokens by then."""
        self._changed(now).tokens += tokens

    def failed(self, now: float) -> None:
        """A reply could not be finished."""
        self._changed(now).failed += 1

    def repaired(self, head: PeerId) -> None:
        """A head goes on with a reply that had broken."""
        self._repairs[head] += 1

    async def look(self, now: float) -> None:
        """See what has changed about volunteers, with pauses for whoever else wants to work."""
        self._turn_to(now)
        version, pause = self._swarm.version, len(self._swarm) / LOOKED_AT_A_SECOND
        if version != self._looked_at and not 0 <= now - self._compared < pause:
            self._looked_at, self._compared = version, now
            self._show_serving(self._swarm.serving_count())
            await self._compare(now)
        repairs, self._repairs = self._repairs, Counter()
        known = self._volunteers or {}
        for peer, count in repairs.items():
            if peer in known:
                self._tell("repaired", peer, known[peer], now, count)

    async def _compare(self, now: float) -> None:
        before, there = self._volunteers, dict[PeerId, _Seen]()
        have_said_so, self._have_said_so = self._have_said_so, set()
        async for one in in_turns(self._swarm.volunteers()):
            peer, place = one.peer.id, one.placement
            known = None if before is None else before.get(peer)
            if known is not None and (known.place is place or _is_same(known.place, place)):
                there[peer] = known
                continue
            there[peer] = _Seen(one.peer.name, place)
            if before is not None:
                self._tell("joined" if known is None else "moved", peer, there[peer], now)
        self._volunteers = there
        if before is not None:
            for peer in before.keys() - there.keys():
                self._tell("left" if peer in have_said_so else "lost", peer, before[peer], now)

    def _departed(self, volunteer: Volunteer) -> None:
        if volunteer.state == "draining":
            self._have_said_so.add(volunteer.peer.id)

    def _tell(self, kind: HistoryEventType, peer: PeerId, seen: _Seen, now: float, count: int = 1) -> None:
        several = count if count > 1 else UNSET
        self._events.append(
            HistoryEvent(at=round(now, 3), type=kind, volunteer=peer, name=seen.name, count=several)
        )
        self.version += 1

    def _show_serving(self, count: int) -> None:
        if count != self._serving:
            self._serving = count
            self.version += 1

    def _changed(self, now: float) -> Tally:
        """The minute that is, in which something changes."""
        self._turn_to(now)
        self.version += 1
        return self._present

    def _turn_to(self, now: float) -> None:
        """Have the present minute be that of `now`."""
        at = minute_of(now)
        if at <= self._present.at:
            return  # a clock that was set back goes on with the minute that it was
        self._past.append(self._present.shown(self._serving))
        for empty in minutes_between(max(self._present.at, at - MOST_MINUTES * MINUTE), at):
            self._past.append(Tally(empty).shown(self._serving))
        self._present = Tally(at)
        self.version += 1

    # ---- what is shown ----

    def shown(self, minutes: int) -> History:
        """The last minutes, at most `MOST_MINUTES`, the present one included."""
        present = self._present.shown(self._serving)
        since = present.at - (minutes - 1) * MINUTE
        return History(
            minutes=[*_newest(self._past, since), present],
            events=_newest(self._events, since),
        )


class _Dated(Protocol):
    @property
    def at(self) -> float: ...


_D = TypeVar("_D", bound=_Dated)


def _newest(kept: Reversible[_D], since: float) -> list[_D]:
    """Those of then and later, the newest last."""
    return list(takewhile(lambda one: one.at >= since, reversed(kept)))[::-1]


def _is_same(one: Placement, other: Placement) -> bool:
    """Whether these are the same blocks; what else is known of a place may differ."""
    return (one.model, one.span) == (other.model, other.span)
