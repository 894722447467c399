"""Not sleeping where the next decode step is near.

A process that waits for its sockets sleeps. Waking takes 0.05 to 0.1 ms, and what runs right after it runs on
a processor that has forgotten it. Where volunteers are in one room that is a good part of a step's way, so
its hops can look at their sockets again and again until the next one comes. That keeps a core busy.

Both ends of a connection use it. Belongs to the event loop's thread; knows nothing of frames.
"""

import asyncio
from collections.abc import Callable
from time import monotonic


class StayingAwake:
    """Keeps the event loop from sleeping while decode steps come close behind one another."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        """`seconds`: how soon after a step has left the next one has to come, and is awaited."""
        self._seconds = seconds
        self._clock = clock
        self._left_at = float("-inf")
        self._is_near = False
        """Whether the step that is here came soon after the last one had left."""
        self._until = float("-inf")
        self.is_awake = False

    def step_came(self, now: float) -> None:
        """A step is here. The next one will come about as soon after it as it came."""
        self._is_near = now - self._left_at <= self._seconds

    def step_left(self, now: float) -> None:
        """It has been sent on; `now` on the clock that was given."""
        self._left_at = now
        if self._is_near:
            self._until = now + self._seconds
            if not self.is_awake:
                self.is_awake = True
                self._stay()

    def step_passed(self) -> None:
        """A step came and was sent on in one go."""
        now = self._clock()
        self.step_came(now)
        self.step_left(now)

    def _stay(self) -> None:
        self.is_awake = self._clock() < self._until
        if self.is_awake:
            asyncio.get_running_loop().call_soon(self._stay)
