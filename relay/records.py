"""What the database holds, as frozen values: what the store returns and what decisions are made from.

Times are Unix seconds. This module knows no SQL, no sockets and no clock, so that a decision over
10,000 of these can be simulated in a test.
"""

from dataclasses import dataclass
from typing import NamedTuple

from schema.batches import BatchStatus
from schema.credentials import TokenKind
from schema.files import FilePurpose
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
    parent: str | None = None
    """The token that has made it; None: the operator has."""
    expires_at: float | None = None
    replies_at_once: int | None = None
    """That it may have made, or wait for; None: as many as any token."""
    tokens_a_day: int | None = None
    """That its replies may take, prompts included; None: any number."""

    def is_good(self, now: float) -> bool:
        """Whether it is neither revoked nor expired. `now`: Unix time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """What a token may; None: no limit of its own."""

    expires_at: float | None = None
    replies_at_once: int | None = None
    tokens_a_day: int | None = None


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
    """A span that volunteers hold or shall hold, as their rows say."""

    model: str
    start: int
    end: int
    head: bool
    volunteers: int
    """How many; either all of them have measured, or none has."""
    blocks_per_second: float
    """Of each, in the mean; 0 where none has measured."""


class HeldTogether(NamedTuple):
    """Volunteers of one model that hold the same span, and could hold as many blocks elsewhere."""

    start: int
    end: int
    room: int | None
    """As each of them has said."""
    blocks_per_second: float
    """Of all together; of those that have not measured nothing is counted."""
    fastest: float
    """Of one."""


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


class Contribution(NamedTuple):
    """What a volunteer has done for others on one day, or in a part of it. In the order of the columns."""

    peer: PeerId
    day: float
    """Its beginning, in UTC."""
    name: str
    """Empty: not known."""
    blocks_steps: int
    replies: int
    hours: int
    """In which it did: a bit for each of the day's 24, the first the lowest."""


class QuarantineRecord(NamedTuple):
    """That an operator keeps a volunteer out of routes, or has kept it."""

    peer: PeerId
    at: float
    reason: str
    by: str | None
    """The admin's token; None: from the command line. As of `ended_by`."""
    ended_at: float | None = None
    end_reason: str | None = None
    ended_by: str | None = None


class Leader(NamedTuple):
    """What a volunteer has done for others over some days."""

    peer: PeerId
    name: str
    blocks_steps: int
    replies: int
    hours: int
    """How many hours in which it did."""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """Tokens that the replies of one access token and model took, on one day or a part of it."""

    token_id: str
    day: float
    """Its beginning, in UTC."""
    model: str
    replies: int
    prompt_tokens: int
    cached_tokens: int
    """Of the prompts, that were not computed again."""
    completion_tokens: int

    @property
    def key(self) -> tuple[str, float, str]:
        return self.token_id, self.day, self.model

    def plus(self, other: "UsageRecord") -> "UsageRecord":
        """Together with more of the same token, day and model."""
        return UsageRecord(
            *self.key,
            self.replies + other.replies,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


class FileRecord(NamedTuple):
    """A file; its bytes are in the storage, under its id. In the order of the table's columns."""

    id: str
    token_id: str
    filename: str
    purpose: FilePurpose
    bytes: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None = None
    """The id of the last one of the page before."""
    ascending: bool = False
    """The oldest first, in place of the newest."""


class BatchRecord(NamedTuple):
    """A batch. In the order of the table's columns, which say what they mean (relay/tables.py)."""

    id: str
    token_id: str
    endpoint: str
    input_file_id: str
    status: BatchStatus
    created_at: float
    expires_at: float
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int | None = 0
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0
    errors: str | None = None
    labels: str | None = None
    holder: str | None = None
    leased_until: float = 0.0


class ChunkRecord(NamedTuple):
    """Lines of a batch that follow each other."""

    number: int
    first_line: int
    lines: int
    """Those that are not blank."""
    offset: int
    size: int
    """Bytes, from the first line's first to the last one's last."""


ChunkKey = tuple[str, int]
"""The batch and the chunk's number in it."""


class HeldChunk(NamedTuple):
    """A chunk that somebody works on, and what must be known of its batch."""

    batch_id: str
    token_id: str
    endpoint: str
    input_file_id: str
    chunk: ChunkRecord

    @property
    def key(self) -> ChunkKey:
        return self.batch_id, self.chunk.number


class AnswerRecord(NamedTuple):
    """What came of one line, and the tokens that it took. In the order of the table's columns."""

    batch_id: str
    line: int
    is_error: bool
    output: str
    prompt_tokens: int | None = 0
    """None, as of the others: a relay has written it that did not note them yet."""
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0


class WebhookRecord(NamedTuple):
    """An event that somebody is still to be told of. In the order of the table's columns."""

    id: str
    token_id: str
    url: str
    payload: str
    created_at: float
    attempts: int = 0
    due_at: float = 0.0
