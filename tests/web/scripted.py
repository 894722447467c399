"""The relay's end of a page's WebSocket, spoken by a test: for replies that no model gives on demand.

The page itself comes from a real relay, with its real headers.
"""

import asyncio

import msgspec
from playwright.async_api import Page, WebSocketRoute

from schema.browser import (
    Chat,
    FromPage,
    PageWelcome,
    ReplyDelta,
    ReplyDone,
    Resume,
    Stop,
    SwarmChanged,
    ToPage,
    decode_from_page,
    encode_to_page,
)
from schema.generation import HopTiming, Timing, Usage
from schema.swarm import MissingBlocks, ModelStatus, SwarmStatus, VolunteerStatus
from tests.web.page_objects import ChatPage

WAIT_SECONDS = 10.0
MODEL = "petal-12b"


def volunteer(name: str, start: int, end: int, **changes: object) -> VolunteerStatus:
    status = VolunteerStatus(
        id=f"{name}-id", name=name, state="serving", device="CPU", model=MODEL, start=start, end=end
    )
    return msgspec.structs.replace(status, **changes)


def complete_swarm(*names: str, others: list[ModelStatus] | None = None) -> SwarmStatus:
    """A model of 12 blocks, shared evenly by volunteers of these names."""
    names = names or ("rosa", "iris", "linden")
    size = 12 // len(names)
    holders = [volunteer(name, size * i, size * (i + 1), head=i == 0) for i, name in enumerate(names)]
    model = ModelStatus(id=MODEL, blocks=12, context=1024, complete=True, heads=1)
    return SwarmStatus(models=[model, *(others or [])], volunteers=holders)


def incomplete_swarm(*coming: VolunteerStatus) -> SwarmStatus:
    """The same without anybody who serves blocks 4 to 7."""
    model = ModelStatus(id=MODEL, blocks=12, context=1024, missing=[MissingBlocks(4, 8)], heads=1)
    holders = [volunteer("rosa", 0, 4, head=True), *coming, volunteer("linden", 8, 12)]
    return SwarmStatus(models=[model], volunteers=holders)


class ScriptedRelay:
    """Greets every connection of `page`, which `url` serves, with the swarm; keeps what the page sends."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.swarm = complete_swarm()
        self._sockets: list[WebSocketRoute] = []
        self._received: asyncio.Queue[FromPage] = asyncio.Queue()

    async def open(self, swarm: SwarmStatus | None = None) -> ChatPage:
        """Load the page with this at the other end of its WebSocket."""
        self.swarm = swarm or self.swarm
        await self.page.route_web_socket("**/ws/chat", self._accept)
        await self.page.goto(self.url)
        return ChatPage(self.page)

    async def second_tab(self) -> "ScriptedRelay":
        """Another tab of the same browser, with a relay's end of its own."""
        return ScriptedRelay(await self.page.context.new_page(), self.url)

    def _accept(self, socket: WebSocketRoute) -> None:
        self._sockets.append(socket)
        socket.on_message(lambda text: self._received.put_nowait(decode_from_page(text)))
        self.send(PageWelcome(software="test", swarm=self.swarm))

    def send(self, message: ToPage) -> None:
        self._sockets[-1].send(encode_to_page(message))

    def change_swarm(self, swarm: SwarmStatus) -> None:
        self.swarm = swarm
        self.send(SwarmChanged(swarm=swarm))

    async def drop(self) -> None:
        """Break the page's connection."""
        await self._sockets[-1].close(code=1012)

    async def next_chat(self) -> Chat:
        message = await asyncio.wait_for(self._received.get(), WAIT_SECONDS)
        assert isinstance(message, Chat), message
        return message

    async def next_resume(self) -> Resume:
        message = await asyncio.wait_for(self._received.get(), WAIT_SECONDS)
        assert isinstance(message, Resume), message
        return message

    async def next_stop(self) -> Stop:
        message = await asyncio.wait_for(self._received.get(), WAIT_SECONDS)
        assert isinstance(message, Stop), message
        return message

    def say(self, reply: str, *pieces: str) -> None:
        """More text of a reply."""
        for piece in pieces:
            self.send(ReplyDelta(id=reply, text=piece))

    def finish(self, reply: str, *pieces: str) -> None:
        """The last of a reply's text, and its figures."""
        self.say(reply, *pieces)
        route = [HopTiming("rosa", 0, 4), HopTiming("iris", 4, 8), HopTiming("linden", 8, 12)]
        timing = Timing(first_token=0.25, total=2.25, route=route)
        self.send(ReplyDone(id=reply, reason="stop", usage=Usage(5, 41, 46), timing=timing))
