"""The bus over a NATS server, for `BUS_URL=nats://…`.

Core NATS, no streams: what is lost on the way, be it to a slow consumer or with a server, is noticed by
relay/lanes.py. The library reconnects by itself for as long as it takes. It is imported where this module is,
and that is only where a bus is configured. Subjects begin with the swarm's own name, so that several swarms
can share a server.

Whoever can publish there can do all that a replica can: keep the server to the relays.
"""

import asyncio
import logging
from typing import Protocol, cast

from nats.aio.client import Client
from nats.errors import Error as NatsError

from relay.bus import EVERYBODY, Listener, ReplicaKey

CONNECT_SECONDS = 2
RECONNECT_SECONDS = 0.5
PING_SECONDS = 2
MISSED_PINGS = 2
"""A server that answers so few of them is taken for gone."""
FLUSH_SECONDS = 5
FLUSH_BYTES = 1 << 20
"""Published without asking whether the server keeps up."""
PENDING_BYTES = 256 << 20
PENDING_MESSAGES = 1 << 20
"""Received and not handled yet, before the library drops what comes."""

log = logging.getLogger(__name__)


class _Message(Protocol):
    data: bytes


class NatsBus:
    """A connection to a NATS server, or to several of one cluster. Owned by the event loop's thread."""

    def __init__(self, url: str, swarm: str) -> None:
        self._servers = url.split(",")
        self._prefix = f"corolla.{swarm}"
        self._client = Client()
        self._listener: Listener | None = None
        self._is_up = False
        self._unflushed = 0
        self._opening: asyncio.Task[None] | None = None

    async def open(self, key: ReplicaKey, listener: Listener) -> None:
        self._listener = listener
        self._opening = asyncio.create_task(self._connect(key))
        await asyncio.wait({self._opening}, timeout=CONNECT_SECONDS)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._listener = None
        await self.flush()
        try:
            await asyncio.wait_for(self._client.close(), FLUSH_SECONDS)
        except (NatsError, OSError, TimeoutError) as error:
            log.info("the bus was let go of without a farewell: %s", error)

    async def publish(self, subject: str, message: bytes) -> bool:
        if not self._is_up:
            return False
        try:
            await self._client.publish(f"{self._prefix}.{subject}", message)
        except (NatsError, OSError) as error:
            log.warning("the bus takes nothing: %s", error)
            return False
        self._unflushed += len(message)
        if self._unflushed >= FLUSH_BYTES:
            await self.flush()
        return True

    async def flush(self) -> None:
        self._unflushed = 0
        if not self._is_up:
            return
        try:
            await self._client.flush(FLUSH_SECONDS)
        except (NatsError, OSError, TimeoutError) as error:
            log.warning("the bus does not answer: %s", error)

    async def _connect(self, key: ReplicaKey) -> None:
        while True:
            try:
                await self._client.connect(
                    servers=list(self._servers),
                    name=f"corolla relay {key}",
                    error_cb=self._on_error,
                    disconnected_cb=self._on_down,
                    reconnected_cb=self._on_up,
                    connect_timeout=CONNECT_SECONDS,
                    reconnect_time_wait=cast(int, RECONNECT_SECONDS),
                    max_reconnect_attempts=-1,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=MISSED_PINGS,
                    allow_reconnect=True,
                    no_echo=True,
                )
                break
            except (NatsError, OSError, TimeoutError) as error:
                log.warning("the bus cannot be reached: %s", error or type(error).__name__)
                self._client = Client()
                await asyncio.sleep(RECONNECT_SECONDS)
        for subject in (EVERYBODY, f"{key}.*"):
            await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                f"{self._prefix}.{subject}",
                cb=self._on_message,
                pending_msgs_limit=PENDING_MESSAGES,
                pending_bytes_limit=PENDING_BYTES,
            )
        await self._on_up()

    async def _on_message(self, message: _Message) -> None:
        if self._listener is not None:
            self._listener.on_published(message.data)

    async def _on_up(self) -> None:
        log.info("the bus is reached")
        self._is_up = True
        if self._listener is not None:
            self._listener.on_bus_up()

    async def _on_down(self) -> None:
        if self._is_up and self._listener is not None:
            log.warning("the bus is away: peers of other replicas cannot be reached")
            self._is_up = False
            self._listener.on_bus_down()

    async def _on_error(self, error: Exception) -> None:
        log.info("the bus: %s", error or type(error).__name__)
