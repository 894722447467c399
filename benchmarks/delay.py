"""A link that takes its time: a TCP forwarder whose bytes arrive later than they were sent.

Stands between volunteers and their relay. The delay, in each direction, may be changed at any time; bytes
stay in order. Does not know what it carries, and limits no bandwidth.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 20
HELD_CHUNKS = 1024
"""On their way in one direction of one connection; a sender of more has to wait."""


@dataclass(slots=True)
class DelayedLink:
    """A forwarder that runs. `seconds` is for any thread to write, for the forwarder's to read."""

    url: str
    seconds: float = 0.0


@contextlib.contextmanager
def delayed(url: str, port: int = 0) -> Iterator[DelayedLink]:
    """A link to the server at `url`, on `port` or a free one, without a delay at first."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="delayed link", daemon=True)
    thread.start()
    link = DelayedLink(url)
    stop = asyncio.Event()
    ready = threading.Event()
    serving = asyncio.run_coroutine_threadsafe(_serve(link, port, ready, stop), loop)
    try:
        if not ready.wait(10.0):
            raise RuntimeError(f"the delayed link to {url} does not open: {serving}")
        yield link
    finally:
        loop.call_soon_threadsafe(stop.set)
        serving.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(link: DelayedLink, port: int, ready: threading.Event, stop: asyncio.Event) -> None:
    target = urlsplit(link.url)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far = await asyncio.open_connection(target.hostname, target.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(link, reader, far[1]))
                group.create_task(_pump(link, far[0], writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    link.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ready.set()
    await stop.wait()
    server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def _pump(link: DelayedLink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that is read is written after the delay; the end of it too."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)
    loop = asyncio.get_running_loop()

    async def read() -> None:
        while True:
            data = await reader.read(CHUNK_BYTES)
            await held.put((loop.time() + link.seconds, data))
            if not data:
                return

    async def write() -> None:
        while True:
            due, data = await held.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())
    except* OSError:
        writer.close()
