"""One thing that heads make for somebody: a text, or the vectors of some texts.

It is one head's to make and one reader's to read, and ends in exactly one way. When its head leaves,
another one goes on with it. The reader of a text is told when it stops for that, or for a hop.
Owned by the event loop's thread.
Does not know which head makes it, nor who reads.
"""

import asyncio
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from relay.heads import error_of_head
from relay.told import Told
from schema.errors import CorollaError, GenerationFailed
from schema.generation import GenerationRequest, Pause, Timing, Usage
from schema.ids import PeerId
from schema.limits import MAX_PAUSES
from schema.messages import Delta, Embed, Embedded, Failed, Finished, Generate

ReplyEvent = Delta | Finished
HeadEvent = Delta | Embedded | Finished | Failed
"""What a head says of something that it was asked for."""
_E = TypeVar("_E", Delta, Embedded)


class _Instead(Enum):
    """In the place of a head's event."""

    HEAD_LEFT = "head left"
    """There will be no more of its events."""
    TOO_LATE = "too late"
    """The reply's time is over."""


class Keeper(Protocol):
    """Who looks after what heads make (relay/replies.py)."""

    async def go_on(self, reply: "Reply[Any]") -> None: ...
    def left(self, reply: "Reply[Any]", error: BaseException | None) -> None: ...


class Reply(ABC, Generic[_E]):
    """Iterate over its events; the last is `Finished`, or an error is raised."""

    def __init__(self, keeper: Keeper, model: str, asker: str, most_tokens: int) -> None:
        """`most_tokens`: that it can take, prompts included."""
        self.model = model
        self.asker = asker
        self.request = ""
        """What its present head knows it by."""
        self.head: PeerId | None = None
        self.heads = 0
        """How many have made it, the present one included."""
        self.started = asyncio.get_running_loop().time()
        self.first_token: float | None = None
        """Seconds from the start to the first event."""
        self._most_tokens = most_tokens
        self._keeper = keeper
        self._events: asyncio.Queue[_E | Finished | Failed | CorollaError | _Instead] = asyncio.Queue()
        self.has_ended = False
        """Whether its reader has read its last event."""
        self.is_over = False
        """Whether its last event has come, read or not."""

    @abstractmethod
    def message(self, request: str, known: str | UnsetType) -> Generate | Embed:
        """What the next head is asked. `known`: what it knows the asker by."""

    @abstractmethod
    def take(self, event: Delta | Embedded) -> None:
        """Pass on what is new of it.

        Raises:
            GenerationFailed: no head of sound mind would say that.
        """

    @property
    @abstractmethod
    def made(self) -> Usage:
        """The tokens that it has taken so far, as far as heads have told of them."""

    @property
    def was_begun(self) -> bool:
        """Whether its head was given what another one had made, to go on with."""
        return False

    def begin(self, request: str, head: PeerId) -> None:
        """A head makes it from now on."""
        self.request, self.head = request, head
        self.heads += 1

    def put(self, event: Finished | Failed) -> None:
        """Pass on how it has ended.

        Raises:
            GenerationFailed: it cannot have ended like that. Whoever asks would be charged for it.
        """
        if isinstance(event, Finished) and _counted(event.usage) > self._most_tokens:
            raise GenerationFailed("the volunteer counts more tokens than the model can have taken")
        self.is_over = True
        self._events.put_nowait(event)

    def end(self, error: CorollaError) -> None:
        """Have its reader told why there is no more of it; that ends it on its head too."""
        self._events.put_nowait(error)

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time() - self.started

    def lose_head(self) -> None:
        self.head = None
        self._events.put_nowait(_Instead.HEAD_LEFT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.left(self, error)

    async def events(self, deadline_seconds: float) -> AsyncIterator[_E | Finished]:
        """Its pieces, then `Finished`.

        Raises:
            CorollaError: what the head said, or `end` was told, or GenerationFailed when no head finishes it
                in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_seconds
        too_late = GenerationFailed(f"the reply was not finished within {deadline_seconds:g} s")
        # One timer for all of it: a piece of a reply costs less than a timer of its own.
        timer = loop.call_at(deadline, self._events.put_nowait, _Instead.TOO_LATE)
        try:
            while not self.has_ended:
                event = await self._events.get()
                if event is _Instead.TOO_LATE or loop.time() >= deadline:
                    raise too_late  # however fast the events come
                if event is _Instead.HEAD_LEFT:
                    await self._find_head(deadline, too_late)
                    continue
                if isinstance(event, CorollaError):
                    raise event
                self.has_ended = isinstance(event, Finished | Failed)
                if isinstance(event, Failed):
                    raise error_of_head(event.error)
                yield event
        finally:
            timer.cancel()

    async def _find_head(self, deadline: float, too_late: GenerationFailed) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._keeper.go_on(self)
        except TimeoutError:
            raise too_late from None


class TextReply(Reply[Delta]):
    """A text. Another head tells it from the beginning; what has been told before is left out here."""

    def __init__(self, keeper: Keeper, body: GenerationRequest, asker: str, context: int) -> None:
        """`context`: the model's positions."""
        super().__init__(keeper, body.model, asker, context)
        self.body = body
        self._told = Told(body)
        self._pauses: list[Pause] = []
        self._paused_at: float | None = None
        """Its age when it stopped, while it does not go on."""
        self._breaks = 0
        """What stopped it while earlier heads made it, these heads' leaving included."""
        self._breaks_of_head = 0
        """What the present head says has stopped it."""
        self._was_begun = False

    @property
    def was_begun(self) -> bool:
        return self._was_begun

    @property
    def ids(self) -> list[int]:
        """The tokens that heads have told of."""
        return self._told.ids

    @property
    def made(self) -> Usage:
        count = min(len(self.ids), self._most_tokens)
        return Usage(prompt_tokens=0, completion_tokens=count, total_tokens=count)

    def message(self, request: str, known: str | UnsetType) -> Generate:
        return Generate(request=request, body=self.body, asker=known, generated=self.ids or UNSET)

    def begin(self, request: str, head: PeerId) -> None:
        super().begin(request, head)
        self._was_begun = bool(self.ids)
        self._told.begin()

    def take(self, event: Delta | Embedded) -> None:
        if isinstance(event, Embedded):
            raise GenerationFailed("the volunteer was asked for a text and gave a vector")
        new = self._told.take(event)
        if len(self.ids) > self._most_tokens:
            raise GenerationFailed("the volunteer tells more tokens than the model has positions")
        if event.is_repairing is True:
            self._breaks_of_head += 1
            self._pause()
        elif new is not None:
            self._go_on()
            self._events.put_nowait(new)

    def lose_head(self) -> None:
        self._breaks += 1 + self._breaks_of_head
        self._breaks_of_head = 0
        self._pause()
        super().lose_head()

    def put(self, event: Finished | Failed) -> None:
        self._go_on()
        if isinstance(event, Finished):
            event = replace(event, timing=self._timing(event.timing))
        super().put(event)

    def _timing(self, by_head: Timing) -> Timing:
        """What its last head says of its time, and what that one cannot know."""
        timing = replace(by_head, pauses=self._pauses)
        if not self._breaks:
            return timing
        first = by_head.first_token if self.first_token is None else self.first_token
        return replace(timing, first_token=first, total=self.age, repairs=by_head.repairs + self._breaks)

    def _pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = self.age
            self._events.put_nowait(repairing(self.request))

    def _go_on(self) -> None:
        began, self._paused_at = self._paused_at, None
        if began is not None and len(self._pauses) < MAX_PAUSES:
            self._pauses.append(Pause(at=began, seconds=self.age - began))


class VectorReply(Reply[Embedded]):
    """Vectors, in the order of the inputs. Another head makes those that are missing."""

    def __init__(
        self,
        keeper: Keeper,
        model: str,
        inputs: list[str | list[int]],
        asker: str,
        *,
        width: int,
        context: int,
    ) -> None:
        """`width`: numbers in a vector. `context`: the model's positions, for each input."""
        super().__init__(keeper, model, asker, context * len(inputs))
        self._inputs = inputs
        self._width = width
        self._context = context
        self._tokens: list[int] = []
        """Of each input whose vector has come."""
        self._done_before = 0
        """Vectors that earlier heads have made."""

    @property
    def made(self) -> Usage:
        total = sum(self._tokens)
        return Usage(prompt_tokens=total, completion_tokens=0, total_tokens=total)

    def message(self, request: str, known: str | UnsetType) -> Embed:
        return Embed(request=request, model=self.model, inputs=self._inputs[len(self._tokens) :])

    def begin(self, request: str, head: PeerId) -> None:
        super().begin(request, head)
        self._done_before = len(self._tokens)

    def lose_head(self) -> None:
        if len(self._tokens) < len(self._inputs):
            super().lose_head()
            return
        self.head = None  # it has left between the last vector and saying so
        nothing = Timing(first_token=0, total=0)
        self.put(Finished(request=self.request, reason="stop", usage=self.made, timing=nothing))

    def take(self, event: Delta | Embedded) -> None:
        index = len(self._tokens)
        if isinstance(event, Delta) or index >= len(self._inputs):
            raise GenerationFailed("the volunteer was asked for vectors and gave something else")
        if event.index != index - self._done_before:
            raise GenerationFailed("the volunteer gave a vector out of its turn")
        if event.tokens > self._context:
            raise GenerationFailed("the volunteer counts more tokens in a text than the model has positions")
        if not is_vector(event.vector, self._width):
            raise GenerationFailed("the volunteer gave a vector that is none of this model's")
        self._tokens.append(event.tokens)
        self._events.put_nowait(replace(event, index=index))

    def put(self, event: Finished | Failed) -> None:
        if isinstance(event, Finished) and len(self._tokens) < len(self._inputs):
            raise GenerationFailed("the volunteer gave fewer vectors than it was asked for")
        super().put(event)


def _counted(usage: Usage) -> int:
    """All tokens that a head counts, by the larger of the sums that it tells."""
    return max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def repairing(request: str) -> Delta:
    """That a text has stopped, and others are sought to go on with it."""
    return Delta(request=request, text="", tokens=0, is_repairing=True)


def goes_on(event: HeadEvent) -> bool:
    """Whether a head that says this goes on making what it was asked for."""
    return isinstance(event, Delta | Embedded)


def is_vector(raw: bytes, width: int) -> bool:
    """Whether these are `width` float32 numbers that are finite."""
    return len(raw) == 4 * width and all(map(math.isfinite, struct.unpack(f"<{width}f", raw)))
