"""A stand-in for a line that dies without a word: a TCP forwarder between a browser and a relay, both real.

When it falls silent nothing is carried any more and nobody is told: all sockets stay open, as they do when a
phone changes its network or a router forgets a connection.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

CHUNK = 64 * 1024
UPGRADE = b"upgrade: websocket"


class SilentLine:
    """Carries bytes both ways between those who connect to `url` and the relay's port."""

    def __init__(self, relay_port: int) -> None:
        self.url = ""
        self._relay_port = relay_port
        self._works = asyncio.Event()
        self._works.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._web_sockets: set[asyncio.Task[None]] = set()
        """Those that carry WebSockets."""
        self._ends: list[asyncio.StreamWriter] = []

    def fall_silent(self) -> None:
        """Open WebSockets carry nothing ever again; what connects from now on waits for `restore`."""
        self._works.clear()
        for task in self._web_sockets:
            task.cancel()

    def restore(self) -> None:
        """New connections are carried."""
        self._works.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        await self._works.wait()
        relay_reader, relay_writer = await asyncio.open_connection("127.0.0.1", self._relay_port)
        self._ends.append(relay_writer)
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # a browser connects ahead of its needs
            relay_writer.close()
            writer.close()
            return
        relay_writer.write(asked)
        for carrying in (_carry(reader, relay_writer), _carry(relay_reader, writer)):
            self._start(carrying, is_web_socket=UPGRADE in asked.lower())

    def _start(self, carrying: Coroutine[Any, Any, None], *, is_web_socket: bool) -> None:
        task = asyncio.create_task(carrying)
        for group in (self._tasks, self._web_sockets) if is_web_socket else (self._tasks,):
            group.add(task)
            task.add_done_callback(group.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until `reader` ends: then `writer` is closed too. Cancelled, it leaves both open."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:  # an end was reset
        pass
    writer.close()


@asynccontextmanager
async def silent_line(relay_port: int) -> AsyncIterator[SilentLine]:
    """One on a free port, working."""
    line = SilentLine(relay_port)
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        await line.close()
