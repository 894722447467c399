"""Names of things on the wire: peers, sessions and spans of blocks.

Knows their textual and binary forms. Does not know who hands them out.
"""

import secrets
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import NewType

from schema.errors import MalformedMessage
from schema.limits import MAX_BLOCKS

PeerId = NewType("PeerId", str)
"""A connected process (volunteer or client): 16 lower-case hex digits, 8 bytes on the wire."""

SessionId = NewType("SessionId", bytes)
"""One sequence being generated: 16 random bytes chosen by its driver."""

PEER_ID_BYTES = 8
SESSION_ID_BYTES = 16
NAMED_SESSIONS = 4096
"""Whose names at hops are remembered: a session's every frame asks for it."""
_HEX = frozenset("0123456789abcdef")


def new_session_id() -> SessionId:
    return SessionId(secrets.token_bytes(SESSION_ID_BYTES))


def new_instance_key() -> str:
    """A process's secret self-chosen name: what lets it be the same peer again after a reconnect."""
    return secrets.token_hex(16)


def derive_peer_id(token_id: str, instance_key: str) -> PeerId:
    """The peer id of one process under one token.

    Bound to the token, so that nobody without it can take over another's id; and to the instance
    key, so that the same process gets the same id from every relay replica, with no table.
    """
    digest = sha256(f"peer\0{token_id}\0{instance_key}".encode()).hexdigest()
    return PeerId(digest[: 2 * PEER_ID_BYTES])


def is_peer_id(text: str) -> bool:
    return len(text) == 2 * PEER_ID_BYTES and _HEX.issuperset(text)


def peer_id_to_bytes(peer: PeerId) -> bytes:
    if not is_peer_id(peer):
        raise MalformedMessage(f"a peer id is {2 * PEER_ID_BYTES} lower-case hex digits, not {peer!r}")
    return bytes.fromhex(peer)


def peer_id_from_bytes(raw: bytes) -> PeerId:
    return PeerId(raw.hex())


@lru_cache(NAMED_SESSIONS)
def session_at_hop(origin: PeerId, session: SessionId) -> SessionId:
    """The name under which a hop keeps a session: its driver's peer id is part of it.

    Every hop of a route sees the session id. Were it the whole name, one of them could get a route of
    its own for the same id and alter or close the session on the others.
    """
    return SessionId(sha256(peer_id_to_bytes(origin) + session).digest()[:SESSION_ID_BYTES])


def model_key(model: str) -> bytes:
    """Eight bytes that stand for a model in a route: the head of the SHA-256 of its name."""
    return sha256(b"model\0" + model.encode()).digest()[:8]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Blocks `[start, end)` of one model, counted from 0."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_BLOCKS:
            raise MalformedMessage(
                f"a span needs 0 <= start < end <= {MAX_BLOCKS}, not [{self.start}, {self.end})"
            )

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"
