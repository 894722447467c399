"""What a span has sent on to other hops, so that it can be sent again to whoever takes a dead hop's place.

For each session, the payloads that have left the span, by position: together the hidden states of all its
tokens. They are bytes in host memory, up to a capacity; beyond it the session that was used least recently
loses its record, and can then be repaired from token ids alone. A fork's record shares payloads with the one
that it was forked from; what is shared counts once.

A record is whole from position 0 on, or it is not there. Only sessions of one sequence have any. Owner: who
has the device. Does not know caches, hops or frames.
"""

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

from schema.errors import ResumeRefused, TooLarge
from schema.ids import SessionId
from schema.limits import MAX_REPLAY_BYTES
from schema.tensors import WireTensor, decode_tensors, encode_tensors


@dataclass(slots=True)
class _Sent:
    """One payload: hidden states [1, tokens, hidden] from a position on."""

    position: int
    payload: bytes
    holders: int = 0
    """Records that it is in."""


Record = list[_Sent]
"""In order. What overlaps the next one counts up to where that begins."""


class SentOutputs:
    """What was sent on of each session, by last use."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: bytes that are kept at most."""
        self.capacity = capacity
        self.used = 0
        """Bytes of all payloads, each counted once."""
        self.evicted = 0
        """Sessions whose record had to go for want of room."""
        self._records: OrderedDict[SessionId, Record] = OrderedDict()

    def __len__(self) -> int:
        """Sessions that have a record."""
        return len(self._records)

    def note(self, session: SessionId, position: int, payload: bytes) -> None:
        """This was sent on. What was noted from there on before counts no more."""
        record = self._records.get(session)
        if record is None:
            if position or not self.capacity:
                return  # without its beginning it is of no use
            record = self._records[session] = []
        while record and record[-1].position >= position:
            self._release(record.pop())
        self._hold(record, _Sent(position, payload))
        self._records.move_to_end(session)
        self._make_room()

    def tokens(self, session: SessionId) -> int:
        """How many tokens of the session can be sent again, from its first one on."""
        record = self._records.get(session)
        if not record:
            return 0
        return record[-1].position + _states(record[-1]).shape[1]

    def read(self, session: SessionId, start: int, end: int) -> bytes:
        """What was sent on of the tokens `[start, end)`, as one payload; counts as a use.

        Raises ResumeRefused where it is not kept, and TooLarge.
        """
        if not start < end <= self.tokens(session):
            raise ResumeRefused(
                f"what was sent on of tokens {start} to {end} is not kept here: send the tokens again"
            )
        record, tokens = self._records[session], end - start
        like = _states(record[0])
        row = len(like.data) // like.shape[1]
        if tokens > 1 and tokens * row > MAX_REPLAY_BYTES:  # before anything is put together
            raise TooLarge(f"{tokens} tokens are more than is sent again at once: ask for fewer at a time")
        self._records.move_to_end(session)
        index = bisect_right(record, start, key=lambda sent: sent.position) - 1
        parts: list[bytes | memoryview] = []
        while start < end:
            until = min(end, record[index + 1].position if index + 1 < len(record) else end)
            before = record[index].position
            parts.append(_states(record[index]).data[(start - before) * row : (until - before) * row])
            start, index = until, index + 1
        return encode_tensors([WireTensor(like.dtype, (1, tokens, like.shape[2]), b"".join(parts))])

    def share(self, session: SessionId, fork: SessionId, tokens: int) -> None:
        """Another session begins with the first `tokens` tokens of this one."""
        record = self._records.get(session)
        if record is None or self.tokens(session) < tokens:
            return
        self._records.move_to_end(session)
        copy = self._records[fork] = []
        for sent in record[: bisect_right(record, tokens - 1, key=lambda sent: sent.position)]:
            self._hold(copy, sent)

    def rename(self, session: SessionId, name: SessionId) -> None:
        """The session goes on under another name, which has no record."""
        record = self._records.pop(session, None)
        if record is not None:
            self._records[name] = record

    def drop(self, session: SessionId) -> None:
        """The session is over, or cannot be sent again."""
        for sent in self._records.pop(session, ()):
            self._release(sent)

    def _make_room(self) -> None:
        while self.used > self.capacity:
            self.drop(next(iter(self._records)))
            self.evicted += 1

    def _hold(self, record: Record, sent: _Sent) -> None:
        record.append(sent)
        if not sent.holders:
            self.used += len(sent.payload)
        sent.holders += 1

    def _release(self, sent: _Sent) -> None:
        sent.holders -= 1
        if not sent.holders:
            self.used -= len(sent.payload)


def _states(sent: _Sent) -> WireTensor:
    return decode_tensors(sent.payload)[0]
