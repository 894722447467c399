"""The page and its WebSocket, `/ws/chat`.

Serves the static files of `web/` under a strict Content-Security-Policy; over the socket, runs any
number of replies for one page and pushes the swarm when it changes.
Does not know frames, routes or how a reply is made.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay.http import count_server_refusal, deny_upgrade
from relay.peer import Send
from relay.services import Services, services_of
from relay.sessions import require_page_access
from schema import browser
from schema.errors import CorollaError, InvalidRequest, MalformedMessage
from schema.generation import GenerationRequest
from schema.messages import Delta, ErrorInfo

WEB = Path(__file__).resolve().parent.parent / "web"
PUSH_SECONDS = 0.25
"""At most one picture of the swarm in this time, however much changes."""
PUSHED_VOLUNTEERS = 250
"""Of more volunteers there are fewer pictures."""
MAX_REPLIES_PER_PAGE = 8
GOODBYE_SECONDS = 2.0
"""How long a page may take to accept the reason why it is closed."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

log = logging.getLogger(__name__)


class PageGone(Exception):
    """The socket is closed: there is nobody to tell anything."""


async def index(request: Request) -> Response:
    return FileResponse(WEB / "index.html", headers=SECURITY_HEADERS | {"Cache-Control": "no-cache"})


class WebFiles(StaticFiles):
    """The files of `web/`, revalidated at every load so that a new release is seen at once."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        response.headers.update(SECURITY_HEADERS | {"Cache-Control": "no-cache"})
        return response


async def page_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application behind `/ws/chat`."""
    services = services_of(scope)
    socket = WebSocket(scope, receive, send)
    try:
        token_id = await require_page_access(socket)
    except CorollaError as error:
        services.metrics.refuse(error.code)
        await deny_upgrade(receive, send, error)
        return
    await socket.accept()
    page = _PageSession(services, socket, token_id)
    services.metrics.connections["page"] += 1
    services.hub.add_page(page)
    try:
        await page.run()
    finally:
        services.hub.remove_page(page)
        services.metrics.connections["page"] -= 1


class _PageSession:
    """One page. Belongs to the connection's task; reading, pushing and each reply are tasks of their own."""

    def __init__(self, services: Services, socket: WebSocket, token_id: str | None) -> None:
        self.token_id = token_id
        self._asker = token_id or secrets.token_hex(8)  # where nobody signs in, each page is somebody
        self._services = services
        self._socket = socket
        self._replies: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        self._ending: CorollaError | None = None
        self._elsewhere = asyncio.Event()
        self._within_seconds = 0.0

    def send_elsewhere(self, within_seconds: float) -> None:
        self._within_seconds = within_seconds
        self._elsewhere.set()

    def end(self, error: CorollaError) -> None:
        """Close the page's connection, saying why."""
        if self._ending is None:
            self._ending = error
            self._ended.set()

    async def run(self) -> None:
        """Serve the page until either side is done."""
        work: list[Coroutine[Any, Any, object]] = [
            self._read(),
            self._push_swarm(self._services.swarm.version),
            self._tell_elsewhere(),
            self._ended.wait(),
        ]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks += self._replies.values()
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, PageGone):
                    log.error("a page's task failed", exc_info=result)
        if self._ending is not None:
            await self._close(self._ending)

    async def _read(self) -> None:
        status = self._services.swarm.status()
        await self._say(browser.PageWelcome(software=self._services.software, swarm=status))
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                count_server_refusal(event, self._services.metrics)
                return
            try:
                await self._take(event.get("text"))
            except CorollaError as error:
                await self._refuse(error)

    async def _take(self, text: str | None) -> None:
        if text is None:
            raise MalformedMessage("a page sends text messages only")
        message = browser.decode_from_page(text)
        if isinstance(message, browser.Stop):
            await self._stop(message.id)
        elif message.id in self._replies:
            raise InvalidRequest("this page waits for a reply with this id already: choose another")
        elif len(self._replies) >= MAX_REPLIES_PER_PAGE:
            too_many = InvalidRequest(f"a page may wait for {MAX_REPLIES_PER_PAGE} replies at once")
            await self._refuse(too_many, message.id)
        else:
            task = asyncio.create_task(self._reply(message))
            self._replies[message.id] = task
            task.add_done_callback(lambda _: self._replies.pop(message.id, None))

    async def _stop(self, reply: str) -> None:
        """Cancel a reply, and tell the page that this was its end, unless it had one already."""
        task = self._replies.get(reply)
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            await self._say(browser.ReplyDone(id=reply, reason=None))

    async def _reply(self, chat: browser.Chat) -> None:
        try:
            await self._write_reply(chat)
        except PageGone:
            return
        except CorollaError as error:
            failure = error
        except Exception:
            log.exception("a reply could not be written")
            failure = CorollaError("the relay made a mistake here")
        else:
            return
        with suppress(PageGone):
            await self._refuse(failure, chat.id)

    async def _write_reply(self, chat: browser.Chat) -> None:
        body = GenerationRequest(
            model=chat.model, messages=chat.messages, sampling=chat.sampling, stopping=chat.stopping
        )
        async with self._services.replies.start(body, self._asker) as reply:
            async for event in reply.events(self._services.settings.request_seconds):
                if isinstance(event, Delta):
                    await self._say(browser.ReplyDelta(id=chat.id, text=event.text))
                else:
                    done = browser.ReplyDone(
                        id=chat.id, reason=event.reason, usage=event.usage, timing=event.timing
                    )
                    await self._say(done)

    async def _push_swarm(self, seen: int) -> None:
        swarm = self._services.swarm
        while True:
            await swarm.wait_for_change(seen)
            # Gathers what changes together. A picture of thousands takes tens of milliseconds to paint.
            await asyncio.sleep(PUSH_SECONDS * max(1.0, len(swarm) / PUSHED_VOLUNTEERS))
            seen = swarm.version
            await self._say(browser.SwarmChanged(swarm=swarm.status()))

    async def _tell_elsewhere(self) -> None:
        await self._elsewhere.wait()
        await self._say(browser.GoElsewhere(within_seconds=self._within_seconds))
        await self._ended.wait()

    async def _refuse(self, error: CorollaError, reply: str | None = None) -> None:
        self._services.metrics.refuse(error.code)
        await self._say(browser.PageError(id=reply, error=ErrorInfo.of(error)))

    async def _close(self, error: CorollaError) -> None:
        with suppress(PageGone, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._refuse(error)
                with suppress(WebSocketDisconnect, RuntimeError, OSError):
                    await self._socket.close(error.close_code, error.code)

    async def _say(self, message: browser.ToPage) -> None:
        try:
            await self._socket.send_text(browser.encode_to_page(message))
        except (WebSocketDisconnect, RuntimeError, OSError) as error:  # what a closed socket raises
            raise PageGone from error
