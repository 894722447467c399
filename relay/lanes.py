"""The way from one replica to another one: ordered by urgency, bounded, and with every loss noticed.

The bus may lose things. So each parcel of a lane has a number, and the sender remembers what it has sent
until the other side has said that it came. A gap in the numbers is told to the sender at once. It then sends
control again, and says of frames, which are too many to be kept, that they are lost: drivers get a FAILURE.

    put -> queue by urgency -> take, which numbers it -> remembered -> `acknowledged`, or back by `missed`

A lane that is opened anew has a higher number than the one before: nothing of that one is taken for its own.

Pure: knows neither the bus nor the clock, nor who is connected. Owned by the event loop's thread.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.bus import MAX_PUBLISHED_BYTES, ReplicaKey
from relay.parcels import HEADER_BYTES, Kind, Parcel
from schema.frames import HEADER_BYTES as FRAME_HEADER_BYTES
from schema.ids import PeerId
from schema.outbox import Urgency

MAX_BODY_BYTES = MAX_PUBLISHED_BYTES - HEADER_BYTES
MAX_REMEMBERED = 65_536
"""Parcels that may be on their way without a word that they have come."""
DECODE_RESERVE_BYTES = 8 * 1024 * 1024
"""How far decode steps may go beyond the limit, some hundreds of them: they are sent before the prompts that
have filled a lane, and nobody's reply shall break off for those of others."""
CONTROL_RESERVE_BYTES = DECODE_RESERVE_BYTES + 4 * MAX_BODY_BYTES
"""And control beyond that."""
CONTROL_RESERVE = 4096
"""And control parcels beyond those that may be remembered."""
_RESERVES = {Urgency.CONTROL: CONTROL_RESERVE_BYTES, Urgency.DECODE: DECODE_RESERVE_BYTES, Urgency.PREFILL: 0}
ROUTE_LENGTH = slice(6, 8)
"""Where a frame's header says how long its route is (schema/frames.py)."""


class Lost(NamedTuple):
    """Something that will not come: as much of it as is needed to say so, or to send it again."""

    kind: int
    peer: PeerId
    urgency: Urgency
    body: bytes
    """All of a control message or frame; of another frame its header and route."""


class _Queued(NamedTuple):
    kind: int
    peer: PeerId
    has_more: bool
    part: int
    body: bytes
    lost: Lost
    """What the parcels of this body make; the same object for all of them."""


@dataclass(slots=True)
class Outbound:
    """What goes to one replica."""

    sender: ReplicaKey
    number: int
    """Of the lane."""
    limit_bytes: int
    waiting_bytes: int = 0
    next_number: int = 0
    _put: list[int] = field(default_factory=lambda: [0 for _ in Urgency])
    _taken: list[int] = field(default_factory=lambda: [0 for _ in Urgency])
    """Parcels so far, by urgency."""
    _queues: tuple[deque[_Queued], ...] = field(default_factory=lambda: tuple(deque() for _ in Urgency))
    _remembered: deque[Lost] = field(default_factory=lambda: deque[Lost]())
    _first: int = 0
    """The number of the first that is remembered."""

    def put(self, kind: Kind, peer: PeerId, body: bytes, urgency: Urgency) -> bool:
        """Queue something; False, and nothing queued, where too much waits or is unconfirmed."""
        is_control = urgency is Urgency.CONTROL
        limit = self.limit_bytes + _RESERVES[urgency]
        most = MAX_REMEMBERED + (CONTROL_RESERVE if is_control else 0)
        if self.waiting_bytes + len(body) > limit or len(self._remembered) >= most:
            return False
        self.waiting_bytes += len(body)
        queue = self._queues[urgency]
        lost = Lost(kind, peer, urgency, body if is_control else _head_of(body))
        if len(body) <= MAX_BODY_BYTES:
            pieces = [body]
        else:
            pieces = [body[start : start + MAX_BODY_BYTES] for start in range(0, len(body), MAX_BODY_BYTES)]
        self._put[urgency] += len(pieces)
        for part, piece in enumerate(pieces, 1):
            queue.append(_Queued(kind, peer, part < len(pieces), part - 1, piece, lost))
        return True

    def take(self) -> Parcel | None:
        """The next parcel to publish; None when nothing waits."""
        for urgency in Urgency:
            queue = self._queues[urgency]
            if not queue:
                continue
            queued = queue.popleft()
            self.waiting_bytes -= len(queued.body)
            number = self.next_number
            self.next_number += 1
            self._taken[urgency] += 1
            self._remembered.append(queued.lost)
            return Parcel(
                queued.kind,
                queued.has_more,
                queued.part,
                urgency,
                self.number,
                number,
                self.sender,
                queued.peer,
                queued.body,
            )
        return None

    def mark(self) -> tuple[int, ...]:
        """For `has_passed`: everything that was put so far."""
        return tuple(self._put)

    def has_passed(self, mark: tuple[int, ...]) -> bool:
        """Whether all that had been put then has been taken."""
        return all(taken >= put for taken, put in zip(self._taken, mark, strict=True))

    def acknowledged(self, below: int) -> None:
        """The parcels below this number have come."""
        while self._first < min(below, self.next_number):
            self._remembered.popleft()
            self._first += 1

    def missed(self, first: int, below: int) -> list[Lost]:
        """What the parcels with these numbers held, each once: they will not come."""
        positions = range(max(first, self._first) - self._first, min(below, self.next_number) - self._first)
        return _each_once(self._remembered[position] for position in positions)

    def unsettled(self) -> list[Lost]:
        """All that waits or is unconfirmed, when the lane ends."""
        waiting = [queued.lost for queue in self._queues for queued in queue]
        return _each_once([*self._remembered, *waiting])


@dataclass(slots=True)
class Inbound:
    """What comes from one replica."""

    number: int = -1
    """Of its lane."""
    expected: int = 0
    _parts: dict[Urgency, list[bytes]] = field(default_factory=lambda: dict[Urgency, list[bytes]]())

    def accept(self, parcel: Parcel) -> tuple[bool, int]:
        """Whether to take a parcel, and how many before it are missing. Raises nothing."""
        if parcel.lane < self.number:
            return False, 0
        if parcel.lane > self.number:
            self.number, self.expected = parcel.lane, 0
            self._parts.clear()
        missing = parcel.number - self.expected
        if missing < 0:
            return False, 0
        self.expected = parcel.number + 1
        return True, missing

    def whole(self, parcel: Parcel) -> bytes | None:
        """The body that this parcel completes; None when there is more to come, or a part was lost."""
        if not parcel.part and not parcel.has_more:
            return parcel.body
        parts = self._parts.pop(parcel.urgency, []) if parcel.part else []
        if len(parts) != parcel.part:
            return None
        parts.append(parcel.body)
        if parcel.has_more:
            self._parts[parcel.urgency] = parts
            return None
        return b"".join(parts)


def _head_of(frame: bytes) -> bytes:
    """A frame's header and route."""
    return frame[: FRAME_HEADER_BYTES + int.from_bytes(frame[ROUTE_LENGTH], "little")]


def _each_once(losts: Iterable[Lost]) -> list[Lost]:
    """Those of several parcels of one body are the same object."""
    return list({id(lost): lost for lost in losts}.values())
