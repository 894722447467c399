"""Where the time of a session's steps went: at each hop, and on the way to and from it. Pure: told the time.

Some steps are marked (`Flags.TIMED`). Each hop of such a step tells the driver how long it was there, in a
frame of its own, right behind the answer that it sends on (schema/trace.py):

    driver ──────> hop 0 ──────> hop 1 ──────> driver          the step
      sent           └─ TRACE ──────────────────> at            what hop 0 says, and when that has come
                                   └─ TRACE ────> at

What hop 0 says comes when the step is about at the relay, on its way to hop 1; so the time from one hop's
TRACE to the next one's is what the step took from the relay to the next hop and back. Less the hop's own
figures, that is the wire's: measured with the driver's clock alone, and all together are the whole step.

Owned by the driver's event loop, but for `timed`. Does not know frames, links or clocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schema.frames import FrameType
from schema.trace import HopTrace

TRACED_STEPS = 16
"""Of so many decode steps one is marked, from the second on; of a prompt every slice is."""
MOST_OPEN = 16
"""Marked steps of which something is still to come: older hops never say anything."""


class Report(NamedTuple):
    """What a hop has said of a step, and when that came."""

    at: float
    trace: HopTrace


class Share(NamedTuple):
    """One hop's part of a step. Seconds."""

    compute: float
    queue: float
    wire: float
    """To the hop and from it, as far as the relay; of the first hop elsewhere also the driver's own way."""


class HopMeans(NamedTuple):
    """A hop's parts of so many steps. Means, in seconds."""

    share: Share
    steps: int


def shares(sent: float, answered: float, reports: Sequence[Report]) -> list[Share] | None:
    """Each hop's part of a step; all of them together are no more than the step took.

    None where the hops say that they took longer than the step: one of them is wrong.
    """
    spent = sum(report.trace.queue + report.trace.compute for report in reports)
    rest = answered - sent - spent
    if rest < 0:
        return None
    wires: list[float] = []
    before = sent
    for number, (at, trace) in enumerate(reports):
        is_last = number == len(reports) - 1
        end = answered if is_last else min(max(at, before), answered)
        wires.append(max(0.0, end - before - trace.queue - trace.compute))
        before = end
    # A TRACE that was held up makes one hop's wire too long and the next one's less than nothing.
    scale = min(1.0, rest / sum(wires)) if any(wires) else 0.0
    return [
        Share(report.trace.compute, report.trace.queue, wire * scale)
        for report, wire in zip(reports, wires, strict=True)
    ]


@dataclass(slots=True)
class _Open:
    """A marked step of which not all is known."""

    kind: FrameType
    sent: float
    answered: float | None = None
    reports: dict[int, Report] = field(default_factory=dict[int, Report])


@dataclass(slots=True)
class _Sums:
    """All steps of one kind together."""

    steps: int = 0
    shares: list[Share] = field(default_factory=list[Share])

    def add(self, shares: list[Share]) -> None:
        before = self.shares or [Share(0.0, 0.0, 0.0)] * len(shares)
        self.shares = [
            Share(*(old + new for old, new in zip(*pair, strict=True)))
            for pair in zip(before, shares, strict=True)
        ]
        self.steps += 1

    def means(self) -> list[HopMeans]:
        return [HopMeans(Share(*(one / self.steps for one in share)), self.steps) for share in self.shares]


class RouteTimes:
    """What is known of one session's steps."""

    def __init__(self, hops: int, clock: Callable[[], float]) -> None:
        """`hops`: of its route. `clock`: seconds, steady."""
        self._hops = hops
        self._clock = clock
        self._first: int | None = None
        """The number of the first decode step."""
        self._open: dict[int, _Open] = {}
        """By the number of the step."""
        self._sums = {FrameType.STEP: _Sums(), FrameType.PREFILL: _Sums()}

    def is_due(self, kind: FrameType, step: int) -> bool:
        """Whether the step of this kind and number is to be marked."""
        if kind is not FrameType.STEP:
            return kind is FrameType.PREFILL
        if self._first is None:
            self._first = step
        return (step - self._first) % TRACED_STEPS == 1  # the very first finds much that is not warm yet

    def sent(self, kind: FrameType, step: int) -> None:
        """A marked step begins its way."""
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._open[step] = _Open(kind, self._clock())

    def timed(self, kind: FrameType, step: int, launch: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """As `launch`, for a marked step that begins when that is called, on whatever thread."""

        def launch_timed(payload: bytes) -> None:
            self.sent(kind, step)
            launch(payload)

        return launch_timed

    def answered(self, step: int) -> None:
        """Its hidden states are back."""
        one = self._open.get(step)
        if one is not None and one.answered is None:
            one.answered = self._clock()
            self._settle(step, one)

    def reported(self, step: int, hop: int, trace: HopTrace) -> None:
        """A hop has said how long a step was there. What nobody waits for is left out."""
        one = self._open.get(step)
        if one is not None and hop < self._hops:
            one.reports.setdefault(hop, Report(self._clock(), trace))
            self._settle(step, one)

    def forget(self, step: int) -> None:
        """It was not sent after all."""
        self._open.pop(step, None)

    def decode(self) -> list[HopMeans]:
        """For each hop; nothing where nothing is known."""
        return self._sums[FrameType.STEP].means()

    def prefill(self) -> list[HopMeans]:
        """As `decode`, for the slices of the prompt."""
        return self._sums[FrameType.PREFILL].means()

    def _settle(self, step: int, one: _Open) -> None:
        if one.answered is None or len(one.reports) < self._hops:
            return
        del self._open[step]
        found = shares(one.sent, one.answered, [one.reports[hop] for hop in range(self._hops)])
        if found is not None:
            self._sums[one.kind].add(found)
