"""A head that answers everything by itself: what it was asked, upside down; and counts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from websockets.exceptions import ConnectionClosed

from schema.errors import CorollaError
from schema.messages import Cancel, Generate
from tests.relay.core.peers import ScriptedPeer, fail, finish, say_texts


class AnsweringHead:
    """Says to each prompt its reverse, or fails as `errors` has it for the prompt."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.peer = peer
        self.asked: Counter[str] = Counter()
        """How often each prompt came."""
        self.errors: dict[str, list[CorollaError]] = {}
        """Of a prompt, what it gets first, one error each time."""
        self.is_open = asyncio.Event()
        """While it is not set, what is asked waits."""
        self.is_open.set()
        self.waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.peer._read()
                message = self.peer._messages.popleft() if self.peer._messages else None
                if isinstance(message, Generate):
                    task = asyncio.create_task(self._answer(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif message is not None and not isinstance(message, Cancel):
                    raise AssertionError(f"a head is not asked for {message}")

    async def _answer(self, generate: Generate) -> None:
        prompt = generate.body.prompt
        if not isinstance(prompt, str):
            raise AssertionError("prompts are texts here")
        self.asked[prompt] += 1
        self.waiting += 1
        await self.is_open.wait()
        self.waiting -= 1
        with suppress(ConnectionClosed):
            if self.errors.get(prompt):
                await fail(self.peer, generate, self.errors[prompt].pop(0))
                return
            await say_texts(self.peer, generate, prompt[::-1])
            await finish(self.peer, generate, tokens=1)


@asynccontextmanager
async def answering(peer: ScriptedPeer) -> AsyncIterator[AnsweringHead]:
    """A head that serves, and answers while the block runs."""
    head = AnsweringHead(peer)
    task = asyncio.create_task(head.run())
    try:
        yield head
    finally:
        tasks = [task, *head._tasks]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
