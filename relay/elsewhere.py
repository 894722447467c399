"""A peer that is connected to another replica, or on its way from one replica to another.

It takes messages as a `relay.peer.Peer` does. What comes while it is on its way waits here, as long as there
is room, until it has arrived somewhere.

Owned by relay/replicas.py. Does not know what the messages say.
"""

import asyncio
from typing import Protocol

from relay.bus import ReplicaKey
from relay.parcels import Kind
from schema.ids import PeerId
from schema.messages import FromRelay, encode_message
from schema.outbox import Outbox, Urgency


class Way(Protocol):
    """To another replica; see `relay.replicas.Neighbour`."""

    @property
    def key(self) -> ReplicaKey: ...

    def send(self, kind: Kind, peer: PeerId, body: bytes, urgency: Urgency) -> bool: ...


class RemotePeer:
    """A peer that is not connected here."""

    def __init__(self, peer: PeerId, name: str, since: float, way: Way | None, queue_bytes: int) -> None:
        """`way`: None while it is on its way."""
        self.id = peer
        self.name = name
        self.since = since
        """Unix time at which it connected where it is, or where it was last; see `PeerNews`."""
        self.way = way
        self.left = asyncio.get_running_loop().time()
        """Loop time since which it is on its way, if it is."""
        self.rtt: float | None = None
        """Seconds to it and back from the replica that it is connected to, as that one says."""
        self._waiting = tuple(Outbox(queue_bytes) for _ in Urgency)
        """What has come while it was on its way; each holds one urgency, so that it can be told."""

    def enqueue(self, message: str | bytes, urgency: Urgency) -> bool:
        """Send a message on; False where there is no room for it."""
        if self.way is None:
            return self._waiting[urgency].put(message, urgency)
        if isinstance(message, str):
            return self.way.send(Kind.TEXT, self.id, message.encode(), urgency)
        return self.way.send(Kind.FRAME, self.id, message, urgency)

    def send_message(self, message: FromRelay) -> bool:
        """As `Peer.send_message`."""
        return self.enqueue(encode_message(message), Urgency.CONTROL)

    def tell(self, message: FromRelay) -> None:
        """As `send_message`; where that cannot be, the way there is about to end, and the peer with it."""
        self.send_message(message)

    def take_waiting(self) -> list[tuple[str | bytes, Urgency]]:
        """What has waited for its arrival, the most urgent first."""
        taken: list[tuple[str | bytes, Urgency]] = []
        for urgency, outbox in zip(Urgency, self._waiting, strict=True):
            while (message := outbox.take()) is not None:
                taken.append((message, urgency))
        return taken
