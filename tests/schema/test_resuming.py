"""The payloads of RESUME and REPLAY frames: what is written is read, and what is no such thing is refused."""

import pytest

from schema.errors import MalformedFrame
from schema.ids import SessionId
from schema.limits import MAX_HOPS
from schema.resuming import (
    Replay,
    Resume,
    decode_replay,
    decode_resume,
    encode_replay,
    encode_resume,
)

BROKEN = SessionId(bytes(range(16)))
STOPS = [frozenset[int](), frozenset({0}), frozenset({1, 5, MAX_HOPS - 1}), frozenset(range(MAX_HOPS))]


@pytest.mark.parametrize("new", STOPS)
def test_a_resume_is_read_as_it_was_written(new: frozenset[int]) -> None:
    raw = encode_resume(Resume(BROKEN, new))
    assert len(raw) == 24
    assert decode_resume(memoryview(raw)) == Resume(BROKEN, new)


@pytest.mark.parametrize("new", STOPS)
@pytest.mark.parametrize("states", [b"", b"tensors"])
def test_a_replay_is_read_as_it_was_written(new: frozenset[int], states: bytes) -> None:
    raw = encode_replay(Replay(new, 2**32 - 1, states))
    assert decode_replay(memoryview(raw)) == Replay(new, 2**32 - 1, states)


def test_the_states_of_a_received_replay_are_not_copied() -> None:
    raw = encode_replay(Replay(frozenset(), 1, b"tensors"))
    states = decode_replay(raw).states
    assert isinstance(states, memoryview)
    assert states.obj is raw


@pytest.mark.parametrize("length", [0, 16, 23, 25])
def test_a_resume_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame, match=f"not {length}"):
        decode_resume(bytes(length))


@pytest.mark.parametrize("length", [0, 11])
def test_a_replay_that_is_too_short_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame, match=f"not {length}"):
        decode_replay(bytes(length))
