"""REST: OpenAI-compatible completions under `/v1`, the swarm under `/api`, and health.

Handlers parse, call and encode; how a reply is made is in relay/replies.py and on the heads.
A reply's failure before its first token is an HTTP status; after it, an error event that ends the
stream without `[DONE]`, so that no client takes a broken reply for a finished one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay import rendering
from relay.http import bearer_token, error_response, json_response, named_error, parse_body
from relay.replies import Reply, ReplyEvent
from relay.reports import NO_VOLUNTEER, report
from relay.services import Services, services_of
from relay.sessions import require_page_access
from schema.api import (
    ChatCompletionRequest,
    CompletionRequest,
    ModelEntry,
    ModelList,
    error_body,
)
from schema.errors import CorollaError, Forbidden, NotFound, Unauthorized
from schema.ids import PeerId, is_peer_id
from schema.messages import Delta

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # keeps proxies from collecting the stream
]


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    asker = await _require_client(request)
    body = await parse_body(request, ChatCompletionRequest)
    reply = services_of(request.scope).replies.start(body.to_generation(), asker)
    return _respond(request, body, reply, rendering.ChatRendering(body.model, reply.request))


async def completions(request: Request) -> Response:
    """`POST /v1/completions`."""
    asker = await _require_client(request)
    body = await parse_body(request, CompletionRequest)
    reply = services_of(request.scope).replies.start(body.to_generation(), asker)
    return _respond(request, body, reply, rendering.TextRendering(body.model, reply.request))


async def models(request: Request) -> Response:
    """`GET /v1/models`: the models that would answer now."""
    await _require_client(request)
    services = services_of(request.scope)
    status = services.swarm.status()
    entries = [ModelEntry(id=model.id, created=services.started) for model in status.models if model.complete]
    return json_response(ModelList(data=entries))


async def swarm(request: Request) -> Response:
    """`GET /api/swarm`: for everyone who may chat, by token or page."""
    await _require_viewer(request)
    return json_response(services_of(request.scope).swarm.status())


async def volunteer(request: Request) -> Response:
    """`GET /api/volunteers/{id}`: a volunteer's score, and why; for everyone who may see the swarm."""
    await _require_viewer(request)
    services = services_of(request.scope)
    peer = PeerId(request.path_params["id"])
    if not is_peer_id(peer):
        raise NotFound(NO_VOLUNTEER.format(peer))
    now = time.time()
    evidence = await services.standings.evidence(peer, now)
    here = services.swarm.volunteer_status(peer)
    if here is None and not evidence:
        raise NotFound(NO_VOLUNTEER.format(peer))
    return json_response(report(peer, evidence, now, here))


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return Response("ok\n", media_type="text/plain")


async def readyz(request: Request) -> Response:
    """`GET /readyz`: the database answers too; 503 otherwise."""
    await services_of(request.scope).store.ping()
    return Response("ready\n", media_type="text/plain")


async def metrics(request: Request) -> Response:
    """`GET /metrics`, for Prometheus."""
    services = services_of(request.scope)
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4")


async def on_error(request: Request, error: Exception) -> Response:
    """Every named error of a handler, in the API's shape; any other is a mistake here, which uvicorn logs."""
    named = error if isinstance(error, CorollaError) else CorollaError("the relay made a mistake here")
    services_of(request.scope).metrics.refuse(named.code)
    return error_response(named)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself, in the API's shape, with the status and headers that it chose."""
    if not isinstance(error, HTTPException):
        return await on_error(request, error)
    named = named_error(error, request.url.path)
    services_of(request.scope).metrics.refuse(named.code)
    return json_response(error_body(named), error.status_code, error.headers)


async def _require_viewer(request: Request) -> None:
    try:
        await _require_client(request)
    except Unauthorized:
        await require_page_access(request)


async def _require_client(request: Request) -> str:
    """The token's id."""
    token = await services_of(request.scope).store.authenticate(bearer_token(request.scope))
    if token.kind != "client":
        raise Forbidden("this is a volunteer's token; the API needs a client's token")
    return token.id


def _respond(
    request: Request,
    body: ChatCompletionRequest | CompletionRequest,
    reply: Reply,
    rendering_of: rendering.Rendering,
) -> Response:
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    return ReplyResponse(services_of(request.scope), reply, rendering_of, bool(body.stream), include_usage)


class ReplyResponse(Response):
    """Sends a reply, whole or as server-sent events; cancels it when the client goes away."""

    def __init__(
        self,
        services: Services,
        reply: Reply,
        rendering_of: rendering.Rendering,
        stream: bool,
        include_usage: bool,
    ) -> None:
        super().__init__()
        self._services = services
        self._reply = reply
        self._rendering = rendering_of
        self._stream = stream
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._reply:
            work = (
                self._send_stream(scope, receive, send)
                if self._stream
                else self._send_whole(scope, receive, send)
            )
            await _unless_disconnected(receive, work)

    def _events(self) -> AsyncIterator[ReplyEvent]:
        return self._reply.events(self._services.settings.request_seconds)

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts: list[str] = []
        try:
            async for event in self._events():
                if isinstance(event, Delta):
                    texts.append(event.text)
                else:
                    await json_response(self._rendering.whole("".join(texts), event))(scope, receive, send)
        except CorollaError as error:
            self._services.metrics.refuse(error.code)
            await error_response(error)(scope, receive, send)

    async def _send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async for event in self._events():
                chunks = self._rendering.chunks(event, self._include_usage)
                if not started:
                    chunks = [*self._rendering.opening(), *chunks]
                    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
                    started = True
                await _send_events(send, chunks)
        except CorollaError as error:
            self._services.metrics.refuse(error.code)
            if not started:
                await error_response(error)(scope, receive, send)
                return
            await _send_events(send, [error_body(error)])
        else:
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_events(send: Send, chunks: list[msgspec.Struct]) -> None:
    data = b"".join(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks)
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until the client has gone away."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watching = asyncio.create_task(disconnected())
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(watching, working, return_exceptions=True)
    if not working.cancelled():
        with suppress(OSError):  # the client left while it was being written to
            working.result()
