"""A volunteer's score: a pure function of the evidence about it and of the time.

Evidence is what happened (`KINDS`), counted by the hour. Each hour's count of a kind is a number of
samples, for a volunteer or against it, and there is a most that one hour can add: nobody becomes trusted by
one busy hour, and nobody is finished by one bad one. Samples fade, those for it sooner than the others:

    good = PRIOR_GOOD + sum of samples for it     x 0.5 ^ (age / GOOD_HALF_LIFE)
    bad  = PRIOR_BAD  + sum of samples against it x 0.5 ^ (age / BAD_HALF_LIFE)
    score = good / (good + bad)           the mean of Beta(good, bad); without evidence, PRIOR_SCORE

`project` computes it from all evidence and shows each kind's part. `Standing` is the same in a few numbers,
so that a relay can keep one for each of its volunteers and add to it: both give the same score.
Does not know who counts, where evidence is kept, or what the score is used for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from relay.records import Evidence
from schema.swarm import EvidenceKind

HOUR = 3600.0
PRIOR_GOOD, PRIOR_BAD = 3.0, 1.0
"""What everybody begins with, as if it had been seen."""
PRIOR_SCORE = PRIOR_GOOD / (PRIOR_GOOD + PRIOR_BAD)
"""A newcomer's score, and the one that every score goes back to when nothing is seen any more."""
GOOD_HALF_LIFE = 12 * HOUR
BAD_HALF_LIFE = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Weight:
    """What evidence of one kind counts."""

    good: float = 0.0
    """Of one sample."""
    bad: float = 0.0
    per: int = 1
    """So many times are one sample."""
    most: float = 1.0
    """Samples of one hour that count."""

    def samples(self, count: int) -> float:
        return min(count / self.per, self.most)


KINDS: Mapping[EvidenceKind, Weight] = {
    "answered": Weight(good=1.0, per=500),
    "replied": Weight(good=1.0, per=20),
    "probe_passed": Weight(good=0.1),
    "late": Weight(bad=0.25, most=4),
    "unanswered": Weight(bad=0.5, most=4),
    "failed": Weight(bad=0.5, most=8),
    "disputed": Weight(bad=0.25, most=4),
    "refused": Weight(),
    "reply_failed": Weight(),
    "vanished": Weight(bad=2.0, most=3),
    "silent": Weight(bad=0.5, most=4),
    "unread": Weight(bad=0.25, most=4),
    "malformed": Weight(bad=2.0, most=4),
    "forged": Weight(bad=0.5, most=8),
    "probe_failed": Weight(bad=1.0, most=4),
    "quarantined": Weight(),
    "restored": Weight(),
}
"""docs/reputation.md says what each kind is and why it weighs what it does."""
NO_WEIGHT = Weight()


def hour_of(now: float) -> float:
    """The beginning of the hour of a time, Unix seconds."""
    return now - now % HOUR


@dataclass(frozen=True, slots=True)
class Part:
    """What the evidence of one kind adds up to."""

    kind: EvidenceKind
    count: int
    good: float
    bad: float
    """Samples for and against it that are left of it now."""
    worst: float
    since: float
    until: float
    """The first and the last hour of it."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A score and what it is made of."""

    score: float
    good: float
    bad: float
    parts: tuple[Part, ...]
    """The kinds of which there is evidence, in the order of `KINDS`."""


def project(evidence: Iterable[Evidence], now: float) -> Projection:
    """The score that follows from evidence about one volunteer, in any order and any number of parts."""
    hours: dict[EvidenceKind, list[Evidence]] = {}
    for one in merged(evidence):
        hours.setdefault(one.kind, []).append(one)
    parts = tuple(_part(kind, hours[kind], now) for kind in KINDS if kind in hours)
    good = PRIOR_GOOD + sum(part.good for part in parts)
    bad = PRIOR_BAD + sum(part.bad for part in parts)
    return Projection(good / (good + bad), good, bad, parts)


def merged(evidence: Iterable[Evidence]) -> list[Evidence]:
    """One piece for each volunteer, kind and hour, of however many; the oldest hours first."""
    found: dict[tuple[str, str, float], Evidence] = {}
    for one in evidence:
        known = found.get(one.key)
        found[one.key] = one if known is None else known.plus(one)
    return sorted(found.values(), key=lambda one: (one.hour, one.peer, one.kind))


def _part(kind: EvidenceKind, hours: list[Evidence], now: float) -> Part:
    weight = KINDS[kind]
    good = sum(weight.samples(one.count) * _left(now - one.hour, GOOD_HALF_LIFE) for one in hours)
    bad = sum(weight.samples(one.count) * _left(now - one.hour, BAD_HALF_LIFE) for one in hours)
    return Part(
        kind=kind,
        count=sum(one.count for one in hours),
        good=weight.good * good,
        bad=weight.bad * bad,
        worst=max(one.worst for one in hours),
        since=hours[0].hour,
        until=hours[-1].hour,
    )


def _left(age: float, half_life: float) -> float:
    """The share that is left of a sample. What another replica's clock puts into the future is new."""
    return 0.5 ** (max(0.0, age) / half_life)


@dataclass(frozen=True, slots=True)
class Standing:
    """All evidence about a volunteer in a few numbers: sums of past hours, and the hour that is not over."""

    hour: float = 0.0
    """Which hour that is; the sums are as of its beginning."""
    counts: Mapping[EvidenceKind, int] = field(default_factory=dict[EvidenceKind, int])
    good: float = 0.0
    bad: float = 0.0

    @classmethod
    def of(cls, evidence: Iterable[Evidence]) -> "Standing":
        standing = cls()
        for one in merged(evidence):
            standing = standing.plus(one)
        return standing

    def plus(self, one: Evidence) -> "Standing":
        """With one more piece of evidence; one of an hour before the present one counts as of the present."""
        hour = max(self.hour, one.hour)
        counts = dict(self.counts) if hour == self.hour else {}
        counts[one.kind] = counts.get(one.kind, 0) + one.count
        if hour == self.hour:
            return Standing(hour, counts, self.good, self.bad)
        good, bad = self._sums(hour)
        return Standing(hour, counts, good, bad)

    def score(self, now: float) -> float:
        good, bad = self._sums(now)
        return (PRIOR_GOOD + good) / (PRIOR_GOOD + good + PRIOR_BAD + bad)

    def _sums(self, now: float) -> tuple[float, float]:
        """What is left at `now` of the samples for and against it."""
        good, bad = self.good, self.bad
        for kind, count in self.counts.items():
            weight = KINDS.get(kind, NO_WEIGHT)  # of a newer replica, while an operator updates one by one
            samples = weight.samples(count)
            good += weight.good * samples
            bad += weight.bad * samples
        age = now - self.hour
        return good * _left(age, GOOD_HALF_LIFE), bad * _left(age, BAD_HALF_LIFE)
