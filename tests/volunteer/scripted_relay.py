"""A relay for one volunteer: lets it in, sends its probe back, and does otherwise what a test tells it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from schema.errors import CorollaError
from schema.frames import Frame, FrameType, decode_frame, encode_frame
from schema.ids import Span, new_session_id
from schema.messages import (
    Assignment,
    ErrorInfo,
    FromPeer,
    FromRelay,
    Goodbye,
    Hello,
    Loaded,
    Offer,
    Probe,
    Progress,
    Ready,
    Serving,
    Welcome,
    decode_from_peer,
    encode_message,
)
from schema.routes import Hop
from tests.corolla.fakes import ME, route_of

PATIENCE_SECONDS = 30
_M = TypeVar("_M", bound=FromPeer)


class ScriptedRelay:
    """Belongs to the test's event loop. `assignment`: what every offer gets."""

    def __init__(self) -> None:
        self.url = ""
        self.assignment = Assignment(model="tiny", start=0, end=2, head=False)
        self.heartbeat_seconds = 60.0
        self.messages: list[FromPeer] = []
        self.frames: list[Frame] = []
        """Those that are for somebody else."""
        self.answers: dict[type[FromPeer], CorollaError | None] = {}
        """What a kind of message gets instead of what it usually gets: a goodbye, or nothing."""
        self.connections: list[ServerConnection] = []
        self.early: list[Progress] = []
        """What was told of loading over a connection on which nothing was offered: a relay refuses that."""
        self._has_offer = False
        self._more = asyncio.Event()

    def of(self, kind: type[_M]) -> list[_M]:
        """The messages of one kind so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    async def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when `condition` holds after something has arrived."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def wait_until_serving(self, times: int = 1) -> None:
        await self.wait_for(lambda: len(self.of(Ready)) >= times)

    async def send(self, message: FromRelay | Frame) -> None:
        raw = encode_frame(message) if isinstance(message, Frame) else encode_message(message)
        await self.connections[-1].send(raw)

    async def say_goodbye(self, error: CorollaError) -> None:
        await self.send(Goodbye(error=ErrorInfo.of(error)))
        await self.connections[-1].close(error.close_code, error.code)

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self._has_offer = False
        with suppress(ConnectionClosed):
            while True:
                message = await connection.recv()
                if isinstance(message, bytes):
                    await self._take_frame(decode_frame(message))
                else:
                    await self._take_message(decode_from_peer(message))
                self._more.set()

    async def _take_frame(self, frame: Frame) -> None:
        if frame.type == FrameType.PROBE:
            await self.send(frame)
        else:
            self.frames.append(frame)

    async def _take_message(self, message: FromPeer) -> None:
        self.messages.append(message)
        self._has_offer |= isinstance(message, Offer)
        if isinstance(message, Progress) and not self._has_offer:
            self.early.append(message)
        if type(message) in self.answers:
            error = self.answers[type(message)]
            if error is not None:
                await self.say_goodbye(error)
            return
        answer = self._answer_to(message)
        if answer is not None:
            await self.send(answer)

    def _answer_to(self, message: FromPeer) -> FromRelay | None:
        match message:
            case Hello():
                return Welcome(
                    peer=ME, heartbeat_seconds=self.heartbeat_seconds, models=["tiny"], software="scripted"
                )
            case Offer():
                return self.assignment
            case Loaded():
                session = new_session_id()
                hop = Hop(ME, Span(message.start, message.end))
                return Probe(session=session.hex(), route=route_of(hop, session=session))
            case Ready():
                return Serving()
            case _:
                return None


@asynccontextmanager
async def scripted_relay() -> AsyncIterator[ScriptedRelay]:
    made = ScriptedRelay()
    async with serve(made.handle, "127.0.0.1", 0, max_size=None, close_timeout=1) as server:
        made.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield made
