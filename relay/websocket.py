"""uvicorn's WebSocket protocol, made to let go of those who do not read: `Config(ws=WebSocketProtocol)`.

uvicorn ends a connection by closing its transport, which first sends all that was written. To a peer
that does not read, that is for ever: its socket stays, and the memory of what was written to it. And
uvicorn's own shutdown fails at such a connection, before it has told the application.
Does not know what is served.
"""

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_SECONDS = 5.0
"""How long what was written may take to be read after a connection has ended."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """As uvicorn's; what is not sent some time after the end is thrown away with the connection."""

    _abort_timer: asyncio.TimerHandle | None = None

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        else:
            super().shutdown()
