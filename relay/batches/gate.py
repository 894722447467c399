"""Who may run now: lines wait here until their model has room for them (relay/batches/room.py).

Owned by the event loop's thread. Lines of one model are let in as they have come; models do not wait for each
other. Lines that run are never stopped. Does not know what a line is, but how many replies it asks for.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from relay.batches.room import Load, most_lines
from relay.swarm import Swarm
from schema.errors import NotFound


class GateClosed(Exception):
    """This replica begins no more lines: it stops."""


class _Turn(NamedTuple):
    """Somebody who waits."""

    weight: int
    has_come: asyncio.Future[None]


class Gate:
    """Counts the replies that lines have made, and lets in as many more as there is room for."""

    def __init__(self, swarm: Swarm, people: Callable[[], Mapping[str, int]], per_head: int) -> None:
        """`people`: the replies here that are no lines', by model, those that wait included."""
        self.workers = 1
        """Replicas that answer lines, this one included."""
        self.replies_elsewhere: Mapping[str, int] = {}
        """Of people, through other replicas, by model; as old as their leases."""
        self._swarm = swarm
        self._people = people
        self._per_head = per_head
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Turn]] = {}
        self._is_closed = False

    @property
    def is_shut(self) -> bool:
        """Whether nobody is ever let in here."""
        return self._is_closed or not self._per_head

    def room(self, model: str) -> int:
        """How many replies of a model lines may have made here now, those that are made included."""
        people = self._people().get(model, 0) + self.replies_elsewhere.get(model, 0)
        try:
            heads = len(self._swarm.heads(model)) if self._swarm.why_incomplete(model) is None else 0
        except NotFound:
            return 1  # who is let in is told so, and leaves at once
        return most_lines(Load(heads, people, self.workers), self._per_head)

    async def enter(self, model: str, weight: int = 1) -> None:
        """Return when a line of this model may begin. It has to `leave` then, with the same weight.

        `weight`: replies that it asks for. One that asks for more than there is ever room for runs alone.

        Raises:
            GateClosed: this replica stops.
        """
        if self._is_closed:
            raise GateClosed
        waiting = self._waiting.setdefault(model, deque())
        turn = _Turn(weight, asyncio.get_running_loop().create_future())
        waiting.append(turn)
        self._let_in(model)
        try:
            await turn.has_come
        except asyncio.CancelledError:
            come = turn.has_come
            if come.done() and not come.cancelled() and come.exception() is None:
                self.leave(model, weight)  # it was let in just as it was given up
            raise

    def leave(self, model: str, weight: int = 1) -> None:
        """A line has ended, or waits before it tries again."""
        self._running[model] -= weight
        if not self._running[model]:
            del self._running[model]
        self._let_in(model)

    def look(self) -> None:
        """Let in those for whom there is room by now. To be called again and again: people come and go."""
        for model in list(self._waiting):
            self._let_in(model)

    def close(self) -> None:
        """Turn away all that wait, and all that come."""
        self._is_closed = True
        for waiting in self._waiting.values():
            for turn in waiting:
                if not turn.has_come.done():
                    turn.has_come.set_exception(GateClosed())
        self._waiting.clear()

    def _let_in(self, model: str) -> None:
        waiting = self._waiting.get(model)
        if waiting is None:
            return
        room = self.room(model)
        while waiting and (self._fits(model, waiting[0].weight, room) or waiting[0].has_come.done()):
            turn = waiting.popleft()
            if not turn.has_come.done():  # else it was given up
                self._running[model] += turn.weight
                turn.has_come.set_result(None)
        if not self._running[model]:
            del self._running[model]
        if not waiting:
            del self._waiting[model]

    def _fits(self, model: str, weight: int, room: int) -> bool:
        running = self._running[model]
        return running + weight <= room or (room > 0 and not running)
