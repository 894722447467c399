"""The order in which one connection sends what waits for it: control, decode, prefill.

Nothing large delays something small: a connection takes the most urgent message that waits, and
large things are cut into slices by those who make them. Bounded in bytes, with a reserve for control,
so that the other side can still be told that its queue is full. Pure: both ends put it between those
who enqueue and the one task that sends, which owns the waiting.
"""

from collections import deque
from enum import IntEnum

from schema.frames import FrameType
from schema.limits import MAX_CONTROL_BYTES

CONTROL_RESERVE_BYTES = 2 * MAX_CONTROL_BYTES
"""How far control may go beyond the limit: two of the largest messages."""


class Urgency(IntEnum):
    """Smaller is sooner."""

    CONTROL = 0
    DECODE = 1
    PREFILL = 2


URGENCY_OF_FRAME: dict[int, Urgency] = {
    FrameType.STEP: Urgency.DECODE,
    FrameType.PREFILL: Urgency.PREFILL,
    FrameType.PROBE: Urgency.PREFILL,
    FrameType.FORWARD: Urgency.PREFILL,
    FrameType.FORK: Urgency.PREFILL,  # the slices that follow it may not overtake it
    FrameType.RESUME: Urgency.PREFILL,  # nor this
    FrameType.REPLAY: Urgency.PREFILL,
    FrameType.TRACE: Urgency.DECODE,  # behind the answer that it is about
    FrameType.CLOSE: Urgency.CONTROL,
    FrameType.FAILURE: Urgency.CONTROL,
}


class Outbox:
    """Messages that wait for one connection, the most urgent first, first in first out within an urgency.

    A text counts its characters: those of control messages are nearly all ASCII.
    """

    __slots__ = ("_limits", "_queues", "_waiting_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limits = (limit_bytes + CONTROL_RESERVE_BYTES, limit_bytes, limit_bytes)
        """By urgency."""
        self._queues: tuple[deque[str | bytes], ...] = tuple(deque() for _ in Urgency)
        self._waiting_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def put(self, message: str | bytes, urgency: Urgency, *, first: bool = False) -> bool:
        """Add a message; False, and nothing added, where the limit forbids it. `first`: before its like."""
        size = len(message)
        waiting_bytes = self._waiting_bytes + size
        if waiting_bytes > self._limits[urgency]:
            return False
        self._waiting_bytes = waiting_bytes
        queue = self._queues[urgency]
        if first:
            queue.appendleft(message)
        else:
            queue.append(message)
        return True

    def take(self) -> str | bytes | None:
        """Remove and return the next message to send; None when nothing waits."""
        for queue in self._queues:
            if queue:
                message = queue.popleft()
                self._waiting_bytes -= len(message)
                return message
        return None
