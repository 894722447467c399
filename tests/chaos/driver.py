"""A client that is its own head, in the test's process: it knows its hops, and what has come of each reply.

So a test can kill a certain hop at a certain place of a reply, which is nobody's luck.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.link import LinkOptions, dial
from corolla.prefixes import PrefixIndex
from corolla.reply import TextDelta
from schema.frames import FrameType, Header
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.messages import FromRelay, RouteGrant
from tests.garden import MODEL, PATIENCE_SECONDS


@dataclass(frozen=True)
class Told:
    """A reply: its tokens as they were handed out, and the hops that it ended over."""

    ids: list[int]
    text: str
    cached: int
    hops: list[str]


class Driver:
    """Drives replies one after the other. Its hops keep what was said."""

    def __init__(self, head: Head) -> None:
        self.hops: list[str] = []
        """Of its last route, by name."""
        self.routes = 0
        """How many it was granted."""
        self._more = asyncio.Event()
        self.steps: list[int] = []
        """The numbers of the decode steps that have come back."""
        self.exchange = Exchange()
        self._head = head
        self.forget()
        self._moments: dict[tuple[FrameType, int], Callable[[], None]] = {}
        self._arrived = dict.fromkeys(FrameType, 0)

    def at(self, kind: FrameType, count: int, act: Callable[[], None]) -> None:
        """Do something when that many answers of a kind have come, before the last is looked at."""
        self._moments[kind, self._arrived[kind] + count] = act

    async def came(self, step: int) -> None:
        """Return when a decode step of this number has come back."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while step not in self.steps:
                self._more.clear()
                await self._more.wait()

    def forget(self) -> None:
        """Compute the next prompt as a whole, whatever hops hold of the replies so far."""
        self._head = replace(self._head, prefixes=PrefixIndex(lambda held: held))

    async def ask(self, prompt: Sequence[int], tokens: int) -> Told:
        """A greedy reply."""
        stopping = Stopping(max_tokens=tokens)
        request = GenerationRequest(
            model=MODEL, prompt=list(prompt), sampling=Sampling(temperature=0), stopping=stopping
        )
        ids: list[int] = []
        text = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in generate(self._head, self.exchange, request, "the test"):
                if isinstance(event, TextDelta):
                    text += event.text
                    ids += event.ids
                else:
                    return self._told(event, ids, text)
        raise AssertionError("the reply has no end")

    def _told(self, end: Completed, ids: list[int], text: str) -> Told:
        assert (end.reason, end.usage.completion_tokens) == ("length", len(ids))
        return Told(ids, text, end.usage.prompt_tokens_details.cached_tokens, self.hops)

    # ---- the link's receiver ----

    def on_frame(self, header: Header, message: bytes) -> None:
        kind = FrameType(header.type)
        self._arrived[kind] += 1
        if kind is FrameType.STEP:
            self.steps.append(header.step)
            self._more.set()
        act = self._moments.pop((kind, self._arrived[kind]), None)
        if act is not None:
            act()
        self.exchange.on_frame(header, message)

    def on_message(self, message: FromRelay) -> None:
        if isinstance(message, RouteGrant):
            self.hops = [hop.name for hop in message.hops]
            self.routes += 1
        self.exchange.on_message(message)

    @asynccontextmanager
    async def connected(self, url: str, token: str) -> "AsyncGenerator[Driver]":
        link = await dial(LinkOptions(url, token, "driver", "tests"))
        self.exchange.attach(link)
        running = asyncio.create_task(link.run(self))
        try:
            yield self
        finally:
            link.close()
            await running
