"""The page's end of `/ws/chat`, spoken by a test."""

import asyncio
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from schema import browser
from schema.generation import Message
from tests.relay.core.peers import MODEL
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import DEADLINE

M = TypeVar("M")
_to_page: msgspec.json.Decoder[browser.ToPage] = msgspec.json.Decoder(browser.ToPage)
QUESTION = [Message("user", "hello")]


class ScriptedPage:
    """The page's end of `/ws/chat`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.socket = connection

    async def say(self, message: browser.FromPage) -> None:
        await self.socket.send(msgspec.json.encode(message).decode())

    async def ask(self, reply: str = "1", **changes: Any) -> None:
        await self.say(
            msgspec.structs.replace(browser.Chat(id=reply, model=MODEL, messages=QUESTION), **changes)
        )

    async def hear_anything(self) -> browser.ToPage:
        """The next message."""
        async with asyncio.timeout(DEADLINE):
            return _to_page.decode(await self.socket.recv())

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this kind; news of the swarm may come in between."""
        while True:
            message = await self.hear_anything()
            if isinstance(message, kind):
                return message
            if not isinstance(message, browser.SwarmChanged):
                raise AssertionError(f"{kind.__name__} was due, not {message}")

    async def hear_reply(self, reply: str) -> tuple[str, browser.ReplyDone]:
        """All that comes of a reply, and how it ends; only news of the swarm may come in between."""
        text = ""
        while True:
            message = await self.hear_anything()
            if isinstance(message, browser.ReplyDone) and message.id == reply:
                return text, message
            if isinstance(message, browser.ReplyDelta) and message.id == reply:
                text += message.text
            elif not isinstance(message, browser.SwarmChanged):
                raise AssertionError(f"more of {reply} was due, not {message}")

    async def hear_text(self, reply: str, length: int) -> str:
        """The next characters of a reply, so many of them."""
        text = ""
        while len(text) < length:
            one = await self.hear(browser.ReplyDelta)
            assert one.id == reply
            text += one.text
        return text

    async def closed(self) -> int | None:
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    await self.socket.recv()
        except ConnectionClosed:
            return self.socket.close_code

    async def is_served(self) -> None:
        """Return when the relay answers after all that it was told before."""
        await self.socket.send("ping")
        await self.hear(browser.PageError)


async def open_page(relay: RunningRelay, **headers: str) -> ScriptedPage:
    dialled = await connect(
        f"ws://127.0.0.1:{relay.port}/ws/chat",
        additional_headers=headers,
        compression=None,
        max_size=None,
        ping_interval=None,
        close_timeout=1.0,
        proxy=None,
    )
    relay.peers.callback(dialled.transport.abort)
    return ScriptedPage(dialled)
