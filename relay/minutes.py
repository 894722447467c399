"""What replies were like, minute by minute: sums and medians. Pure arithmetic, without a clock.

A median is that of a histogram whose cells are 5 % wide, so that a minute has room for any number of replies.
Does not know what a reply is, nor who asks.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from schema.history import HistoryMinute

MINUTE = 60
CELLS_PER_E = 20
"""Cells of a histogram in a factor of e (2.7): each is 5 % wide."""
SHORTEST, LONGEST = 1e-5, 1e5
"""Seconds; what is shorter or longer counts as these."""


class Median:
    """The median of any number of durations, to 3 %."""

    def __init__(self) -> None:
        self._cells: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        bounded = min(max(seconds, SHORTEST), LONGEST)
        self._cells[round(math.log(bounded) * CELLS_PER_E)] += 1

    def value(self) -> float | None:
        """Seconds, to three digits; None: there are none."""
        left = (self._cells.total() + 1) // 2
        for cell in sorted(self._cells):
            left -= self._cells[cell]
            if left <= 0:
                return float(f"{math.exp(cell / CELLS_PER_E):.3g}")
        return None


@dataclass(slots=True)
class Tally:
    """A minute that is not over."""

    at: int
    """Its beginning, Unix seconds."""
    tokens: int = 0
    replies: int = 0
    failed: int = 0
    first_token: Median = field(default_factory=Median)
    step: Median = field(default_factory=Median)

    def finished(self, tokens: int, first_token: float, total: float) -> None:
        """One more reply. Seconds since its request; `tokens`: that it has."""
        self.tokens += tokens
        self.replies += 1
        self.first_token.add(first_token)
        if tokens > 1:
            self.step.add((total - first_token) / (tokens - 1))

    def shown(self, serving: int) -> HistoryMinute:
        """The minute as it is now."""
        return HistoryMinute(
            at=self.at,
            tokens=self.tokens,
            replies=self.replies,
            failed=self.failed,
            first_token=self.first_token.value(),
            step=self.step.value(),
            serving=serving,
        )


def minute_of(now: float) -> int:
    """The beginning of the minute of a time, Unix seconds."""
    return int(now // MINUTE) * MINUTE


def minutes_between(last: int, now: int) -> Iterator[int]:
    """The minutes after `last` and before `now`: in those nothing has ended."""
    yield from range(last + MINUTE, now, MINUTE)
