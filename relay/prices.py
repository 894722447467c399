"""What a hop over a volunteer costs in seconds: the way there, the wait, and the blocks.

    hop    = (way + wait of those before it) / score      once for each hop
    block  = 1 / blocks per second           / score      for each block that the hop runs

A step that fails has to be made again, so that who answers every other step costs twice. Pure; does not
know routes, sockets or time.
"""

from dataclasses import dataclass
from typing import NamedTuple

from schema.ids import PeerId, Span

HOP_SECONDS = 0.005
"""What a hop takes beside its way and its blocks: frames are read, checked, queued and written."""
ASSUMED_RTT = 0.05
"""Seconds to a volunteer and back that nobody has measured yet."""
ASSUMED_SPEED = 100.0
"""Blocks per second of a volunteer that has not measured yet."""
SLOWEST, FASTEST = 1e-3, 1e6
"""Blocks per second between which a volunteer is believed."""
QUEUE_SHARE = 0.25
"""Of its steps' time that each other session makes one wait: sessions that come together are one batch, of
which eight take about as long as two alone."""
LEAST_SCORE = 0.05
"""A score below it counts as this: somebody has to be used where nobody else is there."""
PREFERRED_SESSIONS = 2
"""How many sessions of a preferred volunteer are not counted: what it holds spares a prompt's computation.
And its load is as old as its last heartbeat, so that the reply which has just ended is often still in it."""
PREFERRED_SHARE = 2 / 3
"""Of its price that a preferred volunteer counts with: it may cost half as much again for that."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A volunteer that serves blocks of the model in question."""

    peer: PeerId
    span: Span
    sessions: int = 0
    """As it has told, and those that it was given since."""
    blocks_per_second: float = 0.0
    """Of a session alone; 0 when it was not measured."""
    rtt: float | None = None
    """Seconds from the relay to it and back; None until that was measured."""
    score: float = 1.0
    """How far it is trusted to answer, from 0 to 1."""


class Price(NamedTuple):
    """Seconds."""

    hop: float
    block: float

    def of(self, blocks: int) -> float:
        return self.hop + self.block * blocks


def price_of(holder: Holder, *, is_own: bool = False, is_preferred: bool = False) -> Price:
    """`is_own`: the driver itself, to which there is no way."""
    sessions = max(0, holder.sessions - PREFERRED_SESSIONS) if is_preferred else holder.sessions
    block = 1 / min(max(holder.blocks_per_second or ASSUMED_SPEED, SLOWEST), FASTEST)
    way = 0.0 if is_own else HOP_SECONDS + (ASSUMED_RTT if holder.rtt is None else holder.rtt)
    wait = QUEUE_SHARE * sessions * len(holder.span) * block
    share = (PREFERRED_SHARE if is_preferred else 1.0) / max(holder.score, LEAST_SCORE)
    return Price((way + wait) * share, block * share)
