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

from schema.credentials import TokenKind
from schema.ids import PEER_ID_BYTES, PeerId, Span
from schema.limits import MAX_MODEL_NAME_CHARS, MAX_NAME_CHARS
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

    id: Mapped[str] = mapped_column(_TOKEN_ID, primary_key=True)
    kind: Mapped[TokenKind] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)


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
    seen_at: Mapped[float] = mapped_column(Double)
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
    """Who was there then (`relay.rebalancing.members_of`)."""


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
