"""The other replicas of this relay: who lives, and what travels between them and this one.

    here, every second, to all ─────────────────> a replica that is not known: a lane to it is opened
    nothing heard for `DEAD_SECONDS`, or no bus ─> its lane is closed, and what was in it is lost
    a replica that is known opens another lane ─> it has given this one up: it is given up here, too

Whoever is given up is heard anew, with a lane in each direction that is later than those before. A later lane
that only answers this one's own, as its `Opened` says, is no reason to give anybody up once more.

Owns the lanes (relay/lanes.py) and the one task that publishes what waits in them. What a parcel means is for
the `Office`. Owned by the event loop's thread. Does not know peers, volunteers or frames.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from typing import Protocol

from relay.bus import EVERYBODY, NOBODY, Bus, ReplicaKey, subject_of
from relay.lanes import Inbound, Lost, Outbound
from relay.metrics import Metrics
from relay.parcels import (
    Kind,
    Leaving,
    Missed,
    Notice,
    Opened,
    Parcel,
    Received,
    decode_notice,
    decode_parcel,
    encode_notice,
    encode_parcel,
    here,
)
from schema.errors import CorollaError, MalformedMessage
from schema.ids import PeerId
from schema.outbox import Urgency

BEAT_SECONDS = 1.0
"""How often a replica says that it lives, and what has come."""
DEAD_SECONDS = 5.0
"""A replica that says nothing for so long is taken for dead."""
CONFIRM_PARCELS = 1024
"""After so many it is said that they have come, without waiting for the beat."""
FLUSH_SECONDS = 2.0
RESTART_SECONDS = 0.1
"""Before publishing goes on after a failure."""
MAX_ENDED = 1024
"""Lanes of replicas given up of which nothing is taken any more; each start of a replica is another one."""

log = logging.getLogger(__name__)


class Neighbour:
    """One other replica, from when it is first heard to when it is given up."""

    def __init__(self, key: ReplicaKey, outbound: Outbound, wake: asyncio.Event) -> None:
        self.key = key
        self.name = ""
        """As it says; empty before it has."""
        self.has_told = False
        """Whether it has said who is connected there."""
        self.peers: set[PeerId] = set()
        """Those that are connected there; written by the office."""
        self.heard = asyncio.get_running_loop().time()
        self.outbound = outbound
        self.inbound = Inbound()
        self.confirmed = 0
        """The number up to which it has been told that parcels have come."""
        self._wake = wake

    def send(self, kind: Kind, peer: PeerId, body: bytes, urgency: Urgency) -> bool:
        """Queue something for it; False where there is no room."""
        if not self.outbound.put(kind, peer, body, urgency):
            return False
        self._wake.set()
        return True

    def notify(self, notice: Notice) -> None:
        self.send(Kind.NOTICE, NOBODY, encode_notice(notice), Urgency.CONTROL)


class Office(Protocol):
    """What is done with what comes; see relay/replicas.py. Called on the event loop."""

    def on_opened(self, neighbour: Neighbour) -> None: ...

    def on_closed(self, neighbour: Neighbour, lost: list[Lost]) -> None:
        """It is gone, and what was on its way to it with it."""
        ...

    def on_body(self, neighbour: Neighbour, kind: int, peer: PeerId, body: bytes) -> None: ...
    def on_notice(self, neighbour: Neighbour, notice: Notice) -> None: ...

    def on_gap(self, neighbour: Neighbour) -> None:
        """Something that it has sent has not come."""
        ...

    def on_lost(self, neighbour: Neighbour, lost: list[Lost]) -> None:
        """These have not come there."""
        ...


class Neighbours:
    """All other replicas that this one hears."""

    def __init__(self, bus: Bus, office: Office, metrics: Metrics, name: str, queue_bytes: int) -> None:
        self.key = ReplicaKey(secrets.token_hex(8))
        self._bus = bus
        self._office = office
        self._metrics = metrics
        self._name = name
        self._queue_bytes = queue_bytes
        self._known: dict[ReplicaKey, Neighbour] = {}
        self._last_lane = 0
        """The number of the lane that was opened last."""
        self._ended: dict[ReplicaKey, int] = {}
        """The last lane from each replica that was given up."""
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        """Set, and replaced, whenever something was published."""
        self._publishing: asyncio.Task[None] | None = None
        self._greeting: asyncio.Task[bool] | None = None
        """Held, so that it comes to its end."""
        self._is_here = False

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(list(self._known.values()))

    # ---- its life ----

    async def open(self) -> None:
        self._is_here = True
        self._publishing = asyncio.create_task(self._keep_publishing())
        await self._bus.open(self.key, self)

    async def close(self) -> None:
        """Say farewell, with what has come until now, publish what waits, and leave the bus."""
        self._is_here = False
        for neighbour in self:
            self._confirm(neighbour)
            neighbour.notify(Leaving())
        await self.flush()
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        await self._bus.close()

    async def beat(self) -> None:
        """Say that this replica lives, and give up those that do not."""
        now = asyncio.get_running_loop().time()
        for neighbour in self:
            if now - neighbour.heard > DEAD_SECONDS:
                log.warning("replica %s is silent", neighbour.name, extra={"replica": neighbour.name})
                self.give_up(neighbour)
            else:
                self._confirm(neighbour)
        if self._is_here:
            await self._bus.publish(EVERYBODY, here(self.key))

    async def flush(self) -> None:
        """Return when all that was sent so far is on the bus, before whatever others publish from now on."""
        marks = [(neighbour, neighbour.outbound.mark()) for neighbour in self]
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                for neighbour, mark in marks:
                    while neighbour.key in self._known and not neighbour.outbound.has_passed(mark):
                        await self._progress.wait()
                await self._bus.flush()
        except TimeoutError:
            log.warning("the bus is slow: not all has been sent within %g s", FLUSH_SECONDS)

    def give_up(self, neighbour: Neighbour) -> None:
        """Close the lane to a replica that is gone, or cannot be reached."""
        if self._known.pop(neighbour.key, None) is not None:
            self._end_lane(neighbour)
            self._office.on_closed(neighbour, neighbour.outbound.unsettled())

    def _end_lane(self, neighbour: Neighbour) -> None:
        last = max(neighbour.inbound.number, self._ended.pop(neighbour.key, 0))
        if last > 0:
            self._ended[neighbour.key] = last
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    # ---- called by the bus ----

    def on_bus_up(self) -> None:
        self._greeting = asyncio.create_task(self._bus.publish(EVERYBODY, here(self.key)))

    def on_bus_down(self) -> None:
        for neighbour in self:
            try:
                self.give_up(neighbour)
            except Exception:
                self._metrics.refuse(CorollaError.code)
                log.exception("what replica %s has left behind could not be dealt with", neighbour.name)

    def on_published(self, message: bytes) -> None:
        try:
            parcel = decode_parcel(message)
            if parcel.sender != self.key:
                self._hear(parcel)
        except CorollaError as error:
            self._metrics.refuse(error.code)
            log.warning("a parcel could not be used: %s", error.message)
        except Exception:
            self._metrics.refuse(CorollaError.code)
            log.exception("a parcel could not be handled")

    def _hear(self, parcel: Parcel) -> None:
        """A parcel of another replica has come."""
        if 0 < parcel.lane <= self._ended.get(parcel.sender, 0):
            return  # it was lost with its lane
        neighbour = self._heard(parcel.sender, parcel.lane)
        if 0 < neighbour.inbound.number < parcel.lane and not _answers(parcel, neighbour.outbound):
            log.warning("replica %s has given this one up", neighbour.name)
            self.give_up(neighbour)
            neighbour = self._heard(parcel.sender, parcel.lane)
        if parcel.kind != Kind.HERE:
            self._take(neighbour, parcel)

    def _heard(self, key: ReplicaKey, lane: int) -> Neighbour:
        neighbour = self._known.get(key)
        if neighbour is None:
            self._last_lane = max(time.time_ns() // 1000, self._last_lane + 1)  # if the clock goes back
            outbound = Outbound(self.key, self._last_lane, self._queue_bytes)
            neighbour = self._known[key] = Neighbour(key, outbound, self._wake)
            neighbour.notify(Opened(self._name, lane))
            self._office.on_opened(neighbour)
        neighbour.heard = asyncio.get_running_loop().time()
        return neighbour

    def _take(self, neighbour: Neighbour, parcel: Parcel) -> None:
        is_first = parcel.lane > neighbour.inbound.number
        if is_first:
            neighbour.confirmed = 0
        is_new, missing = neighbour.inbound.accept(parcel)
        if missing:
            if not is_first:  # what was sent before this one was there to hear it was not lost on the way
                self._metrics.lost_parcels += missing
            log.warning("%d parcels of replica %s were lost", missing, neighbour.name)
            neighbour.notify(Missed(parcel.lane, parcel.number - missing, parcel.number))
            self._office.on_gap(neighbour)
        if not is_new:
            return
        self._metrics.parcels["received"] += 1
        if parcel.number - neighbour.confirmed >= CONFIRM_PARCELS:
            self._confirm(neighbour)
        body = neighbour.inbound.whole(parcel)
        if body is None:
            return
        if parcel.kind == Kind.NOTICE:
            self._notice(neighbour, decode_notice(body))
        elif parcel.kind in (Kind.TEXT, Kind.FRAME, Kind.TOLD):
            self._office.on_body(neighbour, parcel.kind, parcel.peer, body)
        else:
            raise MalformedMessage(f"replica {neighbour.name} sends parcels of kind {parcel.kind}")

    def _notice(self, neighbour: Neighbour, notice: Notice) -> None:
        outbound = neighbour.outbound
        match notice:
            case Received():
                if notice.lane == outbound.number:
                    outbound.acknowledged(notice.below)
            case Missed():
                if notice.lane == outbound.number:
                    self._office.on_lost(neighbour, outbound.missed(notice.first, notice.below))
            case _:
                if isinstance(notice, Opened):
                    neighbour.name = notice.replica
                self._office.on_notice(neighbour, notice)

    def _confirm(self, neighbour: Neighbour) -> None:
        neighbour.confirmed = neighbour.inbound.expected
        neighbour.notify(Received(neighbour.inbound.number, neighbour.inbound.expected))

    async def _keep_publishing(self) -> None:
        """For ever, whatever fails: others would wait for one that lives, as they hear, and says nothing."""
        while True:
            try:
                await self._publish_loop()
            except Exception:
                log.exception("a parcel could not be published, and is lost")
            self._note_progress()
            await asyncio.sleep(RESTART_SECONDS)

    async def _publish_loop(self) -> None:
        """Publishes what waits, a parcel of each neighbour in turn."""
        while True:
            taken = False
            for neighbour in self:
                parcel = neighbour.outbound.take()
                if parcel is None:
                    continue
                taken = True
                if await self._bus.publish(subject_of(neighbour.key, parcel.peer), encode_parcel(parcel)):
                    self._metrics.parcels["sent"] += 1
                self._note_progress()
            if not taken:
                self._wake.clear()
                await self._wake.wait()

    def _note_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


def _answers(parcel: Parcel, outbound: Outbound) -> bool:
    """Whether a parcel is the first of a lane that was opened because of this one."""
    if parcel.kind != Kind.NOTICE or parcel.has_more or parcel.part:
        return False
    notice = decode_notice(parcel.body)
    return isinstance(notice, Opened) and notice.answers == outbound.number
