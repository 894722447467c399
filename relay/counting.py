"""Counts the answers to HTTP requests, by the route's pattern and the status.

Of a replica that stops each answer ends its connection, so that nobody sends the next request there.

Does not know what the handlers do.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.services import services_of

COUNTED = ("/v1/", "/api/")
UNKNOWN = "unknown"
"""The label of all paths that no route has: what strangers ask for must not become labels."""
CLIENT_LEFT = 499
"""Counted when the client has gone before there was an answer; the number that nginx logs then."""


class CountRequests:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = closing(send, services_of(scope).stopping)
        if scope["type"] != "http" or not scope["path"].startswith(COUNTED):
            await self._app(scope, receive, send)
            return
        status = CLIENT_LEFT

        async def note_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception:
            status = 500  # which the server answers, further out
            raise
        finally:
            route = scope.get("route")  # put there by the router
            pattern = route.path if isinstance(route, Route) else UNKNOWN
            services_of(scope).metrics.count_request(pattern, status)


def closing(send: Send, stopping: asyncio.Event) -> Send:
    """As `send`, and the connection ends with an answer that is begun when `stopping` is set."""

    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and stopping.is_set():
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return send_last
