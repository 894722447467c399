"""What links are tried against: a receiver that keeps what comes, and servers of many kinds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from corolla.link import LinkOptions, RelayLink, dial
from schema.errors import CorollaError
from schema.frames import Frame, FrameType, Header, encode_frame
from schema.ids import new_session_id
from schema.messages import FromRelay, Hello, Welcome, decode_from_peer, encode_message

PATIENCE_SECONDS = 20
Behaviour = Callable[[ServerConnection], Awaitable[None]]


class Arrivals:
    """A receiver that keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[Header] = []
        self.messages: list[FromRelay] = []
        self._more = asyncio.Event()

    def on_frame(self, header: Header, message: bytes) -> None:
        self.frames.append(header)
        self._more.set()

    def on_message(self, message: FromRelay) -> None:
        self.messages.append(message)
        self._more.set()

    async def wait_for(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._more.clear()
                await self._more.wait()


def options_for(url: str, token: str = "corolla-client.id.secret.") -> LinkOptions:
    return LinkOptions(url, token, "tester", "tests")


async def refusal(options: LinkOptions) -> CorollaError:
    with pytest.raises(CorollaError) as caught:
        await dial(options)
    return caught.value


@asynccontextmanager
async def running(link: RelayLink, arrivals: Arrivals) -> AsyncIterator[asyncio.Task[None]]:
    """The link's `run` as a task, closed at the end."""
    task = asyncio.create_task(link.run(arrivals))
    try:
        yield task
    finally:
        link.close()
        with suppress(CorollaError):
            await asyncio.wait_for(task, PATIENCE_SECONDS)


async def ending(link: RelayLink, arrivals: Arrivals | None = None) -> CorollaError:
    """Why the relay, or the network, ends the link."""
    with pytest.raises(CorollaError) as caught:
        await asyncio.wait_for(link.run(arrivals or Arrivals()), PATIENCE_SECONDS)
    return caught.value


@asynccontextmanager
async def tcp_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A bare TCP server; its address."""

    calls: list[asyncio.Task[None] | None] = []

    async def then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(then_close, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*filter(None, calls))


def http_answer(status: str, body: str) -> Callable[..., Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()

    return handle


@asynccontextmanager
async def scripted(
    behaviour: Behaviour, heartbeat_seconds: float = 60.0, answer: str | bytes | None = None
) -> AsyncIterator[LinkOptions]:
    """A WebSocket server that takes the hello, welcomes (or says `answer`), and then behaves."""
    welcome = Welcome(peer="0" * 16, heartbeat_seconds=heartbeat_seconds, models=[], software="scripted")

    async def handle(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            assert isinstance(decode_from_peer(await connection.recv()), Hello)
            await connection.send(answer or encode_message(welcome))
            await behaviour(connection)

    async with serve(handle, "127.0.0.1", 0, max_size=None, close_timeout=1) as server:
        yield options_for(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")


async def listen(connection: ServerConnection) -> None:
    async for _ in connection:
        pass


async def read_nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


def saying(*messages: str | bytes) -> Behaviour:
    async def behave(connection: ServerConnection) -> None:
        for message in messages:
            await connection.send(message)
        await listen(connection)

    return behave


def frame(kind: int = FrameType.STEP, payload: bytes = b"") -> bytes:
    return encode_frame(Frame(kind, 0, new_session_id(), 0, 0, b"route", payload))
