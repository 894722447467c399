"""The chat page's WebSocket, `/ws/chat`.

Passes on any number of replies to one page and pushes the swarm when it changes. Replies outlive the socket
(relay/kept_replies.py). Does not know frames, routes or how a reply is made.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from starlette.types import Receive, Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay.choices import Choices
from relay.http import count_server_refusal, deny_upgrade
from relay.kept_replies import KeptReply, ReplyKey
from relay.peer import Send
from relay.reply import ReplyEvent
from relay.services import Services, services_of
from relay.sessions import require_page_access
from relay.usage import ANONYMOUS
from schema import browser
from schema.errors import CorollaError, InvalidRequest, MalformedMessage
from schema.generation import GenerationRequest
from schema.messages import ErrorInfo

PUSH_SECONDS = 0.25
"""At most one picture of the swarm in this time, however much changes."""
PUSHED_VOLUNTEERS = 250
"""Of more volunteers there are fewer pictures."""
HEARTBEAT_SECONDS = 10.0
"""Between heartbeats to a page."""
MAX_REPLIES_PER_PAGE = 8
GOODBYE_SECONDS = 2.0
"""How long a page may take to accept the reason why it is closed."""

log = logging.getLogger(__name__)


class PageGone(Exception):
    """The socket is closed: there is nobody to tell anything."""


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
    owner = None if token_id is None else await services.allowances.owner_of(token_id)
    try:
        with services.open_pages.place(owner, socket.client.host if socket.client else ""):
            await _serve(services, page)
    except CorollaError as error:
        # There are too many. Said here, as browsers show a page nothing of an upgrade that is refused.
        await page.close(error)


async def _serve(services: Services, page: "_PageSession") -> None:
    services.metrics.connections["page"] += 1
    services.hub.add_page(page)
    try:
        await page.run()
    finally:
        services.hub.remove_page(page)
        services.metrics.connections["page"] -= 1


class _PageSession:
    """One page. Belongs to the connection's task; reading, pushing and listening to each reply are tasks of
    their own."""

    def __init__(self, services: Services, socket: WebSocket, token_id: str | None) -> None:
        self.token_id = token_id
        self._self = ANONYMOUS + secrets.token_hex(8)
        """The name of this very connection."""
        self._services = services
        self._kept = services.kept_replies
        self._socket = socket
        self._listening: dict[str, asyncio.Task[None]] = {}
        """To replies, by their ids."""
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
            self._send_heartbeats(),
            self._ended.wait(),
        ]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks += self._listening.values()
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, PageGone):
                    log.error("a page's task failed", exc_info=result)
        if self._ending is not None:
            await self.close(self._ending)

    async def _read(self) -> None:
        status = self._services.swarm.status()
        await self._say(
            browser.PageWelcome(
                software=self._services.software, swarm=status, heartbeat_seconds=HEARTBEAT_SECONDS
            )
        )
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
        key = self._key(message.id)
        if isinstance(message, browser.Stop):
            await self._kept.stop(key)
        elif message.id in self._listening:
            raise InvalidRequest("this page waits for a reply with this id already: choose another")
        elif len(self._listening) >= MAX_REPLIES_PER_PAGE:
            too_many = InvalidRequest(f"a page may wait for {MAX_REPLIES_PER_PAGE} replies at once")
            await self._refuse(too_many, message.id)
        elif isinstance(message, browser.Chat):
            self._listen(self._kept.begin(key, self._events(message)))
        else:
            try:
                self._listen(self._kept.find(key, message.received), message.received)
            except CorollaError as error:
                await self._refuse(error, message.id)

    def _key(self, reply: str) -> ReplyKey:
        """Of this page's token; where nobody signs in, of whoever knows the id. One that could be guessed is
        of this connection alone."""
        if len(reply) < browser.RESUMABLE_ID_CHARS:
            return ReplyKey(self._self, reply, can_come_back=False)
        return ReplyKey(self.token_id or "", reply, can_come_back=True)

    def _listen(self, reply: KeptReply, received: int = 0) -> None:
        task = asyncio.create_task(self._pass_on(reply, received))
        self._listening[reply.key.id] = task
        task.add_done_callback(lambda _: self._listening.pop(reply.key.id))

    async def _pass_on(self, reply: KeptReply, received: int) -> None:
        with suppress(PageGone):
            async with aclosing(self._kept.listen(reply, received)) as messages:
                async for message in messages:
                    await self._say(message)

    async def _events(self, chat: browser.Chat) -> AsyncGenerator[ReplyEvent, None]:
        body = GenerationRequest(
            model=chat.model,
            messages=chat.messages,
            sampling=chat.sampling,
            stopping=chat.stopping,
            continues=chat.continues,
        )
        # Where nobody signs in, each page is somebody.
        asker = self.token_id or self._self
        async with Choices(self._services, [body], asker, tells_repairs=True) as choices:
            async for _, event in choices.events():
                yield event

    async def _push_swarm(self, seen: int) -> None:
        swarm = self._services.swarm
        while True:
            await swarm.wait_for_change(seen)
            # Gathers what changes together. A picture of thousands takes tens of milliseconds to paint.
            await asyncio.sleep(PUSH_SECONDS * max(1.0, len(swarm) / PUSHED_VOLUNTEERS))
            seen = swarm.version
            await self._send(self._services.pictures.newest())

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._say(browser.PageHeartbeat())

    async def _tell_elsewhere(self) -> None:
        await self._elsewhere.wait()
        await self._say(browser.GoElsewhere(within_seconds=self._within_seconds))
        await self._ended.wait()

    async def _refuse(self, error: CorollaError, reply: str | None = None) -> None:
        self._services.metrics.refuse(error.code)
        await self._say(browser.PageError(id=reply, error=ErrorInfo.of(error)))

    async def close(self, error: CorollaError) -> None:
        """Say why, and close the connection."""
        with suppress(PageGone, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._refuse(error)
                with suppress(WebSocketDisconnect, RuntimeError, OSError):
                    await self._socket.close(error.close_code, error.code)

    async def _say(self, message: browser.ToPage) -> None:
        await self._send(browser.encode_to_page(message))

    async def _send(self, message: str) -> None:
        try:
            await self._socket.send_text(message)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:  # what a closed socket raises
            raise PageGone from error
