"""The replies of one request, each with its number, as they come.

Several are made at once; one that fails ends all of them. Belongs to the request's handler: leaving its
`async with` cancels what is not finished on the heads, and so on every hop. What heads say is taken as it
comes: a reply's place and its time do not depend on how fast its events are read here.
Does not know what the replies look like.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType

from relay.admission import Place, Verdict
from relay.reply import ReplyEvent
from relay.services import Services
from schema.generation import GenerationRequest
from schema.messages import Finished

Numbered = tuple[int, ReplyEvent]


class Choices:
    """Iterate over the events of all replies; each reply's last one is `Finished`."""

    def __init__(
        self, services: Services, bodies: list[GenerationRequest], asker: str, tells_repairs: bool = False
    ) -> None:
        """`asker`: the id of the token that asks. `tells_repairs`: also that a reply stops for a while."""
        self._services = services
        self._bodies = bodies
        self._asker = asker
        self._tells_repairs = tells_repairs
        self._source = self._together()
        self._places: list[Place] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._events: asyncio.Queue[Numbered | Exception] = asyncio.Queue()
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> "Choices":
        """Raises CorollaError when so many replies cannot be asked for now."""
        model = self._bodies[0].model
        if not self._services.swarm.head_count(model):
            self._services.swarm.require_heads(model)  # says why there is none
        allowance = await self._services.allowances.of(self._asker)
        self._places = self._services.admission.enter(model, self._asker, len(self._bodies), allowance)
        return self

    @property
    def verdict(self) -> Verdict:
        """How long the first of them waits for a head with room."""
        return self._places[0].verdict

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()
        for place in self._places:
            self._services.admission.leave(place)

    def events(self) -> AsyncIterator[Numbered]:
        """Raises CorollaError as soon as one of them cannot be finished."""
        return self._source

    async def _together(self) -> AsyncGenerator[Numbered, None]:
        self._tasks = [asyncio.create_task(self._pass_on(index)) for index in range(len(self._bodies))]
        unfinished = len(self._bodies)
        while unfinished:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            unfinished -= isinstance(event[1], Finished)
            yield event

    async def _pass_on(self, index: int) -> None:
        try:
            async for event in self._reply(index):
                self._events.put_nowait(event)
        except Exception as error:  # noqa: BLE001 - whoever reads has it raised
            self._events.put_nowait(error)

    async def _reply(self, index: int) -> AsyncGenerator[Numbered, None]:
        services = self._services
        async with self._places[index]:
            if len(self._bodies) > 1:
                await self._let_others_go_on()
            async with services.replies.start(self._bodies[index], self._asker) as reply:
                async for event in reply.events(services.settings.request_seconds):
                    if self._tells_repairs or isinstance(event, Finished) or event.is_repairing is not True:
                        yield index, event

    async def _let_others_go_on(self) -> None:
        """Starting a reply encodes its body, which may take a millisecond: one in a turn of the loop."""
        async with self._starting:
            await asyncio.sleep(0)
