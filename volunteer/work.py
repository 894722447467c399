"""What enters and leaves the device: one step of one session, what became of it, and what runs it.

Plain values: no tensors, no threads. The payloads are those of frames, see `schema.tensors`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schema.errors import CorollaError, MalformedTensor
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import Role, decode_tensors
from schema.trace import HopTrace


@dataclass(slots=True)
class Stopwatch:
    """How long one step is here. Written by the event loop, then by whoever has the device, then read."""

    arrived: float
    """On the clock of `time.monotonic`."""
    computed: float = 0.0
    """Seconds that the batches took which it was in."""

    def read(self, now: float) -> HopTrace:
        """How long it has been here, at its end."""
        return HopTrace(now - self.arrived - self.computed, self.computed)


_ERRANDS = frozenset({FrameType.FORK, FrameType.RESUME})


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One step of one session, as it came in a frame. Two of them are equal only if they are the same one."""

    kind: FrameType
    """Any that travels along a route; PREFILL, REPLAY and FORWARD yield to the others."""
    session: SessionId
    step: int
    position: int
    epoch: int
    span: Span
    """The blocks that the route wants from this volunteer."""
    payload: bytes | memoryview
    flags: Flags = Flags.NONE
    """What to send back. NONE on every hop but the route's last: the next hop needs all."""
    tokens: int = 1
    """Of a slice or a forward pass, of all its sequences together, as its payload says unchecked."""
    forks: SessionId | None = None
    """The kept session that a FORK begins as. Its own payload is what it is answered with."""
    resumes: SessionId | None = None
    """The broken session that a RESUME goes on as. None where nothing is held of it, which is no fault."""
    feeds_hop: bool = False
    """Whether the output goes to another hop, not to the driver: then it is kept, to be sent again."""
    stopwatch: Stopwatch | None = None
    """Of a step whose driver wants to know how long it is here."""
    feeds_new: bool = False
    """Of a RESUME or REPLAY: whether that hop is new, and has to be sent what it has missed."""

    @property
    def is_slice(self) -> bool:
        """Whether these are tokens that may be computed in parts, and make way for those that decode."""
        return self.kind is FrameType.PREFILL or (self.kind is FrameType.REPLAY and bool(self.payload))

    @property
    def is_errand(self) -> bool:
        """Whether nothing goes through the blocks for it."""
        return self.kind in _ERRANDS or (self.kind is FrameType.REPLAY and not self.payload)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one piece of work: an answer's payload, or the error by name."""

    work: Work
    payload: bytes = b""
    error: CorollaError | None = None
    tokens: int = 0
    """Of a slice or a forward pass: how many were computed now, of all its sequences together."""
    is_unfinished: bool = False
    """Whether a slice has more tokens to compute. Then there is no answer yet."""

    def clocked(self, seconds: float) -> None:
        """Notes how long the batch took, where that is to be told."""
        if self.work.stopwatch is not None:
            self.work.stopwatch.computed += seconds


def tokens_of(payload: bytes | memoryview) -> int:
    """How many tokens a step has, of all its sequences together; 1 for a payload that is not as it should be.

    For those who plan: what is wrong with it is said when the step is computed.
    """
    try:
        hidden = [tensor for tensor in decode_tensors(payload) if tensor.role is Role.HIDDEN]
        batch, tokens, _ = hidden[0].shape
    except (MalformedTensor, IndexError, ValueError):
        return 1
    return max(1, batch * tokens)


class Underway(NamedTuple):
    """A batch that the device computes while its caller does something else."""

    is_done: Callable[[], bool]
    results: Callable[[], list[Result]]
    """One for each step, in order, once it is done."""


class Engine(Protocol):
    """What runs the work. Called by who has the device (volunteer/device.py); `now` is `time.monotonic()`."""

    @property
    def sessions(self) -> int:
        """Sessions with a KV cache, without those that are over and kept."""
        ...

    @property
    def kv_used(self) -> int:
        """Bytes of KV cache."""
        ...

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        """One result for each piece of work, in order. A step that fails is a result, not an exception.

        Of each prefill slice `prefill_tokens` tokens may be computed, of all its sequences together; the
        same work comes again for the rest. Several of one session are in order, and have no more together.
        """
        ...

    @property
    def is_one_pass(self) -> bool:
        """Whether slices of several sessions are computed in one pass, whatever their lengths."""
        ...

    @property
    def starts_steps(self) -> bool:
        """Whether decode steps are computed without the thread that asks for them; see `start`."""
        ...

    def start(self, batch: Sequence[Work], now: float) -> Underway | None:
        """As `run`, for decode steps, without waiting; None where they need more than a launch.

        Until the results were asked for, no other method is called, but `run` where something has failed:
        then it is asked for the same steps again.
        """
        ...

    def close(self, session: SessionId) -> None:
        """Frees the session's KV cache, if it has one."""
        ...

    def keep(self, session: SessionId, now: float) -> None:
        """The session is over; its KV cache stays for forks of it, as long as there is room."""
        ...

    def close_all(self) -> None: ...

    def expire(self, now: float) -> list[SessionId]:
        """Closes and names the sessions that have been idle for too long."""
        ...
