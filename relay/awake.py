"""Not sleeping where the next decode step is near.

A process that waits for its sockets sleeps, and waking takes 0.05 to 0.1 ms; what runs right after it runs on
a processor that has forgotten it. Three volunteers in one room send a step of theirs every three
milliseconds, and each of these waits for the relay to wake. Where an operator has a processor to spare, the
relay can look at its sockets again and again meanwhile.

Belongs to the event loop's thread. Does not know frames.
"""

import asyncio
from collections.abc import Callable
from time import monotonic


class StayingAwake:
    """Keeps the event loop from sleeping while steps come close behind one another."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        """`seconds`: how close, and for how long after each."""
        self._seconds = seconds
        self._clock = clock
        self._passed_at = float("-inf")
        self._until = float("-inf")
        self.is_awake = False

    def step_passed(self) -> None:
        """A decode step went through. The next one will come about as soon after it as it came."""
        now = self._clock()
        if now - self._passed_at <= self._seconds:
            self._until = now + self._seconds
            if not self.is_awake:
                self.is_awake = True
                asyncio.get_running_loop().call_soon(self._turn)
        self._passed_at = now

    def _turn(self) -> None:
        self.is_awake = self._clock() < self._until
        if self.is_awake:
            asyncio.get_running_loop().call_soon(self._turn)
