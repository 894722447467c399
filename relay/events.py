"""`GET /api/events`: the swarm's changes as server-sent events.

A stream lasts until its reader leaves, its token is revoked, or the replica stops; browsers then ask again by
themselves. Does not know what an event says: that is relay/feed.py.
"""

import asyncio
from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.access import require_viewer
from relay.feed import Reader
from relay.http import disconnected, error_response
from relay.services import Services, services_of
from schema.api import error_body
from schema.errors import CorollaError
from schema.overview import SwarmEvent

SILENCE_SECONDS = 15.0
"""After which a comment is sent, so that proxies see that the stream lives."""
GOODBYE_SECONDS = 2.0
"""How long a reader may take to accept the end of its stream."""
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # keeps proxies from collecting the stream
]


async def events(request: Request) -> Response:
    """`GET /api/events`."""
    token_id = await require_viewer(request)
    if request.method == "HEAD":
        return Response(headers={name.decode(): value.decode() for name, value in HEADERS})
    return EventStream(services_of(request.scope), token_id)


class EventStream(Response):
    """One reader's stream. The hub knows it as a page, which is ended when its token is revoked."""

    def __init__(self, services: Services, token_id: str | None) -> None:
        super().__init__()
        self.token_id = token_id
        self._services = services
        self._over = asyncio.Event()
        self._ending: CorollaError | None = None

    def end(self, error: CorollaError) -> None:
        """End the stream, saying why."""
        self._ending = self._ending or error
        self._over.set()

    def send_elsewhere(self, within_seconds: float) -> None:
        self._over.set()  # whoever reads asks again, and comes to another replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub, metrics = self._services.hub, self._services.metrics
        try:
            with self._services.feed.reader(self.token_id) as reader:
                hub.add_page(self)
                try:
                    await self._stream(reader, receive, send)
                finally:
                    hub.remove_page(self)
        except CorollaError as error:  # there are too many readers
            metrics.refuse(error.code)
            await error_response(error)(scope, receive, send)

    async def _stream(self, reader: Reader, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        work = (
            self._write(reader, send),
            disconnected(receive),
            self._over.wait(),
            self._services.stopping.wait(),
        )
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(OSError):  # the reader has left, or does not read (`TimeoutError`)
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._say_goodbye(send)

    async def _say_goodbye(self, send: Send) -> None:
        if self._ending is not None:
            self._services.metrics.refuse(self._ending.code)
            said = b"event: error\ndata: " + msgspec.json.encode(error_body(self._ending)) + b"\n\n"
            await send({"type": "http.response.body", "body": said, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, reader: Reader, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    data = b"".join(map(_line, await reader.take()))
            except TimeoutError:
                data = b": the swarm is as it was\n\n"
            await send({"type": "http.response.body", "body": data, "more_body": True})


def _line(event: SwarmEvent) -> bytes:
    return f"event: {event.type}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"
