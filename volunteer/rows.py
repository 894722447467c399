"""Decode steps as rows of bytes: one token of each of several sessions, from payloads to payloads.

On a GPU a step is short, and taking a payload apart, checking it as a tensor and putting the answer together
takes as long as some of the blocks. Payloads of one token's hidden states differ in their bytes alone: these
are copied into the memory that the span's graph reads, which finds out whether they are finite, too. What is
not exactly so is left to `volunteer/steps.py`, which says what is wrong with it.

Owner: who has the device. Knows neither queues nor the KV account.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from corolla.models.capture import IsDone
from corolla.models.facts import ModelFacts
from corolla.models.graphs import Row
from corolla.models.pool import PooledCache
from corolla.models.span import SpanModel
from corolla.tensors import not_finite, wire_dtype
from schema.errors import NotFinite
from schema.frames import Flags, FrameType
from schema.tensors import envelope
from volunteer.work import Work

_DECODED = (FrameType.STEP, FrameType.PROBE)


class RowStep(NamedTuple):
    """A step that is ready to run: its memory is booked, and its cache ends where it begins."""

    work: Work
    row: memoryview
    """The token's hidden states."""
    cache: PooledCache


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What became of a step: its payload, or why there is none."""

    payload: bytes
    error: NotFinite | None = None
    has_run: bool = True
    """Whether the blocks were given anything that they could compute with."""


class StartedSteps(NamedTuple):
    """Steps that the device computes while their caller does something else."""

    is_done: IsDone
    answers: Callable[[], list[RowAnswer]]
    """What became of each, in order, once they are done."""


class Rows:
    """The decode steps of one span that need not be looked at as tensors."""

    def __init__(self, model: SpanModel, facts: ModelFacts) -> None:
        self._model = model
        self._shape = (1, 1, facts.hidden_size)
        self._most = facts.max_position
        self._before, self._after = envelope(wire_dtype(model.options.dtype), self._shape)
        self._end = len(self._before) + facts.hidden_size * model.options.dtype.itemsize

    def row_of(self, work: Work) -> memoryview | None:
        """The token's hidden states, if they are all that there is in the payload, in the span's dtype."""
        payload = work.payload
        is_one = (
            work.kind in _DECODED
            and len(payload) == self._end + len(self._after)
            and payload[: len(self._before)] == self._before
            and payload[self._end :] == self._after
        )
        # Asking flags for one of them takes longer than all the rest here; mostly there is none.
        has_output = not work.flags or Flags.NO_OUTPUT not in work.flags
        is_due = has_output and (self._most is None or work.position < self._most)
        return memoryview(payload)[len(self._before) : self._end] if is_one and is_due else None

    def run(self, steps: Sequence[RowStep]) -> list[RowAnswer]:
        """What became of each, in order. Advances the caches of those that have an answer."""
        return self._answers(
            self._model.decode_rows([step.row for step in steps], [step.cache for step in steps])
        )

    def start(self, steps: Sequence[RowStep]) -> StartedSteps | None:
        """As `run`, without waiting for the device; None where it needs more than a launch."""
        started = self._model.start_rows([step.row for step in steps], [step.cache for step in steps])
        if started is None:
            return None
        return StartedSteps(started.is_done, lambda: self._answers(started.rows()))

    def _answers(self, rows: Sequence[Row]) -> list[RowAnswer]:
        answers: list[RowAnswer] = []
        for row in rows:
            if row.is_finite:
                answers.append(RowAnswer(b"".join((self._before, row.hidden, self._after))))
            else:
                answers.append(RowAnswer(b"", not_finite(self._shape), has_run=row.came_finite))
        return answers
