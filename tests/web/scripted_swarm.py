"""The relay's `/api` played by a test: a swarm of any size, its stream, its history, and what refuses.

The pages come from a real relay, with its real headers; what they ask of `/api` and `/v1` is asked here.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import uvicorn
from playwright.async_api import Page
from playwright.async_api import Route as Intercepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from schema.overview import SwarmEvent
from schema.swarm import SwarmStatus

Handler = Callable[[Request], Awaitable[Any]]


class ScriptedSwarm:
    """Answers by path. What is not here is 404, as at a relay without that part."""

    def __init__(self, relay: str, url: str) -> None:
        self.relay = relay
        """The real relay's address."""
        self.url = url
        self.answers: dict[tuple[str, str], Any] = {}
        """By method and path, what is answered: JSON, a `Response`, or a `Handler` that makes one."""
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and JSON of what changes something."""
        self.swarm = SwarmStatus(models=[], volunteers=[])
        self.is_away = False
        """Whether streams are refused."""
        self.refused: Response | None = None
        """What all but who sits at the page is answered with."""
        self.is_cut_off = False
        """Whether the page reaches nobody."""
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self.signed_in("client")

    def signed_in(self, kind: str | None, access: str = "signed_in") -> None:
        """Who sits at the page; None: nobody."""
        self.answers["GET", "/api/session"] = {"access": access if kind else "open"}
        self.answers["GET", "/api/tokens/me"] = {
            "id": "0a1b2c3d4e5f", "kind": kind, "name": "Ada", "created_at": 1.8e9, "last_used_at": None
        }  # fmt: skip

    def change(self, swarm: SwarmStatus, *events: SwarmEvent) -> None:
        """What the swarm is now, told as these events."""
        self.swarm = swarm
        for event in events:
            self._tell(event)

    def _tell(self, event: SwarmEvent) -> None:
        for stream in self._streams:
            stream.put_nowait(_line(event))

    def break_streams(self, reason: dict[str, Any] | None = None) -> None:
        """End every stream, and refuse new ones until `is_away` is False."""
        self.is_away = True
        for stream in self._streams:
            if reason is not None:
                stream.put_nowait(f"event: error\ndata: {json.dumps({'error': reason})}\n\n".encode())
            stream.put_nowait(None)

    async def answer(self, request: Request) -> Response:
        path, method = request.url.path, request.method
        if self.refused is not None and path not in ("/api/session", "/api/tokens/me"):
            return self.refused
        if path == "/api/events":
            return self._stream()
        if path == "/api/swarm":
            return Response(msgspec.json.encode(self.swarm), media_type="application/json")
        if method != "GET":
            body = await request.body()
            is_json = request.headers.get("content-type", "").startswith("application/json")
            self.asked.append((method, path, json.loads(body) if body and is_json else None))
        found = self.answers.get((method, path))
        if callable(found) and not isinstance(found, Response):
            found = await cast("Handler", found)(request)
        if isinstance(found, Response):
            return found
        return refusal(404, "not_found", "there is nothing here") if found is None else JSONResponse(found)

    def _stream(self) -> Response:
        if self.is_away:
            return refusal(503, "unavailable", "this relay is about to stop")
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        waiting.put_nowait(_line(SwarmEvent(type="swarm", swarm=self.swarm)))
        self._streams.add(waiting)

        async def told() -> AsyncIterator[bytes]:
            try:
                while (part := await waiting.get()) is not None:
                    yield part
            finally:
                self._streams.discard(waiting)

        return StreamingResponse(told(), media_type="text/event-stream")

    async def open(self, page: Page, path: str) -> None:
        """Load a page of the real relay, with this behind it."""
        await page.route("**/api/**", self._forward)
        await page.route("**/v1/**", self._forward)
        await page.goto(self.relay + path)

    async def _forward(self, route: Intercepted) -> None:
        if self.is_cut_off:
            return await route.abort()
        path = "/" + route.request.url.split("/", 3)[3]
        return await route.continue_(url=self.url + path)


def refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "type": "x", "param": None}}, status)


def _line(event: SwarmEvent) -> bytes:
    return f"event: {event.type}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"


@asynccontextmanager
async def scripted_swarm(relay_url: str) -> AsyncGenerator[ScriptedSwarm]:
    """One on a free port, behind the pages of the relay at `relay_url`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        swarm = ScriptedSwarm(relay_url, f"http://127.0.0.1:{listener.getsockname()[1]}")
        methods = ["GET", "POST", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", swarm.answer, methods=methods)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listener])
        try:
            yield swarm
        finally:
            swarm.break_streams()
            await server.shutdown([listener])
