"""uvicorn's HTTP protocol with some changes: `Config(http=HttpProtocol)`.

It lets go of those who do not read (relay/unread.py), and of those whose request line and headers do not end:
uvicorn would keep all of them, whoever sends them.

It refuses by itself, in the API's shape and counted by name, what never becomes a request, or never a whole
one: bytes that are no HTTP, as where a body is longer than its Content-Length, and a body that ends early
while its sender still listens. uvicorn says the first in plain text, even in the middle of an answer, and of
the second nothing.

Does not know what is served.
"""

from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.http import error_response
from relay.services import services_of
from relay.unread import Unread
from schema.errors import CorollaError, InvalidRequest, TooLarge

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers, beside what comes at once."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. Belongs to the event loop's thread, as in uvicorn."""

    _unread: Unread | None = None

    _is_in_head = False
    """Whether a request's line or headers have begun to come, and not ended."""
    _head_bytes = 0
    """That have come of them, without their first piece: it may hold the end of a body too."""

    # ---- heads without end --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                TooLarge(
                    f"a request's line and headers may have {MAX_HEAD_BYTES} bytes: send what is long in the "
                    "body"
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    # ---- what is no request -------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            InvalidRequest(
                "these bytes are no HTTP/1.1 request; where they follow a request's body, "
                "its Content-Length says too little"
            )
        )

    def eof_received(self) -> None:
        request = self._unanswered
        if request is not None and request.more_body:
            self._refuse(InvalidRequest("the request ended before its body was whole: send it again"))

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        """The request that has come last, if all of its answer was not sent yet."""
        cycle = cast(RequestResponseCycle | None, self.cycle)  # uvicorn has none before the first one
        return None if cycle is None or cycle.response_complete else cycle

    def _refuse(self, error: CorollaError) -> None:
        """Answer in place of the application, unless that has begun to; then end the connection."""
        services_of({"state": self.app_state}).metrics.refuse(error.code)
        request = self._unanswered
        if not self.pipeline and (request is None or not request.response_started):
            self.transport.write(_answer(error))
        if request is not None:  # whoever serves it sees that there is nobody any more
            request.disconnected = True
            request.message_event.set()
        self.transport.close()

    # ---- letting go ---------------------------------------------------------------------------

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.parser = None  # it refers to this, which only a look through all objects would find

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or Unread(self.transport)
        self._unread.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unread is not None:
            self._unread.end()
        super().connection_lost(exc)


def _answer(error: CorollaError) -> bytes:
    """A whole answer as it is sent, the connection's last one."""
    response = error_response(error)
    status = HTTPStatus(response.status_code)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b": ".join(one) for one in headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
