"""Slices of one session that wait behind one another, computed as one.

A prompt travels in slices that a slow line can carry and a route's hops can pass on early. Where a pass takes
about as long whatever its size, as on a GPU, computing each by itself would take as many times as long as it
has to. Each slice is answered as if it had been computed by itself, where all of them can be computed.

Pure: plain values, no tensors of a library. Does not know when that is worth it (volunteer/pacing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from schema.errors import MalformedTensor, TooLarge
from schema.frames import Flags, FrameType
from schema.ids import Span
from schema.tensors import WireTensor, decode_tensors, encode_tensors
from volunteer.work import Result, Work

_FLAGS = (
    (Flags.NONE, Flags.NONE),
    (Flags.NO_OUTPUT, Flags.NO_OUTPUT),
    (Flags.NO_OUTPUT, Flags.LAST_ONLY),
)
"""Of one slice and the next, where the next one's say what is wanted of both."""


@dataclass(frozen=True, slots=True)
class JoinedSlices:
    """Several slices as one."""

    work: Work
    """All of them."""
    parts: Sequence[Work]
    """In the order of their positions."""

    def results(self, result: Result) -> list[Result]:
        """What the parts are answered with, where `result` is what became of the whole."""
        if len(self.parts) == 1:
            return [result]
        if result.error is not None:
            return [Result(part, error=result.error) for part in self.parts]
        if not result.payload:
            return [Result(part, tokens=part.tokens) for part in self.parts]
        (whole,) = decode_tensors(result.payload)
        wanted = _split(whole, [_wanted(part) for part in self.parts])
        return [
            Result(part, encode_tensors([one]), tokens=part.tokens)
            for part, one in zip(self.parts, wanted, strict=True)
        ]


def alone(work: Work) -> JoinedSlices:
    """`work` by itself."""
    return JoinedSlices(work, (work,))


def join(slices: Sequence[Work]) -> JoinedSlices | None:
    """`slices` of one session, in the order in which they came, as one; None where they are not of one kind.

    What is wrong with a payload is for whoever computes it by itself to say.
    """
    if not all(follows(one, after) for one, after in pairwise(slices)):
        return None
    try:
        payload = _joined_payload(slices)
    except (MalformedTensor, TooLarge):
        return None
    if payload is None:
        return None
    tokens = sum(one.tokens for one in slices)
    return JoinedSlices(
        replace(slices[-1], position=slices[0].position, payload=payload, tokens=tokens), tuple(slices)
    )


def follows(one: Work, after: Work) -> bool:
    """Whether `after` can be joined to `one`, which is of its session, as far as their payloads allow it."""
    return (
        one.is_slice
        and one.position + one.tokens == after.position
        and _kind(one) == _kind(after)
        and (one.flags & ~Flags.TIMED, after.flags & ~Flags.TIMED) in _FLAGS
    )


def _kind(work: Work) -> tuple[FrameType, int, Span, bool, bool]:
    return work.kind, work.epoch, work.span, work.feeds_hop, work.feeds_new


def _wanted(part: Work) -> int:
    """How many tokens' hidden states a part is answered with."""
    if Flags.NO_OUTPUT in part.flags:
        return 0
    return 1 if Flags.LAST_ONLY in part.flags else part.tokens


def _joined_payload(slices: Sequence[Work]) -> bytes | None:
    """Hidden states of one sequence; None where they are of several, or anything else comes with them."""
    found = [decode_tensors(one.payload) for one in slices]
    kinds = {(one[0].dtype, one[0].role, one[0].shape[2:]) for one in found if len(one) == 1}
    sizes = [[tensor.shape[:2] for tensor in one] for one in found]
    if len(kinds) != 1 or sizes != [[(1, work.tokens)] for work in slices]:
        return None
    first = found[0][0]
    shape = 1, sum(work.tokens for work in slices), *first.shape[2:]
    return encode_tensors([first._replace(shape=shape, data=b"".join(one[0].data for one in found))])


def _split(whole: WireTensor, counts: Sequence[int]) -> list[WireTensor]:
    """Hidden states [1, tokens, hidden], so many tokens of them each."""
    _, tokens, width = whole.shape
    row_bytes = len(whole.data) // tokens if tokens else 0
    data = memoryview(whole.data)
    return [
        WireTensor(whole.dtype, (1, count, width), data[row_bytes * (end - count) : row_bytes * end])
        for count, end in zip(counts, accumulate(counts), strict=True)
    ]
