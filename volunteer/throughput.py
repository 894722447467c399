"""How fast a span is computed: what steps and parts of prompts were measured to take, and its reading.

Pure values and arithmetic: does not measure (volunteer/measuring.py), and knows no clock, file or device.
Seconds are of one block, so that the figures of spans of different lengths can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Annotated, Self

from msgspec import Meta, Struct

DECILE_RUNS = 10
"""So many runs, and the slowest and fastest tenth are left out of the spread."""
CONTEXT_MARGIN = 256
"""So many tokens beyond the contexts that were measured, a step still takes about as long."""

Seconds = Annotated[float, Meta(gt=0.0, lt=1e6)]
Count = Annotated[int, Meta(ge=1, le=1 << 20)]


class Spread(Struct, frozen=True, kw_only=True):
    """Seconds of several runs of the same thing, a block."""

    median: Seconds
    low: Seconds
    """The fastest tenth took less."""
    high: Seconds
    """The slowest tenth took more."""
    runs: Count

    def __post_init__(self) -> None:
        if not self.low <= self.median <= self.high:
            raise ValueError("a median lies between low and high")

    @classmethod
    def of(cls, seconds: Sequence[float], blocks: int) -> Self:
        """Of runs through `blocks` blocks; at least two."""
        each = sorted(one / blocks for one in seconds)
        # Runs that were, not points between them: rounding could put those on the wrong side of the median.
        left_out = len(each) // 10 if len(each) >= DECILE_RUNS else 0
        low, high = each[left_out], each[-1 - left_out]
        return cls(median=min(max(median(each), low), high), low=low, high=high, runs=len(each))


class DecodeStep(Struct, frozen=True, kw_only=True):
    """One token of each of several sequences at once."""

    batch: Count
    context: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Tokens that each sequence held at the first run."""
    seconds: Spread


class PromptPart(Struct, frozen=True, kw_only=True):
    """The first tokens of a prompt, computed at once."""

    tokens: Count
    seconds: Spread


@dataclass(frozen=True, slots=True)
class Throughput:
    """Decode speed: one token through one block, per second, for one session."""

    blocks_per_second: float
    """The median."""
    slow: float
    """The slowest tenth is below this."""
    fast: float
    """The fastest tenth is above this."""

    def __str__(self) -> str:
        return f"{self.blocks_per_second:.0f} blocks/s ({self.slow:.0f} to {self.fast:.0f})"


UNMEASURED = Throughput(0.0, 0.0, 0.0)


class Table(Struct, frozen=True, kw_only=True):
    """What was measured of a span. What did not fit, or took too long, is not in it."""

    decode: tuple[DecodeStep, ...] = ()
    prefill: tuple[PromptPart, ...] = ()

    def adding(self, step: DecodeStep) -> "Table":
        return Table(decode=(*self.decode, step), prefill=self.prefill)

    def adding_part(self, part: PromptPart) -> "Table":
        return Table(decode=self.decode, prefill=(*self.prefill, part))

    @property
    def throughput(self) -> Throughput:
        """Of a session alone at its beginning; `UNMEASURED` where that is not known."""
        alone = [step for step in self.decode if step.batch == 1]
        if not alone:
            return UNMEASURED
        seconds = min(alone, key=lambda step: step.context).seconds
        return Throughput(1 / seconds.median, slow=1 / seconds.high, fast=1 / seconds.low)

    def decode_seconds(self, batch: int, context: float) -> float | None:
        """Of a step of `batch` sequences of about `context` tokens, between what was measured.

        None beyond it, where nobody knows.
        """
        points: list[tuple[float, float]] = []
        for size in sorted({step.batch for step in self.decode}):
            seconds = self._at_context(size, context)
            if seconds is not None:
                points.append((size, seconds))
        return _between(points, batch)

    def prefill_seconds(self, tokens: int) -> float | None:
        """Of a prompt's first part of `tokens` tokens, between what was measured; None beyond it."""
        return _between(sorted((part.tokens, part.seconds.median) for part in self.prefill), tokens)

    def lines(self) -> list[str]:
        """For people: a line for each thing that was measured."""
        return [*map(_decode_line, self.decode), *map(_prefill_line, self.prefill)]

    def _at_context(self, batch: int, context: float) -> float | None:
        points = sorted((step.context, step.seconds.median) for step in self.decode if step.batch == batch)
        last = points[-1][0]
        return _between(points, min(context, last) if context <= last + CONTEXT_MARGIN else context)


def _between(points: Sequence[tuple[float, float]], at: float) -> float | None:
    """On the line between the two points around `at`; None where it is not between any."""
    for where, value in points:
        if where == at:
            return value
    for (left, low), (right, high) in pairwise(points):
        if left < at < right:
            return low + (high - low) * (at - left) / (right - left)
    return None


def _decode_line(step: DecodeStep) -> str:
    what = f"decode, {step.batch} at once after {step.context} tokens"
    return f"{what}: {_rate(step.batch, step.seconds)}"


def _prefill_line(part: PromptPart) -> str:
    return f"prefill, {part.tokens} tokens at once: {_rate(part.tokens, part.seconds)}"


def _rate(tokens: int, seconds: Spread) -> str:
    """Blocks times tokens a second, when `tokens` take so long."""
    middle, slow, fast = tokens / seconds.median, tokens / seconds.high, tokens / seconds.low
    return f"{middle:.0f} blocks/s ({slow:.0f} to {fast:.0f}, {seconds.runs} runs)"
