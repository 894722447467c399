"""Answers that take long: sent whole or as server-sent events, and given up when the client goes away.

A failure before the first token is an HTTP status; after it, an event that ends the stream without its
usual end, so that no client takes a broken reply for a finished one. Does not know what is answered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.admission import Verdict
from relay.answering import Question, asking, put_together
from relay.choices import Choices
from relay.http import disconnected, error_response, json_response, queue_headers
from relay.rendering.base import encode_events
from relay.services import Services
from relay.turns import in_turns
from schema.errors import CorollaError

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # keeps proxies from collecting the stream
]


class WorkResponse(Response):
    """Sends what some work results in, and cancels the work when the client goes away."""

    def __init__(self, services: Services, work: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._services = services
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer() -> None:
            try:
                response = await self._work()
            except CorollaError as error:
                self._services.metrics.refuse(error.code)
                response = error_response(error)
            await response(scope, receive, send)

        await _unless_disconnected(receive, answer())


class AnswerResponse(WorkResponse):
    """Sends the replies of a request, whole or as server-sent events."""

    def __init__(self, services: Services, question: Question, asker: str) -> None:
        super().__init__(services, self._whole)
        self._question = question
        self._asker = asker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._question.stream:
            await super().__call__(scope, receive, send)
            return
        await _unless_disconnected(receive, self._send_stream(scope, receive, send))

    async def _whole(self) -> Response:
        async with self._choices() as choices:
            answer = await put_together(choices, self._question.rendering)
            return json_response(answer, headers=queue_headers(choices.verdict))

    def _choices(self) -> AbstractAsyncContextManager[Choices]:
        return asking(self._services, self._question, self._asker)

    async def _send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        rendering = self._question.rendering
        started = False
        try:
            async with self._choices() as choices:
                async for index, event in choices.events():
                    chunks = rendering.chunks(index, event)
                    if not started:
                        chunks = [*rendering.opening(), *chunks]
                        await send(_start_of_stream(choices.verdict))
                        started = True
                    await _send_each(send, chunks)
        except CorollaError as error:
            self._services.metrics.refuse(error.code)
            if not started:
                await error_response(error)(scope, receive, send)
                return
            await _send_more(send, encode_events([rendering.failure(error)]))
        else:
            await _send_more(send, encode_events(rendering.closing()) + rendering.end)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start_of_stream(verdict: Verdict) -> MutableMapping[str, Any]:
    queue = [(name.lower().encode(), value.encode()) for name, value in queue_headers(verdict).items()]
    return {"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS + queue}


async def _send_each(send: Send, chunks: list[msgspec.Struct]) -> None:
    """One at a time: the last ones of a response say all of it four times, and its reader may be slow."""
    async for chunk in in_turns(chunks):
        await _send_more(send, encode_events([chunk]))


async def _send_more(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until the client has gone away."""

    watching = asyncio.create_task(disconnected(receive))
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
