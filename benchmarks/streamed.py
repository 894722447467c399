"""Streamed chats over HTTP/1.1, many at once, read as cheaply as Python can: what is measured is the server.

Each has a connection of its own, open before anything is asked. While a reply comes its events are only cut
out of the bytes and timed; they are read when it is over. Does not know what is compared.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import msgspec

from benchmarks.driven_head import Timed

PATH = "/v1/chat/completions"
SETTLE_SECONDS = 0.1
"""Before anything is asked, either way: what one way has left in caches is not the other's to use."""
LAST_CHUNK = b"0\r\n\r\n"
DATA, DONE = b"data: ", b"[DONE]"


@dataclass(slots=True)
class EventStream:
    """The events of one answer, from its bytes as they come."""

    events: list[tuple[float, bytes]] = field(default_factory=lambda: list[tuple[float, bytes]]())
    """When each was complete, and what it says."""
    head: bytes = b""
    """Status line and headers."""
    is_over: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes, now: float) -> None:
        """Take more bytes, in chunks as the server sends them (RFC 9112, section 7.1): none cuts an event."""
        data = self._rest + data
        if not self.head:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = data
                return
            self.head, data = head, rest
        *whole, self._rest = data.split(b"\n\n")
        for event in whole:
            said = event.partition(DATA)[2]
            if said:
                self.events.append((now, said))
        # An error has no chunks: it is one JSON object, and the connection is of no more use.
        self.is_over = self._rest.endswith(LAST_CHUNK) or not self.is_stream

    @property
    def is_stream(self) -> bool:
        return b" 200 " in self.head[:16] and b"text/event-stream" in self.head

    def pieces(self) -> Iterator[tuple[float, str]]:
        """The texts. Raises RuntimeError for an answer that is not a whole stream."""
        if not self.is_stream or not self.events or self.events[-1][1] != DONE:
            last = self.events[-1][1] if self.events else self._rest
            raise RuntimeError(f"this is not a whole reply: {self.head!r} ... {last!r}")
        for at, said in self.events[:-1]:
            for choice in msgspec.json.decode(said)["choices"]:
                if text := choice["delta"].get("content"):
                    yield at, text


class Connection(asyncio.Protocol):
    """One connection to the relay, with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._stream = EventStream()
        self._over: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        self._stream.feed(data, time.monotonic())
        if self._stream.is_over and self._over is not None and not self._over.done():
            self._over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(ConnectionError("the relay has ended the connection"))

    async def ask(self, request: bytes) -> tuple[float, EventStream]:
        """When it was asked, and the answer."""
        if self._transport is None:
            raise ConnectionError("not connected")
        self._stream, self._over = EventStream(), asyncio.get_running_loop().create_future()
        asked = time.monotonic()
        self._transport.write(request)
        await self._over
        return asked, self._stream

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Asker:
    """Asks one relay for streamed chats."""

    def __init__(self, url: str, token: str) -> None:
        target = urlsplit(url)
        self._host, self._port, self._token = target.hostname or "", target.port or 80, token

    async def write(self, bodies: list[bytes]) -> list[Timed]:
        """Replies to all of these, JSON, at once. Raises RuntimeError when one of them has failed."""
        connect = asyncio.get_running_loop().create_connection
        connections = [(await connect(Connection, self._host, self._port))[1] for _ in bodies]
        await asyncio.sleep(SETTLE_SECONDS)  # the relay accepts them
        try:
            requests = map(self._request, bodies)
            answers = await asyncio.gather(*map(Connection.ask, connections, requests))
        finally:
            for one in connections:
                one.close()
        return [_timed(asked, stream) for asked, stream in answers]

    def _request(self, body: bytes) -> bytes:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _timed(asked: float, stream: EventStream) -> Timed:
    timed = Timed(asked)
    for at, text in stream.pieces():
        timed.arrivals.append(at)
        timed.texts.append(text)
    return timed
