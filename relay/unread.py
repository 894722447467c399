"""Lets go of those who do not read what they have asked for: a stream, an answer, a file, a page's messages.

A handler that sends waits until the socket takes more, and there is no limit to that: somebody who stops
reading, but stays, would keep the handler and all that it holds. To the handler a connection that is let go
of here is one whose other side has left. Whoever reads, however slowly, is waited for.

Does not know what is served.
"""

import asyncio
from collections.abc import Callable

UNREAD_SECONDS = 30.0
"""How long somebody may read nothing at all of what waits for them."""


class Unread:
    """Watches one connection while its socket takes no more. Belongs to the event loop's thread."""

    def __init__(self, transport: asyncio.Transport, is_watched: Callable[[], bool] = lambda: True) -> None:
        """`is_watched`: whether nobody else sees to it that the other side reads."""
        self._transport = transport
        self._is_watched = is_watched
        self._waiting = 0
        """Bytes that waited at the last look."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The socket takes no more."""
        self.end()
        self._look_later(self._transport.get_write_buffer_size())

    def end(self) -> None:
        """It takes more again, or is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self, waiting: int) -> None:
        self._waiting = waiting
        self._timer = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._look)

    def _look(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            self._timer = None
        elif waiting < self._waiting or not self._is_watched():
            self._look_later(waiting)
        else:
            self._timer = None
            self._transport.abort()
