"""uvicorn's WebSocket protocol with some changes: `Config(ws=WebSocketProtocol)`.

It lets go of those who do not read. uvicorn ends a connection by closing its transport, which first sends
all that was written. To a peer that does not read, that is for ever: its socket stays, and the memory of
what was written to it. One that stays open and is not read is ended, too (relay/unread.py), unless it has
the short way: its owner sees to that. And uvicorn's own shutdown fails at such a connection, before it has
told the application. Of an upgrade that is refused it logs an error, though nothing is wrong.

It has a short way for frames. ASGI passes each message through a queue and two tasks, and pauses the socket
meanwhile; for an application that never waits with a frame, that is most of a frame's cost. Such an
application finds a `FrameSocket` in `scope["extensions"][FRAME_SOCKET]`.

It leaves nothing for the garbage collector: what a connection that has ended refers to does not refer to it.
With thousands of connections a look through all objects takes a second (relay/garbage.py).

Does not know what is served.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from relay.unread import Unread
from relay.whole_messages import whole_message
from schema.whole_messages import WHOLE_BINARY, WHOLE_TEXT, awaits_message, message_head

FULL_READ_BYTES = 128 << 10
"""A read of this many bytes is all of one peer that is handled before others have their turn."""
SHORT_TEXTS = 256
"""Of one read, that are offered: those of a step of as many replies. Whoever sends more has to wait."""
WAITING_TEXTS = 16
"""Texts that may wait for a handler before the socket is paused, and frames with it."""
LINGER_SECONDS = 5.0
"""How long what was written may take to be read after a connection has ended."""
FRAME_SOCKET = "corolla.frames"
"""The name of the short way among a scope's extensions."""

OnFrame = Callable[[bytes], None]
OnText = Callable[[bytes], bool]
"""Whether it has handled a text, which is in UTF-8 if it is what it should be."""
OnRoundTrip = Callable[[float], None]
"""Is told how many seconds a ping and its answer took."""


class FrameSocket(Protocol):
    """A WebSocket's binary messages without ASGI's queue. Text messages stay ASGI's, but for those wanted."""

    @property
    def is_shut_down(self) -> bool:
        """Whether the server ends the connection because it stops."""
        ...

    def deliver_frames_to(self, on_frame: OnFrame | None) -> None:
        """Call `on_frame`, which may not raise, for each message as it arrives. None: the queue again.

        A frame may overtake texts that wait in the queue: no frame depends on a text that nobody answered.
        """
        ...

    def offer_texts_to(self, on_text: OnText | None) -> None:
        """Ask `on_text`, which may not raise, first about each text that no other text waits before."""
        ...

    def write_message(self, message: str | bytes) -> bool:
        """Send a message now; False, and nothing sent, while the socket takes no more."""
        ...

    def ping(self, on_round_trip: OnRoundTrip) -> None:
        """Measure the way there and back; nothing comes of it while the socket takes no more."""
        ...


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. Belongs to the event loop's thread, as in uvicorn."""

    _abort_timer: asyncio.TimerHandle | None = None
    _unread: Unread | None = None
    _on_frame: OnFrame | None = None
    _on_text: OnText | None = None
    _texts_taken = 0
    """Of the read that is being handled."""
    is_shut_down = False
    _on_round_trip: OnRoundTrip | None = None

    # ---- the short way (`FrameSocket`) --------------------------------------------------------

    def deliver_frames_to(self, on_frame: OnFrame | None) -> None:
        self._on_frame = on_frame

    def offer_texts_to(self, on_text: OnText | None) -> None:
        self._on_text = on_text

    def write_message(self, message: str | bytes) -> bool:
        if not self.writable.is_set() or self.close_sent or self.disconnected or self.transport.is_closing():
            return False
        if isinstance(message, str):
            payload, first_byte = message.encode(), WHOLE_TEXT
        else:
            payload, first_byte = message, WHOLE_BINARY
        self.transport.writelines((message_head(first_byte, len(payload)), payload))
        return True

    def ping(self, on_round_trip: OnRoundTrip) -> None:
        if not self.writable.is_set() or self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self._on_round_trip = on_round_trip
        self.pending_ping_payload = secrets.token_bytes(4)  # one that nobody can answer before it is there
        self.ping_sent_at = self.loop.time()
        self.conn.send_ping(self.pending_ping_payload)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def handle_pong(self, event: Frame) -> None:
        is_waited_for = self.pending_ping_payload is not None
        super().handle_pong(event)
        if is_waited_for and self.pending_ping_payload is None and self._on_round_trip is not None:
            self._on_round_trip(self.last_ping_rtt)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        del self.request  # the scope holds what is needed of it, and there may be thousands
        if self.response.status_code == 101:
            extensions = cast(dict[str, object], self.scope.setdefault("extensions", {}))
            extensions[FRAME_SOCKET] = self

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # An upgrade that was refused is answered; uvicorn would log that the application forgot to.
            self.handshake_complete = self.handshake_complete or self.close_sent

    def data_received(self, data: bytes) -> None:
        self._texts_taken = 0
        if not self._takes_all(data):
            super().data_received(data)
        # libuv would go on reading as long as more is there, however much, and nobody else would be heard.
        if self._on_frame is not None and len(data) >= FULL_READ_BYTES and not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _takes_all(self, data: bytes) -> bool:
        """Whether what was read was one message, which is handled already."""
        if not self._is_between_messages() or len(data) > self.config.ws_max_size:
            return False
        message = whole_message(data)
        if message is None:
            return False
        kind, payload = message
        if kind == WHOLE_TEXT:
            return self._takes(payload)
        if self._on_frame is not None:
            self._on_frame(payload)
        return True

    def _is_between_messages(self) -> bool:
        """Whether the library's parser waits for a message to begin, and messages have the short way."""
        connection = self.conn
        return (
            self._on_frame is not None
            and not self.close_sent
            and connection.state is State.OPEN
            and connection.current_size is None
            and awaits_message(connection.parser)
        )

    def _read_on(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        on_frame = self._on_frame
        if on_frame is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        if self.curr_msg_data_type == "text":
            if len(self.frames) == 1 and self._takes(self.frames[0]):
                self.frames = []
                return
            super().send_receive_event_to_app()
            if self.read_paused and self.queue.qsize() <= WAITING_TEXTS and not self.transport.is_closing():
                self.read_paused = False
                self.transport.resume_reading()
            return
        frame = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        on_frame(frame)

    def _takes(self, text: bytes) -> bool:
        """Whether the text that has come is handled already."""
        on_text = self._on_text
        if on_text is None or self._texts_taken >= SHORT_TEXTS:
            return False
        if not self.queue.empty() or not on_text(text):
            return False
        self._texts_taken += 1
        return True

    # ---- letting go ---------------------------------------------------------------------------

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        self.scope.get("extensions", {}).pop(FRAME_SOCKET, None)  # by which the scope refers to itself

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or Unread(self.transport, lambda: self._on_frame is None)
        self._unread.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._unread is not None:
            self._unread.end()
        self._refer_to_nothing()
        super().connection_lost(exc)

    def _refer_to_nothing(self) -> None:
        """That refers to this in turn."""
        self._on_round_trip = self._on_frame = self._on_text = self._unread = None
        self.conn.parser.close()  # it waits in the middle of what it reads, and holds its connection
        self.conn.parser_exc = self.conn.handshake_exc = None

    def shutdown(self) -> None:
        self.is_shut_down = True
        if self.transport.is_closing():
            self.transport.abort()
        else:
            super().shutdown()
