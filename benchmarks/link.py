"""A wide-area network between a few nodes, as arithmetic: when which Ethernet frame arrives where.

    node ──> its uplink: rate, bounded queue ──> the delay ──> the other's downlink: rate, bounded queue

Every node has one line each way, as at home. What does not fit a queue is lost, as it is on a router, and TCP
has to see to it. Pure: time is given, in seconds on any one steady clock. Knows no devices and no processes.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

ADDRESS_BYTES = 6
"""An Ethernet frame begins with the address that it is for."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the network is like, between any two nodes alike."""

    delay: float
    """Seconds one way."""
    rate: float
    """Bytes a second, each way of each node."""
    queue: int
    """Bytes that may wait before a line."""

    @property
    def round_trip(self) -> float:
        return 2 * self.delay


class Line:
    """One direction of one node's connection: frames leave it one after the other, at its rate."""

    def __init__(self, rate: float, queue: int) -> None:
        self._rate = rate
        self._patience = queue / rate
        self._free = float("-inf")
        """When what was taken so far has left."""

    def take(self, size: int, now: float) -> float | None:
        """When a frame of `size` bytes that comes `now` has left; None when it is lost."""
        begins = max(now, self._free)
        if begins - now > self._patience:
            return None
        self._free = begins + size / self._rate
        return self._free


def address(node: int) -> bytes:
    """The hardware address of a node: locally administered, not a group's."""
    return bytes((2, 0, 0, 0, 0, node + 1))


class Arrival(NamedTuple):
    """A frame that is to be handed to a node."""

    due: float
    node: int
    frame: bytes


class _Event(NamedTuple):
    """A frame at the far end of the delay (`is_last` False), or of its last line."""

    due: float
    number: int
    """Makes equal times ordered, in the order in which frames came."""
    node: int
    frame: bytes
    is_last: bool


class Network:
    """All lines, and the frames under way."""

    def __init__(self, nodes: int, conditions: Conditions) -> None:
        self._delay = conditions.delay
        self._up = [Line(conditions.rate, conditions.queue) for _ in range(nodes)]
        self._down = [Line(conditions.rate, conditions.queue) for _ in range(nodes)]
        self._node_of = {address(node): node for node in range(nodes)}
        self._events: list[_Event] = []
        self._number = 0
        self.lost = 0
        """Frames that found a queue full."""

    @property
    def next_due(self) -> float | None:
        """When `arrivals` has something to do; None while nothing is under way."""
        return self._events[0].due if self._events else None

    def send(self, sender: int, frame: bytes, now: float) -> None:
        """A node sends a frame. One that is for no node of the network goes nowhere."""
        node = self._node_of.get(frame[:ADDRESS_BYTES])
        if node is None or node == sender:
            return
        left = self._up[sender].take(len(frame), now)
        if left is None:
            self.lost += 1
        else:
            self._push(left + self._delay, node, frame, is_last=False)

    def arrivals(self, now: float) -> Iterator[Arrival]:
        """The frames that have arrived by `now`, in order."""
        while self._events and self._events[0].due <= now:
            event = heapq.heappop(self._events)
            if event.is_last:
                yield Arrival(event.due, event.node, event.frame)
                continue
            left = self._down[event.node].take(len(event.frame), event.due)
            if left is None:
                self.lost += 1
            else:
                self._push(left, event.node, event.frame, is_last=True)

    def _push(self, due: float, node: int, frame: bytes, *, is_last: bool) -> None:
        self._number += 1
        heapq.heappush(self._events, _Event(due, self._number, node, frame, is_last))


@dataclass(slots=True)
class Account:
    """How well an emulator carried the frames of a network."""

    carried: int = 0
    lost: int = 0
    """Frames that found a queue full."""
    late: float = 0.0
    """Seconds that frames were late beyond what the network's conditions are: their mean."""
    latest: float = 0.0
    """The most that any was."""

    def count(self, late: float) -> None:
        self.carried += 1
        self.late += (late - self.late) / self.carried
        self.latest = max(self.latest, late)
