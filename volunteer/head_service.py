"""Drives replies, and makes vectors of texts, for browsers and REST on a volunteer that holds a head.

One task a request; what it generates goes to the relay as deltas. Owned by the event loop's thread.
Does not know how text is made (corolla/generation.py).
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from functools import partial

from msgspec import UNSET

from corolla.embedding import TextVector, embed_texts
from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.reply import TextDelta
from schema.errors import CorollaError, GenerationFailed, NotServing
from schema.messages import Delta, Embed, Embedded, ErrorInfo, Failed, Finished, FromPeer, Generate

log = logging.getLogger(__name__)


class HeadService:
    """The replies that this volunteer is writing."""

    def __init__(self, exchange: Exchange, tell: Callable[[FromPeer], None]) -> None:
        self._exchange = exchange
        self._tell = tell
        self._head: Head | None = None
        self._model = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def install(self, head: Head, model: str) -> None:
        """Write replies of `model` from now on."""
        self._head, self._model = head, model

    def uninstall(self) -> None:
        """Write no reply from now on."""
        self._head = None

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, message: Generate | Embed) -> None:
        if message.request in self._tasks:
            return  # said twice, by a relay that was not sure to have said it
        task = asyncio.create_task(self._reply(message))
        self._tasks[message.request] = task
        task.add_done_callback(lambda _: self._tasks.pop(message.request, None))

    def cancel(self, request: str) -> None:
        task = self._tasks.get(request)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel everything, and wait until it is over."""
        for task in self._tasks.values():
            task.cancel()
        await self.finish()

    async def finish(self) -> None:
        """Wait until no reply is in the making; also for those that come while this waits."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _reply(self, message: Generate | Embed) -> None:
        request = message.request
        try:
            await (self._write(message) if isinstance(message, Generate) else self._embed(message))
        except CorollaError as error:
            self._fail(request, error)
        except Exception:
            log.exception("a reply failed", extra={"request": request})
            self._fail(request, GenerationFailed("the head could not go on with this reply; see its log"))

    async def _write(self, message: Generate) -> None:
        head, request = self._head_of(message.body.model), message.request
        asker = None if message.asker is UNSET else message.asker
        generated = () if message.generated is UNSET else message.generated
        on_break = partial(self._tell_of_break, request)
        source = generate(head, self._exchange, message.body, asker, generated, on_break)
        async with aclosing(source) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    for delta in _told(request, event):
                        self._tell(delta)
                else:
                    self._finish(request, event)

    async def _embed(self, message: Embed) -> None:
        head, request = self._head_of(message.model), message.request
        async with aclosing(embed_texts(head, self._exchange, message.model, message.inputs)) as events:
            async for event in events:
                if isinstance(event, TextVector):
                    index, tokens, vector = event.index, event.tokens, event.vector
                    self._tell(Embedded(request=request, index=index, tokens=tokens, vector=vector))
                else:
                    self._finish(request, event)

    def _head_of(self, model: str) -> Head:
        if self._head is None or model != self._model:
            raise NotServing(f"this volunteer has no head of {model!r}")
        return self._head

    def _tell_of_break(self, request: str) -> None:
        with suppress(CorollaError):  # the relay knows by itself that it has lost the connection to here
            self._tell(Delta(request=request, text="", tokens=0, ids=[], is_repairing=True))

    def _finish(self, request: str, end: Completed) -> None:
        self._tell(Finished(request=request, reason=end.reason, usage=end.usage, timing=end.timing))

    def _fail(self, request: str, error: CorollaError) -> None:
        try:
            self._tell(Failed(request=request, error=ErrorInfo.of(error)))
        except CorollaError as untold:
            log.info("a failed reply could not be told of: %s", untold.message, extra={"request": request})


def _told(request: str, delta: TextDelta) -> Iterator[Delta]:
    """A message has one call."""
    first, *others = delta.calls or (UNSET,)
    yield Delta(
        request=request,
        text=delta.text,
        tokens=delta.tokens,
        ids=list(delta.ids),
        scored=list(delta.scored) or UNSET,
        prompt=delta.prompt or UNSET,
        call=first,
    )
    for call in others:
        yield Delta(request=request, text="", tokens=delta.tokens, ids=[], call=call)
