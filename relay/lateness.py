"""How long volunteers take for a step, in one step of `SAMPLED_STEPS`: who is late, who never answers.

A sample begins when a decode step is put on a hop's queue, and ends with the hop's frame of that step. What
is usual differs by a factor of a thousand between a GPU with a small span and a CPU with a giant's, so late
means late for this volunteer: `LATE_FACTOR` times what it usually takes, and never below `LATE_SECONDS`.
Which steps are sampled is drawn anew every `SAMPLES_PER_DRAW` samples, so that nobody can be quick for
these alone.
Owned by the event loop's thread. Does not know the time (`now`: any clock that only goes on), nor queues.
"""

import random
from dataclasses import dataclass

from schema.ids import PeerId, SessionId

SAMPLED_STEPS = 64
"""A power of two: one step of so many is looked at."""
SAMPLES_PER_DRAW = 256
LATE_SECONDS = 2.0
"""No step is late that took less."""
LATE_FACTOR = 5.0
UNANSWERED_SECONDS = 10.0
"""No step counts as never answered whose session was closed sooner."""
FIRST_GUESS = 2.0
"""What the first sample of a volunteer is compared with, seconds."""
NEW_SHARE = 1 / 8
"""Of a new sample in what is usual."""
MAX_SAMPLES = 4096
"""Under way at once; beyond that no new one begins."""


@dataclass(frozen=True, slots=True)
class _Sample:
    hop: PeerId
    step: int
    epoch: int
    begun: float


class StepTimes:
    """The samples under way, and what each volunteer usually takes."""

    def __init__(self) -> None:
        self.drawn = random.randrange(SAMPLED_STEPS)
        """Steps with this remainder are sampled. A plain number that is compared for every frame."""
        self._samples: dict[tuple[SessionId, int], _Sample] = {}
        """By session and number of the hop: one at a time."""
        self._usual: dict[PeerId, float] = {}
        self._begun = 0

    def sent(self, hop: PeerId, place: tuple[SessionId, int], step: int, epoch: int, now: float) -> None:
        """A sampled step was put on a hop's queue. `place`: the session, and the hop's number there."""
        self._begun += 1
        if self._begun % SAMPLES_PER_DRAW == 0:
            self.drawn = random.randrange(SAMPLED_STEPS)
            self._samples.clear()  # their answers would not be looked at any more
            return
        under_way = self._samples.get(place)
        if under_way is None and len(self._samples) >= MAX_SAMPLES:
            return
        if under_way is None or under_way.epoch != epoch:
            self._samples[place] = _Sample(hop, step, epoch, now)

    def answered(self, place: tuple[SessionId, int], step: int, now: float) -> float | None:
        """A hop's frame of a sampled step has come: how many seconds it took if that is late, else None."""
        sample = self._samples.get(place)
        if sample is None or sample.step != step:
            return None
        del self._samples[place]
        seconds, limit = now - sample.begun, self._limit(sample.hop, LATE_SECONDS)
        before = self._usual.get(sample.hop, seconds)
        self._usual[sample.hop] = before + (min(seconds, limit) - before) * NEW_SHARE
        return seconds if seconds > limit else None

    def forget(self, place: tuple[SessionId, int]) -> None:
        """There will be no answer, and a reason is known."""
        self._samples.pop(place, None)

    def closed(self, place: tuple[SessionId, int], epoch: int, now: float) -> tuple[PeerId, float] | None:
        """The driver has ended the session: who never answered, and for how long, if it had time enough.

        A step of an earlier epoch than the driver's last was given up by the driver, and is nobody's fault.
        """
        sample = self._samples.pop(place, None)
        if sample is None or sample.epoch != epoch:
            return None
        seconds = now - sample.begun
        return (sample.hop, seconds) if seconds > self._limit(sample.hop, UNANSWERED_SECONDS) else None

    def peer_moved(self, hop: PeerId) -> None:
        """It answers elsewhere from now on."""
        self._usual.pop(hop, None)
        for place in [place for place, sample in self._samples.items() if sample.hop == hop]:
            del self._samples[place]

    def peer_left(self, hop: PeerId) -> None:
        self._usual.pop(hop, None)

    def _limit(self, hop: PeerId, least: float) -> float:
        return max(least, LATE_FACTOR * self._usual.get(hop, FIRST_GUESS))
