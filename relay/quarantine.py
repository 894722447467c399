"""Volunteers that an operator keeps out of routes, on every replica within seconds.

    an operator decides ─> SQL ─> every replica looks every two seconds, the one that was asked at once
                                  ├─> its swarm
                                  └─> the volunteer's owner is told why

It keeps its connection, and serves what it has begun. Told are the volunteers that are connected here; one
that comes back, or comes from another replica, is told again. Owned by the event loop's thread. Does not know
who may decide, nor what a swarm does with it.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from relay.hub import Hub
from relay.peer import Peer
from relay.records import QuarantineRecord
from relay.swarm import Swarm
from schema.ids import PeerId
from schema.messages import Quarantined, Restored

log = logging.getLogger(__name__)


class QuarantineStore(Protocol):
    """Where it is written."""

    async def quarantined(self) -> list[QuarantineRecord]: ...
    async def quarantines_of(self, peer: PeerId) -> list[QuarantineRecord]: ...
    async def quarantine(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord: ...
    async def restore(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord: ...


class Quarantine:
    """What this replica knows of it."""

    def __init__(self, store: QuarantineStore, swarm: Swarm, hub: Hub) -> None:
        self._store = store
        self._swarm = swarm
        self._hub = hub
        self._told: dict[PeerId, tuple[Peer, str]] = {}
        """The connections over which owners were told, and why."""
        self._looking = asyncio.Lock()
        """Held from asking to acting: an older answer that came later would undo what was decided since."""

    async def put(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord:
        """Keep a volunteer out. `by`: the admin's token. Raises Unavailable: the database is away."""
        record = await self._store.quarantine(peer, reason, by, now)
        log.warning("%s is in quarantine: %s", peer, reason, extra={"peer": peer, "by": by})
        await self.look()
        return record

    async def end(self, peer: PeerId, reason: str, by: str | None, now: float) -> QuarantineRecord:
        """Let it be in routes again.

        Raises:
            NotFound: it is in no quarantine. Unavailable: the database is away.
        """
        record = await self._store.restore(peer, reason, by, now)
        log.warning("%s is in quarantine no more: %s", peer, reason, extra={"peer": peer, "by": by})
        await self.look()
        return record

    async def look(self) -> None:
        """See who is kept out now, whoever has decided it.

        Raises:
            Unavailable: the database is away; all stays as it was.
        """
        async with self._looking:
            reasons = {one.peer: one.reason for one in await self._store.quarantined()}
            self._swarm.set_quarantined(reasons.keys())
            self._tell(reasons)
            for peer in self._told.keys() - reasons.keys():
                await self._tell_restored(peer)

    async def _tell_restored(self, peer: PeerId) -> None:
        past = await self._store.quarantines_of(peer)
        connection, _ = self._told.pop(peer)
        if connection.hears_operators and past:
            connection.send_message(Restored(reason=past[0].end_reason or ""))

    def _tell(self, reasons: Mapping[PeerId, str]) -> None:
        for peer, reason in reasons.items():
            here = self._hub.get(peer)
            if here is None:
                self._told.pop(peer, None)
            elif self._told.get(peer) != (here, reason):
                self._told[peer] = here, reason
                if here.hears_operators:
                    here.send_message(Quarantined(reason=reason))
