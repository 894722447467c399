"""The bus over a NATS server, for `BUS_URL=nats://…`.

Core NATS, no streams: what is lost on the way, be it to a slow consumer or with a server, is noticed by
relay/lanes.py. The library reconnects by itself for as long as it takes. It is imported where this module is,
and that is only where a bus is configured. Subjects begin with the swarm's own name, so that several swarms
can share a server.

Whoever can publish there can do all that a replica can: keep the server to the relays.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError

from relay.bus import EVERYBODY, Listener, ReplicaKey

CONNECT_SECONDS = 2
RECONNECT_SECONDS = 0.5
PING_SECONDS = 2
MISSED_PINGS = 2
"""A server that answers so few of them is taken for gone."""
FLUSH_SECONDS = 5.0
ANSWER_SECONDS = 60
"""How long the library waits for an answer: longer than a connection without any lasts."""
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
        self._where = ", ".join(urlsplit(server).netloc.rpartition("@")[2] for server in self._servers)
        """The servers as logs name them: without passwords."""
        self._prefix = f"corolla.{swarm}"
        self._key = ReplicaKey("")
        self._client = Client()
        self._listener: Listener | None = None
        self._is_up = False
        self._unflushed = 0
        self._opening: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        """Those that wait for an answer of the server."""

    async def open(self, key: ReplicaKey, listener: Listener) -> None:
        self._key, self._listener = key, listener
        self._opening = asyncio.create_task(self._connect())
        await asyncio.wait({self._opening}, timeout=CONNECT_SECONDS)

    async def close(self) -> None:
        self._listener = None
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self.flush()
        await self._let_go(self._client)
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

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
            await self._wait_for_answers(1)
        return True

    async def flush(self) -> None:
        # The library writes its question at once, but what was published only when it gets to it: by the
        # answer to the first question all of that is written, and by the answer to the second it is taken.
        await self._wait_for_answers(2)

    async def _wait_for_answers(self, count: int) -> None:
        self._unflushed = 0
        if not self._is_up:
            return
        # Beside it, and never cancelled while it is connected: the library's reading ends with an error when
        # an answer comes to a question that nobody waits for any more.
        asking = asyncio.create_task(self._ask(self._client, count))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        await asyncio.wait({asking}, timeout=FLUSH_SECONDS)
        if not asking.done():
            log.warning("the bus does not answer within %g s", FLUSH_SECONDS)

    async def _ask(self, client: Client, count: int) -> None:
        try:
            for _ in range(count):
                await client.flush(ANSWER_SECONDS)
        except (NatsError, OSError) as error:
            log.warning("the bus does not answer: %s", error or type(error).__name__)
        except Exception:
            log.exception("the bus could not be asked")

    async def _connect(self) -> None:
        """Until it is done, whatever fails."""
        while True:
            client = self._client = Client()
            try:
                await self._join(client)
            except Exception as error:
                is_expected = isinstance(error, NatsError | OSError | TimeoutError)
                reason = error or type(error).__name__
                trace = None if is_expected else error
                log.warning("the bus at %s cannot be reached: %s", self._where, reason, exc_info=trace)
                self._client = Client()  # so that the end of the other one is nobody's business
                await self._let_go(client)
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                return

    async def _join(self, client: Client) -> None:
        await client.connect(
            servers=list(self._servers),
            name=f"corolla relay {self._key}",
            error_cb=self._on_error,
            disconnected_cb=partial(self._on_down, client),
            reconnected_cb=partial(self._on_up, client),
            closed_cb=partial(self._on_closed, client),
            connect_timeout=CONNECT_SECONDS,
            reconnect_time_wait=cast(int, RECONNECT_SECONDS),
            max_reconnect_attempts=-1,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=MISSED_PINGS,
            allow_reconnect=True,
            no_echo=True,
        )
        for subject in (EVERYBODY, f"{self._key}.*"):
            await client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                f"{self._prefix}.{subject}",
                cb=self._on_message,
                pending_msgs_limit=PENDING_MESSAGES,
                pending_bytes_limit=PENDING_BYTES,
            )
        await self._on_up(client)

    async def _let_go(self, client: Client) -> None:
        try:
            await asyncio.wait_for(client.close(), FLUSH_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is of no use any more
            log.info("the bus was let go of without a farewell: %s", error or type(error).__name__)

    # ---- called by the library, in the middle of its own work: nothing may be raised ----

    async def _on_message(self, message: _Message) -> None:
        if self._listener is not None:
            self._listener.on_published(message.data)

    async def _on_up(self, client: Client) -> None:
        if client is self._client and self._listener is not None:
            log.info("the bus is reached")
            self._is_up = True
            self._tell(self._listener.on_bus_up)

    async def _on_down(self, client: Client) -> None:
        if client is self._client and self._is_up and self._listener is not None:
            log.warning("the bus at %s is away: peers of other replicas cannot be reached", self._where)
            self._is_up = False
            self._tell(self._listener.on_bus_down)

    async def _on_closed(self, client: Client) -> None:
        """The library does not try to connect any more, for instance since the server has refused it."""
        if client is self._client and self._listener is not None:
            await self._on_down(client)
            self._opening = asyncio.create_task(self._connect_again())

    async def _connect_again(self) -> None:
        log.warning("the connection to the bus is closed, and opened anew")
        await asyncio.sleep(RECONNECT_SECONDS)
        await self._connect()

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:
            log.exception("a change of the bus could not be handled")

    async def _on_error(self, error: Exception) -> None:
        log.info("the bus at %s: %s", self._where, error or type(error).__name__)
