"""What a hop keeps of what it has sent on: the same bytes again, within a bound, and none at the end."""

import random
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from corolla.tensors import from_wire, to_wire
from schema.errors import ResumeRefused, TooLarge
from schema.ids import SessionId
from schema.limits import MAX_REPLAY_BYTES, TARGET_SLICE_BYTES
from schema.tensors import decode_tensors, encode_tensors
from volunteer.sent import SentOutputs

A, B, C = (SessionId(letter * 16) for letter in (b"a", b"b", b"c"))
STATES = torch.randn(1, 64, 4, generator=torch.Generator().manual_seed(0))
"""What was sent on of 64 tokens."""


def payload(start: int, end: int, states: Tensor = STATES) -> bytes:
    return encode_tensors([to_wire(states[:, start:end].contiguous())])


ONE = len(payload(0, 1))
"""Bytes of one token."""


def kept(sent: SentOutputs, session: SessionId, start: int, end: int) -> Tensor:
    (wire,) = decode_tensors(sent.read(session, start, end))
    return from_wire(wire)


def filled(*lengths: int, capacity: int = 2**20, session: SessionId = A) -> SentOutputs:
    """A session whose steps had so many tokens."""
    sent = SentOutputs(capacity)
    fill(sent, session, *lengths)
    return sent


def fill(sent: SentOutputs, session: SessionId, *lengths: int) -> None:
    position = 0
    for length in lengths:
        sent.note(session, position, payload(position, position + length))
        position += length


@pytest.mark.parametrize(("start", "end"), [(0, 14), (0, 1), (3, 9), (8, 9), (9, 14), (13, 14), (0, 8)])
def test_is_given_again_as_one_payload_wherever_it_is_cut(start: int, end: int) -> None:
    sent = filled(8, 1, 1, 4)
    assert sent.tokens(A) == 14
    assert torch.equal(kept(sent, A, start, end), STATES[:, start:end])


def test_is_cut_where_a_session_goes_back() -> None:
    sent = filled(8, 1, 1, 4)
    other = -STATES
    sent.note(A, 5, payload(5, 7, other))
    assert sent.tokens(A) == 7
    assert torch.equal(kept(sent, A, 0, 7), torch.cat([STATES[:, :5], other[:, 5:7]], dim=1))
    assert sent.used == len(payload(0, 8)) + len(payload(5, 7))


def test_begins_again_with_a_session_that_does() -> None:
    sent = filled(8, 1, 1)
    fill(sent, A, 3)
    assert (sent.tokens(A), sent.used) == (3, len(payload(0, 3)))


@pytest.mark.parametrize(("start", "end"), [(0, 15), (14, 15), (3, 3), (5, 4)])
def test_what_is_not_there_is_refused_by_name(start: int, end: int) -> None:
    with pytest.raises(ResumeRefused, match=f"tokens {start} to {end}"):
        filled(14).read(A, start, end)


def test_more_than_a_slice_is_refused_by_name_but_for_one_token() -> None:
    sent, wide = SentOutputs(2**30), torch.zeros(1, 1, MAX_REPLAY_BYTES // 4)
    for position in range(3):
        sent.note(A, position, encode_tensors([to_wire(wide)]))
    with pytest.raises(TooLarge, match="2 tokens"):
        sent.read(A, 0, 2)
    assert kept(sent, A, 1, 2).shape == wide.shape


def test_a_slice_of_a_driver_that_computes_in_half_as_many_bits_is_sent_again() -> None:
    sent, slice_of_floats = SentOutputs(2**30), torch.zeros(1, 8, 2 * TARGET_SLICE_BYTES // 4 // 8)
    sent.note(A, 0, encode_tensors([to_wire(slice_of_floats)]))
    assert kept(sent, A, 0, 8).shape == slice_of_floats.shape


def test_a_session_whose_beginning_is_not_there_has_none() -> None:
    sent = SentOutputs(2**20)
    sent.note(A, 8, payload(8, 9))
    assert (len(sent), sent.used, sent.tokens(A)) == (0, 0, 0)


def test_a_fork_shares_what_it_begins_with() -> None:
    sent = filled(8, 1, 1, 4)
    used = sent.used
    sent.share(A, B, 9)
    sent.share(A, C, 5)
    assert sent.used == used
    sent.drop(A)
    assert sent.used == len(payload(0, 8)) + ONE
    sent.note(B, 9, payload(9, 11))
    sent.note(C, 5, payload(5, 6))
    assert torch.equal(kept(sent, B, 0, 11), STATES[:, :11])
    assert torch.equal(kept(sent, C, 0, 6), STATES[:, :6])
    sent.drop(B)
    sent.drop(C)
    assert (len(sent), sent.used) == (0, 0)


def test_a_fork_of_what_is_not_kept_has_none() -> None:
    sent = filled(8)
    sent.share(A, B, 9)
    sent.share(C, B, 1)
    assert (len(sent), sent.tokens(B)) == (1, 0)


def test_goes_on_under_another_name() -> None:
    sent = filled(8, 1)
    sent.rename(A, B)
    sent.rename(C, A)
    assert (sent.tokens(A), sent.tokens(B), len(sent)) == (0, 9, 1)


def test_the_session_used_least_recently_goes_first() -> None:
    sent = filled(1, 1, capacity=6 * ONE)
    fill(sent, B, 1, 1)
    fill(sent, C, 1, 1)
    sent.read(A, 0, 1)
    sent.note(C, 2, payload(2, 3))
    assert (sent.tokens(A), sent.tokens(B), sent.tokens(C)) == (2, 0, 3)
    assert (sent.used, sent.evicted) == (5 * ONE, 1)


def test_one_session_that_is_larger_than_all_room_takes_none() -> None:
    sent = filled(1, 1, 1, 1, capacity=3 * ONE)
    assert (len(sent), sent.used, sent.evicted) == (0, 0, 1)


def test_without_room_nothing_is_kept() -> None:
    sent = filled(1, 1, capacity=0)
    assert (len(sent), sent.used, sent.evicted) == (0, 0, 0)


# ---- thousands of sessions -----------------------------------------------------------------------


@dataclass
class Life:
    """Random sessions, and of each the payloads that count."""

    rng: random.Random
    sent: SentOutputs = field(default_factory=lambda: SentOutputs(40 * ONE))
    open: dict[SessionId, list[tuple[int, bytes]]] = field(
        default_factory=dict[SessionId, list[tuple[int, bytes]]]
    )
    checked: int = 0
    begun: int = 0

    def act(self) -> None:
        acts = [self.begin, self.go_on, self.go_on, self.go_on, self.fork, self.rename, self.end]
        self.rng.choice(acts)()
        self.compare()

    def begin(self) -> None:
        self.begun += 1
        self.note(self.new(), 0, self.rng.choice([1, 3, 8]))

    def go_on(self) -> None:
        if self.open:
            session = self.rng.choice(list(self.open))
            end = self.end_of(session)
            self.note(session, self.rng.choice([end, end, end, self.rng.randint(0, end)]), 1)

    def fork(self) -> None:
        if self.open:
            session, fork = self.rng.choice(list(self.open)), self.new()
            tokens = self.rng.randint(1, self.end_of(session))
            whole = self.sent.tokens(session)
            self.sent.share(session, fork, tokens)
            if whole:
                self.open[fork] = [one for one in self.open[session] if one[0] < tokens]

    def rename(self) -> None:
        if self.open:
            session, name = self.rng.choice(list(self.open)), self.new()
            self.sent.rename(session, name)
            self.open[name] = self.open.pop(session)

    def end(self) -> None:
        if self.open:
            session = self.rng.choice(list(self.open))
            del self.open[session]
            self.sent.drop(session)

    def note(self, session: SessionId, position: int, tokens: int) -> None:
        if position + tokens <= STATES.shape[1]:
            one = payload(position, position + tokens)
            self.open[session] = [old for old in self.open.get(session, []) if old[0] < position]
            self.open[session].append((position, one))
            self.sent.note(session, position, one)

    def new(self) -> SessionId:
        return SessionId(self.rng.randbytes(16))

    def end_of(self, session: SessionId) -> int:
        position, last = self.open[session][-1]
        return position + decode_tensors(last)[0].shape[1]

    def compare(self) -> None:
        """What has a record is whole, and what is counted is what is there."""
        self.open = {one: parts for one, parts in self.open.items() if self.sent.tokens(one)}
        assert len(self.sent) == len(self.open)
        there = {id(part): len(part) for parts in self.open.values() for _, part in parts}
        assert self.sent.used == sum(there.values()) <= self.sent.capacity
        if self.open:
            session = self.rng.choice(list(self.open))
            end = self.end_of(session)
            assert torch.equal(kept(self.sent, session, 0, end), STATES[:, :end])
            self.checked += 1


def test_thousands_of_random_sessions_are_counted_exactly_and_leave_nothing_behind() -> None:
    life = Life(random.Random(7))
    for _ in range(20_000):
        life.act()
    assert life.begun > 2000
    assert life.checked > 10_000
    assert life.sent.evicted > 500
    for session in list(life.open):
        life.sent.drop(session)
    assert (len(life.sent), life.sent.used) == (0, 0)
