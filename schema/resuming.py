"""What RESUME and REPLAY frames carry: how a broken session goes on over a route of which some stops are new.

    RESUME   broken session 16 bytes | new stops u64
    REPLAY   new stops u64 | tokens u32 | hidden states as tensors (schema/tensors.py), or nothing

Little endian. Stop `i` is new when bit `i` of the new stops is set: it holds nothing of the broken session.
A REPLAY is about `tokens` tokens from its frame's position on. It carries their hidden states to stops that
are new, and nothing to the others.

Does not know who sends them, nor what becomes of them.
"""

import struct
from typing import NamedTuple

from schema.errors import MalformedFrame
from schema.ids import SessionId
from schema.limits import MAX_HOPS

_RESUME = struct.Struct("<16sQ")
_REPLAY = struct.Struct("<QI")

NewStops = frozenset[int]
"""Numbers of stops."""


class Resume(NamedTuple):
    """A RESUME's payload."""

    broken: SessionId
    new: NewStops


class Replay(NamedTuple):
    """A REPLAY's payload."""

    new: NewStops
    tokens: int
    states: bytes | memoryview = b""
    """Tensors as a payload of theirs, or nothing."""


def encode_resume(resume: Resume) -> bytes:
    return _RESUME.pack(resume.broken, _mask(resume.new))


def decode_resume(payload: bytes | memoryview) -> Resume:
    """Raises MalformedFrame."""
    if len(payload) != _RESUME.size:
        raise MalformedFrame(f"a RESUME carries {_RESUME.size} bytes, not {len(payload)}")
    broken, mask = _RESUME.unpack(payload)
    return Resume(SessionId(broken), _stops(mask))


def encode_replay(replay: Replay) -> bytes:
    return b"".join((_REPLAY.pack(_mask(replay.new), replay.tokens), replay.states))


def decode_replay(payload: bytes | memoryview) -> Replay:
    """The states are a view into the payload. Raises MalformedFrame."""
    if len(payload) < _REPLAY.size:
        raise MalformedFrame(f"a REPLAY carries {_REPLAY.size} bytes at least, not {len(payload)}")
    mask, tokens = _REPLAY.unpack_from(payload)
    return Replay(_stops(mask), tokens, memoryview(payload)[_REPLAY.size :])


def _mask(stops: NewStops) -> int:
    return sum(1 << stop for stop in stops)


def _stops(mask: int) -> NewStops:
    return frozenset(stop for stop in range(MAX_HOPS) if mask >> stop & 1)
