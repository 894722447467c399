"""Whether real work still takes as long as was measured: a verdict over the latest runs of each size.

A run is off when it takes more than `FACTOR` times as long as the table says, or less than that part of it.
One is nothing; the median of the last `RECENT_RUNS` of a size is. What a new measurement does not explain is
how work is here: requests cost time beside the device, which no measurement has. It counts as drift again
only when it moves by the factor once more, so that nothing is measured for ever.

Pure: no clock, no threads, no device. Owner: who has the device.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from schema.frames import FrameType
from schema.ids import Span
from volunteer.throughput import Table
from volunteer.work import Result

FACTOR = 1.5
"""How far off the table the median may be, either way."""
RECENT_RUNS = 256
"""So many runs of a size are remembered, and fewer are no reason to measure again: seconds of a reply."""


class Run(NamedTuple):
    """A batch that was computed: decode steps, or a part of a prompt."""

    is_decode: bool
    tokens: int
    """Of the part, or of all steps: one each."""
    context: float
    """Tokens that a sequence held on average."""
    seconds: float
    """For the whole span."""


class Size(NamedTuple):
    """Runs that are judged together."""

    is_decode: bool
    bits: int
    """Of the number of tokens, rounded up to a power of two."""

    def __str__(self) -> str:
        return f"{'decode steps' if self.is_decode else 'prompts'} of up to {1 << self.bits} tokens at once"


class Finding(NamedTuple):
    """What is off, and how far."""

    size: Size
    ratio: float
    """How much longer it takes than was measured."""

    def __str__(self) -> str:
        return f"{self.size} take {self.ratio:.2f} times as long as was measured"


def run_of(results: Sequence[Result], seconds: float, span: Span) -> Run | None:
    """The run over `span` that has given these results; None where it cannot be compared with the table.

    That is one over a part of the span, a batch of both kinds, one in which something failed, a step that
    begins a session, which is a short prompt, and a prompt's later slices, whose context was not measured.
    """
    works = [result.work for result in results]
    if not works or any(result.error is not None or result.work.span != span for result in results):
        return None
    context = sum(work.position for work in works) / len(works)
    if all(work.kind is FrameType.STEP and work.position for work in works):
        return Run(True, len(works), context, seconds)
    is_part = len(works) == 1 and works[0].kind is FrameType.PREFILL and works[0].position == 0
    return Run(False, results[0].tokens, context, seconds) if is_part and results[0].tokens else None


class Drift:
    """The latest runs of each size, against a table."""

    def __init__(self, table: Table, blocks: int) -> None:
        """`blocks`: of the span; every run goes through all of them."""
        self._table = table
        self._blocks = blocks
        self._recent: dict[Size, deque[Run]] = {}
        self._accepted: dict[Size, float] = {}
        """The ratio that is how work is here, of sizes where it is not 1."""

    def add(self, run: Run) -> None:
        size = Size(run.is_decode, (run.tokens - 1).bit_length())
        recent = self._recent.get(size)
        if recent is None:
            recent = self._recent[size] = deque(maxlen=RECENT_RUNS)
        recent.append(run)

    def find(self) -> Finding | None:
        """What is furthest off the table, if anything is off for long enough."""
        findings = [
            Finding(size, ratio)
            for size in self._recent
            if (ratio := self._ratio(size)) is not None and _is_off(ratio / self._accepted.get(size, 1.0))
        ]
        return max(findings, key=lambda one: max(one.ratio, 1 / one.ratio), default=None)

    def measured(self, table: Table) -> None:
        """Everything was measured anew: judge what comes by that."""
        self._table = table
        ratios = {size: self._ratio(size) for size in self._recent}
        known = {size: one for size, one in ratios.items() if one is not None}
        kept = {size: one for size, one in self._accepted.items() if size not in known}
        self._accepted = kept | {size: one for size, one in known.items() if _is_off(one)}
        self._recent.clear()

    def _ratio(self, size: Size) -> float | None:
        """Median of measured over told seconds; None before there are enough runs that the table knows."""
        recent = self._recent[size]
        if len(recent) < RECENT_RUNS:
            return None
        ratios = [run.seconds / due for run in recent if (due := self._due(run)) is not None]
        return median(ratios) if len(ratios) > RECENT_RUNS // 2 else None

    def _due(self, run: Run) -> float | None:
        table = self._table
        each = (
            table.decode_seconds(run.tokens, run.context)
            if run.is_decode
            else table.prefill_seconds(run.tokens)
        )
        return None if each is None else each * self._blocks


def _is_off(ratio: float) -> bool:
    return not 1 / FACTOR <= ratio <= FACTOR
