"""The bus between the replicas of one relay: bytes to one replica, or to all of them.

    peer ─> replica A ─> hub: the receiver is elsewhere ─> lane to B ─> bus ─> replica B ─> hub ─> peer

Every replica has a key of its own, new at each start, and takes what is published to `<key>.<peer>`, one
subject a peer, and to `all`. A bus keeps the order of what one replica publishes, and promises nothing
else: it may lose things, and may be away. What is done about that is in relay/lanes.py.

Here: the interface, and the bus inside one process, which is the default and connects replicas of the same
process alone. NATS is in relay/nats_bus.py. Does not know peers, frames or what a message says.
"""

import asyncio
from typing import NewType, Protocol

from schema.ids import PeerId

ReplicaKey = NewType("ReplicaKey", str)
"""One run of one replica: 16 lower-case hex digits."""
EVERYBODY = "all"
"""The subject that all replicas take."""
NOBODY = PeerId("0" * 16)
"""In a subject, where something is for the replica itself."""
MAX_PUBLISHED_BYTES = 768 * 1024
"""At once; NATS servers take 1 MiB unless they are told otherwise."""


def subject_of(key: ReplicaKey, peer: PeerId = NOBODY) -> str:
    return f"{key}.{peer}"


class Listener(Protocol):
    """What a bus tells a replica; called on the event loop, and may not raise."""

    def on_published(self, message: bytes) -> None: ...
    def on_bus_up(self) -> None: ...
    def on_bus_down(self) -> None: ...


class Bus(Protocol):
    """A replica's connection to the bus."""

    async def open(self, key: ReplicaKey, listener: Listener) -> None:
        """Connect, and stay connected as well as can be until `close`. Waits for no bus that is away."""
        ...

    async def close(self) -> None:
        """Publish what was given to `publish` before, and let go."""
        ...

    async def publish(self, subject: str, message: bytes) -> bool:
        """Send at most `MAX_PUBLISHED_BYTES`; waits for a slow bus. False when it is away."""
        ...

    async def flush(self) -> None:
        """Return when the bus has taken what was published, and so before anything published from now on."""
        ...


class Crossing:
    """Where buses of one process meet."""

    def __init__(self) -> None:
        self.buses: dict[ReplicaKey, InProcessBus] = {}


class InProcessBus:
    """A bus without sockets. Alone at its crossing it connects nobody."""

    def __init__(self, crossing: Crossing | None = None) -> None:
        self._crossing = crossing or Crossing()
        self._key = ReplicaKey("")
        self._listener: Listener | None = None

    async def open(self, key: ReplicaKey, listener: Listener) -> None:
        self._key, self._listener = key, listener
        self._crossing.buses[key] = self
        listener.on_bus_up()

    async def close(self) -> None:
        self._crossing.buses.pop(self._key, None)

    async def publish(self, subject: str, message: bytes) -> bool:
        for key, other in self._crossing.buses.items():
            if key != self._key and subject in (EVERYBODY, subject_of(key, PeerId(subject[-16:]))):
                asyncio.get_running_loop().call_soon(other.take, message)
        return True

    async def flush(self) -> None:
        await asyncio.sleep(0)

    def take(self, message: bytes) -> None:
        """Something was published for this replica."""
        if self._listener is not None:
            self._listener.on_published(message)
