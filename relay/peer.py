"""One connected peer: its send queue and its send loop.

The queue is bounded in bytes and ordered by urgency: control, decode, prefill. Whoever enqueues
never waits: a full queue is the enqueuer's news, not its fate. The read loop is in relay/sockets.py.
Does not know routes, volunteers or SQL.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from relay.garbage import without_origin
from relay.websocket import FrameSocket
from schema.credentials import TokenKind
from schema.errors import CorollaError, MalformedMessage, Unresponsive
from schema.ids import PeerId
from schema.messages import ErrorInfo, FromRelay, Goodbye, Heartbeat, encode_message
from schema.outbox import Outbox, Urgency
from schema.protocol import RelayConnection

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PING_SECONDS = 20.0
"""How often it is measured, with a heartbeat, how far a peer is."""
ROUND_TRIP_SHARE = 1 / 8
"""Of a new measurement in the smoothed round trip, as TCP does it (RFC 6298)."""
MAX_REASON_CHARS = 2000
"""Of an error's message in a goodbye: some repeat what the other side sent, however long that was."""
_HEARTBEAT = encode_message(Heartbeat())


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection is."""

    id: PeerId
    name: str
    """Public, chosen by itself."""
    token_id: str
    role: TokenKind
    can_move: bool = False
    """Whether it can go on over another connection."""
    hears_operators: bool = False
    """Whether it can be told what operators decide about it."""

    def __post_init__(self) -> None:
        check_printable(self.name)


def check_printable(*texts: str) -> None:
    """Refuse texts for logs, pages and the database that hold control characters.

    Raises:
        MalformedMessage: one of them does.
    """
    for text in texts:
        if not text.isprintable():
            raise MalformedMessage(f"{text!r} holds characters that cannot be shown: leave them out")


class Peer:
    """A volunteer or client on this replica.

    Owned by the task of its connection, which runs `send_loop`; everybody on the loop may enqueue.
    """

    def __init__(self, identity: Identity, connection: RelayConnection, queue_bytes: int, now: float) -> None:
        self.id = identity.id
        self.name = identity.name
        self.token_id = identity.token_id
        self.role = identity.role
        self.can_move = identity.can_move
        self.hears_operators = identity.hears_operators
        self.connection = connection
        self.heard = now
        """Loop time of the last heartbeat or other message; written by the read loop."""
        self.drained = now
        """Loop time at which the send loop last finished a message or was idle."""
        self.greeted = now
        """Loop time of the relay's last heartbeat to it."""
        self._pinged = -math.inf
        """Loop time at which it was measured last how far it is."""
        self.rtt: float | None = None
        """Seconds to it and back, smoothed; None until it was measured. Written by `_note_round_trip`."""
        self._ended: asyncio.Future[None] | None = None
        """Made for whoever waits for the end."""
        self._outbox = Outbox(queue_bytes)
        self._wake = asyncio.Event()
        self._is_idle = False
        """Whether the send loop waits for something to do; written by the send loop."""
        self._frame_socket: FrameSocket | None = None
        self._ending: CorollaError | None = None
        self._finishing: CorollaError | None = None
        """With what to end once nothing waits any more."""

    @property
    def queued_bytes(self) -> int:
        return self._outbox.waiting_bytes

    def use(self, frame_socket: FrameSocket) -> None:
        """Hand messages to this socket as long as nothing waits before them."""
        self._frame_socket = frame_socket

    def greet(self, now: float) -> None:
        """Send it a heartbeat, and now and then measure how far it is. `now`: loop time."""
        self.greeted = now
        self.enqueue(_HEARTBEAT, Urgency.CONTROL)
        if now - self._pinged >= PING_SECONDS:
            self.ping(now)

    def ping(self, now: float) -> None:
        """Measure how far it is. `now`: loop time."""
        self._pinged = now
        if self._frame_socket is not None:
            self._frame_socket.ping(self._note_round_trip)

    def _note_round_trip(self, seconds: float) -> None:
        self.rtt = seconds if self.rtt is None else self.rtt + (seconds - self.rtt) * ROUND_TRIP_SHARE

    def send_message(self, message: FromRelay) -> bool:
        """Queue a control message. False when the queue is full or the peer is going.

        Raises:
            TooLarge: longer than a control message may be.
        """
        return self.enqueue(encode_message(message), Urgency.CONTROL)

    def tell(self, message: FromRelay) -> None:
        """Queue a control message that the peer waits for; one that cannot even take that is ended."""
        if not self.send_message(message):
            self.end(Unresponsive("its queue is full, so that it cannot be told what it waits for"))

    def enqueue(self, message: str | bytes, urgency: Urgency) -> bool:
        """Queue a message; False when it would exceed the queue's bytes or the peer is going."""
        if self._ending is not None or self._finishing is not None:
            return False
        if self._is_idle and self._write_now(message):
            return True
        if not self._outbox.put(message, urgency):
            return False
        self._wake.set()
        return True

    def _write_now(self, message: str | bytes) -> bool:
        """Spare a message the queue and a turn of the send loop, where it overtakes nothing."""
        socket = self._frame_socket
        return socket is not None and not self._outbox.waiting_bytes and socket.write_message(message)

    def end(self, error: CorollaError) -> None:
        """Say goodbye, with the reason, and close: everything else in the queue is dropped."""
        if self._ending is None:
            self._ending = without_origin(error)
            self._wake.set()
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    @property
    def ended(self) -> "asyncio.Future[None]":
        """Done after `end`; the connection's task waits for it."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            if self._ending is not None:
                self._ended.set_result(None)
        return self._ended

    def finish(self, error: CorollaError) -> None:
        """As `end`, but after everything in the queue; nothing more is put there."""
        self._finishing = without_origin(error)
        self._wake.set()

    @property
    def ending(self) -> CorollaError | None:
        """Why the relay has ended this connection; None as long as it has not."""
        return self._ending

    @contextmanager
    def excused(self) -> Generator[None]:
        """While the relay works on the peer's message it reads no other: silence then proves nothing."""
        self.heard = math.inf
        try:
            yield
        finally:
            self.heard = asyncio.get_running_loop().time()

    def is_stuck(self, now: float, patience: float) -> bool:
        """Whether no message could be handed to its socket for `patience` seconds though some wait."""
        return self._outbox.waiting_bytes > 0 and now - self.drained > patience

    async def send_loop(self, send: Send) -> None:
        """Send until `end`; then the goodbye and the close. Raises what the socket raises when it is gone."""
        loop = asyncio.get_running_loop()
        while self._ending is None:
            message = self._outbox.take()
            if message is None and self._finishing is not None:
                self.end(self._finishing)
            elif message is None:
                self._wake.clear()
                self._is_idle = True
                await self._wake.wait()
                self._is_idle = False
                self.drained = loop.time()
            else:
                kind = "text" if isinstance(message, str) else "bytes"
                await send({"type": "websocket.send", kind: message})
                self.drained = loop.time()
        await say_goodbye(send, self._ending)


async def say_goodbye(send: Send, error: CorollaError) -> None:
    """Tell the other side why, and close."""
    info = ErrorInfo(code=error.code, message=error.message[:MAX_REASON_CHARS], retry_after=error.retry_after)
    await send({"type": "websocket.send", "text": encode_message(Goodbye(error=info))})
    await send({"type": "websocket.close", "code": error.close_code, "reason": error.code})
