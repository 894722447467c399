"""What the database holds, as frozen values: what the store returns and what decisions are made from.

Times are Unix seconds. This module knows no SQL, no sockets and no clock, so that a decision over
10,000 of these can be simulated in a test.
"""

from dataclasses import dataclass
from typing import NamedTuple

from schema.credentials import TokenKind
from schema.ids import PeerId, Span
from schema.messages import ModelFacts
from schema.swarm import EvidenceKind, VolunteerState


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token that was handed out; its secret is not here."""

    id: str
    kind: TokenKind
    name: str
    created_at: float
    revoked_at: float | None
    last_used_at: float | None
    """To the hour; None when it was never used."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that the swarm serves."""

    name: str
    from_settings: bool
    """Listed in `MODELS`; otherwise added with `python -m relay model add`."""
    added_at: float
    facts: ModelFacts | None
    """None until a volunteer has reported them."""
    reported_by: str | None
    """Who reported the facts."""


@dataclass(frozen=True, slots=True)
class VolunteerRecord:
    """A volunteer on some replica of the relay, and the span it holds or shall hold."""

    peer: PeerId
    token_id: str
    name: str
    device: str
    memory: int
    """Bytes."""
    replica: str
    """The relay replica that holds its connection."""
    state: VolunteerState
    joined_at: float
    seen_at: float
    """When its last sign of life was written down."""
    model: str | None = None
    """None until a span was given; then `start` and `end` are given too."""
    start: int | None = None
    end: int | None = None
    head: bool = False
    dtype: str | None = None
    """None until its span was loaded."""
    quantization: str | None = None
    blocks_per_second: float = 0.0
    """Measured decode throughput, one block one token; 0 when it was not measured."""
    room: int | None = None
    """How many blocks it could hold elsewhere; None: it is not to be moved."""
    cached: tuple[Span, ...] = ()
    """The blocks of its model that it need not download."""
    settled_at: float = 0.0
    """When it was given its span."""


class HeldSpan(NamedTuple):
    """What a volunteer's row says of the span that it holds or shall hold: the columns of that name."""

    peer: PeerId
    model: str
    start: int
    end: int
    head: bool
    blocks_per_second: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """How often something happened with one volunteer, in one hour or a part of it."""

    peer: PeerId
    kind: EvidenceKind
    hour: float
    """Its beginning."""
    count: int
    worst: float = 0.0
    """The largest figure that goes with the kind: seconds, or sessions broken off; 0 where there is none."""

    @property
    def key(self) -> tuple[PeerId, EvidenceKind, float]:
        return self.peer, self.kind, self.hour

    def plus(self, other: "Evidence") -> "Evidence":
        """Together with more of the same kind and hour."""
        count, worst = self.count + other.count, max(self.worst, other.worst)
        return Evidence(self.peer, self.kind, self.hour, count, worst)
