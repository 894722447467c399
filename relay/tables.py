"""The tables, and nothing else: SQLite and PostgreSQL both hold them as they are written here.

Only the store and the migrations import this. Times are Unix seconds. Nothing here is written while
a token travels: volunteers' rows change when they join, change state or have been heard of.
"""

from sqlalchemy import (
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from schema.batches import BatchStatus
from schema.credentials import TokenKind
from schema.files import MAX_FILE_NAME_CHARS, FilePurpose
from schema.ids import PEER_ID_BYTES, PeerId, Span
from schema.limits import MAX_MODEL_NAME_CHARS, MAX_NAME_CHARS, MAX_QUARANTINE_CHARS
from schema.swarm import EvidenceKind, VolunteerState

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

MAX_REPLICA_CHARS = 64
_TOKEN_ID = String(12)
_MODEL_NAME = String(MAX_MODEL_NAME_CHARS)
_MADE_ID = String(40)
"""Of files, batches and webhooks."""
_HOLDER = String(32)
MAX_IDEMPOTENCY_KEY_CHARS = 255


class Spans(TypeDecorator[tuple[Span, ...]]):
    """Spans as text, `0:4,8:12`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[Span, ...] | None, dialect: Dialect) -> str:
        return ",".join(map(str, value or ()))

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[Span, ...]:
        bounds = (run.split(":") for run in (value or "").split(",") if run)
        return tuple(Span(int(start), int(end)) for start, end in bounds)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Token(Base):
    """A token that was handed out. Never deleted, so that a volunteer's row always has its token."""

    __tablename__ = "tokens"
    __table_args__ = (
        Index("ix_tokens_revoked_at", "revoked_at"),
        Index("ix_tokens_parent", "parent"),
        Index("ix_tokens_expires_at", "expires_at"),
        Index("ix_tokens_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(_TOKEN_ID, primary_key=True)
    kind: Mapped[TokenKind] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
    parent: Mapped[str | None] = mapped_column(_TOKEN_ID)
    """The token that has made it; null: the operator has."""
    expires_at: Mapped[float | None] = mapped_column(Double)
    replies_at_once: Mapped[int | None]
    """That it may have made, or wait for."""
    tokens_a_day: Mapped[int | None] = mapped_column(BigInteger)
    """That its replies may take, prompts included."""


class Secret(Base):
    """Random values that all replicas share, hex."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(128))


class Model(Base):
    """A model that the swarm serves; the facts are null until a volunteer has reported them."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(_MODEL_NAME, primary_key=True)
    position: Mapped[int]
    """Its place in the operator's order, the most important first."""
    from_settings: Mapped[bool]
    added_at: Mapped[float] = mapped_column(Double)
    reported_by: Mapped[str | None] = mapped_column(String(64))
    digest: Mapped[str | None] = mapped_column(String(64))
    family: Mapped[str | None] = mapped_column(String(64))
    blocks: Mapped[int | None]
    hidden_size: Mapped[int | None]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    context: Mapped[int | None] = mapped_column(BigInteger)


class Replica(Base):
    """A replica's lease: the rows of its volunteers count as long as it is heard of."""

    __tablename__ = "replicas"

    name: Mapped[str] = mapped_column(String(MAX_REPLICA_CHARS), primary_key=True)
    seen_at: Mapped[float] = mapped_column(Double)
    replies: Mapped[str] = mapped_column(Text, server_default="{}")
    """Of people, that it had under way then, by model: JSON. Lines of batches make room for them."""


class Volunteer(Base):
    """A connected volunteer and its span: the swarm's span coverage."""

    __tablename__ = "volunteers"

    peer: Mapped[PeerId] = mapped_column(String(2 * PEER_ID_BYTES), primary_key=True)
    token_id: Mapped[str] = mapped_column(_TOKEN_ID, ForeignKey("tokens.id"))
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    device: Mapped[str] = mapped_column(String(100))
    memory: Mapped[int] = mapped_column(BigInteger)
    replica: Mapped[str] = mapped_column(String(MAX_REPLICA_CHARS))
    state: Mapped[VolunteerState] = mapped_column(String(16))
    joined_at: Mapped[float] = mapped_column(Double)
    model: Mapped[str | None] = mapped_column(_MODEL_NAME)
    start: Mapped[int | None]
    end: Mapped[int | None]
    head: Mapped[bool]
    dtype: Mapped[str | None] = mapped_column(String(16))
    quantization: Mapped[str | None] = mapped_column(String(16))
    blocks_per_second: Mapped[float] = mapped_column(Double)
    room: Mapped[int | None]
    cached: Mapped[tuple[Span, ...]] = mapped_column(Spans, server_default="")
    settled_at: Mapped[float] = mapped_column(Double, server_default="0")


class Move(Base):
    """A volunteer that was told to hold another span. Append-only."""

    __tablename__ = "moves"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Double)
    model: Mapped[str] = mapped_column(_MODEL_NAME)
    peer: Mapped[PeerId] = mapped_column(String(2 * PEER_ID_BYTES))
    from_start: Mapped[int]
    from_end: Mapped[int]
    to_start: Mapped[int]
    to_end: Mapped[int]
    gain: Mapped[float] = mapped_column(Double)
    """Tokens a second of the model's strength, as predicted."""
    members: Mapped[str] = mapped_column(String(32))
    """Who was there then (`relay.moves.members_of`)."""


class EvidenceRow(Base):
    """How often something happened with a volunteer in an hour, or a part of it; its row may be long gone."""

    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_peer_hour", "peer", "hour"), Index("ix_evidence_hour", "hour"))

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    peer: Mapped[PeerId] = mapped_column(String(2 * PEER_ID_BYTES))
    kind: Mapped[EvidenceKind] = mapped_column(String(16))
    hour: Mapped[float] = mapped_column(Double)
    """Its beginning."""
    count: Mapped[int] = mapped_column(BigInteger)
    worst: Mapped[float] = mapped_column(Double)
    replica: Mapped[str] = mapped_column(String(MAX_REPLICA_CHARS))
    """Who saw it; empty once the rows of several were put together."""


class ContributionRow(Base):
    """What a volunteer has done on one day; a sum that all replicas add to."""

    __tablename__ = "contributions"
    __table_args__ = (Index("ix_contributions_day", "day"),)

    peer: Mapped[PeerId] = mapped_column(String(2 * PEER_ID_BYTES), primary_key=True)
    day: Mapped[float] = mapped_column(Double, primary_key=True)
    """Its beginning, in UTC."""
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    """As it was called last; empty where that is not known."""
    blocks_steps: Mapped[int] = mapped_column(BigInteger)
    replies: Mapped[int] = mapped_column(BigInteger)
    hours: Mapped[int]
    """In which it did something: a bit for each of the day's 24, the first the lowest."""


class QuarantineRow(Base):
    """That an operator has kept a volunteer out of routes, and why; of one that is over, also until when."""

    __tablename__ = "quarantines"
    __table_args__ = (Index("ix_quarantines_peer", "peer"), Index("ix_quarantines_ended_at", "ended_at"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    peer: Mapped[PeerId] = mapped_column(String(2 * PEER_ID_BYTES))
    at: Mapped[float] = mapped_column(Double)
    reason: Mapped[str] = mapped_column(String(MAX_QUARANTINE_CHARS))
    by: Mapped[str | None] = mapped_column(_TOKEN_ID)
    """The admin's token; null: from the command line. As of `ended_by`."""
    ended_at: Mapped[float | None] = mapped_column(Double)
    end_reason: Mapped[str | None] = mapped_column(String(MAX_QUARANTINE_CHARS))
    ended_by: Mapped[str | None] = mapped_column(_TOKEN_ID)


class File(Base):
    """A file that somebody has uploaded, or that a batch has written; its bytes are in the storage."""

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_token_id_created_at", "token_id", "created_at"),)

    id: Mapped[str] = mapped_column(_MADE_ID, primary_key=True)
    token_id: Mapped[str] = mapped_column(_TOKEN_ID, ForeignKey("tokens.id"))
    filename: Mapped[str] = mapped_column(String(MAX_FILE_NAME_CHARS))
    purpose: Mapped[FilePurpose] = mapped_column(String(16))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Double)


class BatchRow(Base):
    """A batch. What is done with it as a whole (checking, writing its files) is done under its lease."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_token_id_created_at", "token_id", "created_at"),
        Index("ix_batches_status", "status"),
        Index("ix_batches_input_file_id", "input_file_id"),
    )

    id: Mapped[str] = mapped_column(_MADE_ID, primary_key=True)
    token_id: Mapped[str] = mapped_column(_TOKEN_ID, ForeignKey("tokens.id"))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file_id: Mapped[str] = mapped_column(_MADE_ID)
    status: Mapped[BatchStatus] = mapped_column(String(16))
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double)
    in_progress_at: Mapped[float | None] = mapped_column(Double)
    finalizing_at: Mapped[float | None] = mapped_column(Double)
    completed_at: Mapped[float | None] = mapped_column(Double)
    failed_at: Mapped[float | None] = mapped_column(Double)
    expired_at: Mapped[float | None] = mapped_column(Double)
    """While it is `finalizing`: its time was over before all lines were answered."""
    cancelling_at: Mapped[float | None] = mapped_column(Double)
    cancelled_at: Mapped[float | None] = mapped_column(Double)
    output_file_id: Mapped[str | None] = mapped_column(_MADE_ID)
    error_file_id: Mapped[str | None] = mapped_column(_MADE_ID)
    total: Mapped[int]
    completed: Mapped[int]
    """With `failed` and the tokens, known when the files are written; before that, answers are counted."""
    failed: Mapped[int]
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    """That its answers took; null, as the next two: not known, it is from before they were noted."""
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    errors: Mapped[str | None] = mapped_column(Text)
    """JSON."""
    labels: Mapped[str | None] = mapped_column(Text)
    """JSON; `metadata` in the API, a name that SQLAlchemy has taken."""
    holder: Mapped[str | None] = mapped_column(_HOLDER)
    leased_until: Mapped[float] = mapped_column(Double)


class BatchChunk(Base):
    """Lines of a batch that follow each other and are not all answered yet; gone when they are."""

    __tablename__ = "batch_chunks"
    __table_args__ = (
        Index("ix_batch_chunks_number", "number", "batch_id"),
        Index("ix_batch_chunks_leased_until", "leased_until"),
    )

    batch_id: Mapped[str] = mapped_column(_MADE_ID, ForeignKey("batches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first_line: Mapped[int]
    lines: Mapped[int]
    offset: Mapped[int] = mapped_column(BigInteger)
    """In the input file; bytes, as `size`."""
    size: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str | None] = mapped_column(_HOLDER)
    """Who works on it, until then."""
    leased_until: Mapped[float] = mapped_column(Double)
    running: Mapped[int]
    """Lines of it that the holder had under way when it renewed its lease last."""


class BatchAnswer(Base):
    """What came of one line: written once. Gone soon after the batch's files are written."""

    __tablename__ = "batch_answers"
    __table_args__ = (Index("ix_batch_answers_is_error", "batch_id", "is_error", "line"),)

    batch_id: Mapped[str] = mapped_column(_MADE_ID, ForeignKey("batches.id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    is_error: Mapped[bool]
    output: Mapped[str] = mapped_column(Text)
    """The line of the output or error file, JSON."""
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    """That it took, as the next two; null: a relay has written it that did not note them yet."""
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """A request that may be sent again, and what it was answered."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    token_id: Mapped[str] = mapped_column(_TOKEN_ID, ForeignKey("tokens.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(MAX_IDEMPOTENCY_KEY_CHARS), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the request: SHA-256, hex."""
    answer: Mapped[str] = mapped_column(Text)
    """JSON."""
    created_at: Mapped[float] = mapped_column(Double)


class Webhook(Base):
    """An event that somebody is still to be told of."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_due_at", "due_at"),)

    id: Mapped[str] = mapped_column(_MADE_ID, primary_key=True)
    token_id: Mapped[str] = mapped_column(_TOKEN_ID, ForeignKey("tokens.id"))
    url: Mapped[str] = mapped_column(Text)
    payload: Mapped[str] = mapped_column(Text)
    """JSON."""
    created_at: Mapped[float] = mapped_column(Double)
    attempts: Mapped[int]
    due_at: Mapped[float] = mapped_column(Double)
    """When it is to be tried next, or, of one that is being tried, again."""


class UsageRow(Base):
    """Tokens that an access token's replies of one model took on one day; its token is never deleted."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_day", "day"),)

    token_id: Mapped[str] = mapped_column(_TOKEN_ID, primary_key=True)
    day: Mapped[float] = mapped_column(Double, primary_key=True)
    """Its beginning, in UTC."""
    model: Mapped[str] = mapped_column(_MODEL_NAME, primary_key=True)
    replies: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
