"""What the relay sees of each volunteer, counted in memory until somebody writes it down.

`answered` and `computed` are plain dictionaries of numbers, since they are counted for every frame;
everything else is rare.
Nothing here waits, and nothing grows without bound: while the database is away what was seen is kept by the
hour, and what does not fit any more is counted as dropped.
Owned by the event loop's thread: forwarding and the connections count, relay/standings.py collects.
Does not know what anything counts (relay/reputation.py), nor SQL.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, get_args

from relay.records import Evidence
from relay.reputation import hour_of
from schema.ids import PeerId
from schema.swarm import EvidenceKind

MAX_KEPT = 100_000
"""Pieces of evidence that wait to be written: those of 10,000 volunteers over three hours. About 30 MB."""


class Done(NamedTuple):
    """What a volunteer has done for others."""

    blocks_steps: int
    """Blocks that it has run, each as often as a step went through it."""
    replies: int
    """That it has driven to their end."""

    def plus(self, other: "Done") -> "Done":
        return Done(self.blocks_steps + other.blocks_steps, self.replies + other.replies)


class Outcomes:
    """What was seen since the last time it was collected, and what was collected and is not written yet."""

    def __init__(self) -> None:
        self.answered: defaultdict[PeerId, int] = defaultdict(int)
        """Steps of others' sessions that a volunteer has passed on."""
        self.computed: defaultdict[PeerId, int] = defaultdict(int)
        """Blocks that it has run for them, each as often as a step went through it."""
        self.seen: dict[str, int] = dict.fromkeys(get_args(EvidenceKind), 0)
        """Of each kind, collected since this replica began."""
        self.dropped = 0
        """That there was no room for."""
        self._counts: dict[tuple[PeerId, EvidenceKind], tuple[int, float]] = {}
        self._unwritten: dict[tuple[PeerId, EvidenceKind, float], Evidence] = {}
        self._done: dict[tuple[PeerId, float], Done] = {}
        """By volunteer and hour, since it was taken last."""

    def note(self, peer: PeerId, kind: EvidenceKind, worst: float = 0.0) -> None:
        """Something happened with a volunteer. `worst`: the figure that goes with the kind."""
        key = peer, kind
        count, before = self._counts.get(key, (0, 0.0))
        if not count and len(self._counts) >= MAX_KEPT:
            self.dropped += 1
            return
        self._counts[key] = count + 1, max(before, worst)

    def collect(self, now: float) -> Iterator[Evidence]:
        """What was seen since the last time, one by one, as evidence of this hour: once given it waits to be
        written. What is counted meanwhile, and what nobody asks for, is for the next time."""
        hour = hour_of(now)
        for _ in range(len(self.computed)):
            peer, blocks_steps = self.computed.popitem()
            self._add(peer, hour, Done(blocks_steps, 0))
        for _ in range(len(self._counts)):
            (peer, kind), (count, worst) = self._counts.popitem()
            if kind == "replied":
                self._add(peer, hour, Done(0, count))
            yield self._keep(Evidence(peer, kind, hour, count, worst))
        for _ in range(len(self.answered)):
            peer, count = self.answered.popitem()
            yield self._keep(Evidence(peer, "answered", hour, count))

    def _keep(self, one: Evidence) -> Evidence:
        """Have it wait to be written."""
        self.seen[one.kind] += one.count
        known = self._unwritten.get(one.key)
        if known is None and len(self._unwritten) >= MAX_KEPT:
            self.dropped += one.count
        else:
            self._unwritten[one.key] = one if known is None else known.plus(one)
        return one

    def _add(self, peer: PeerId, hour: float, more: Done) -> None:
        known = self._done.get((peer, hour))
        if known is None and len(self._done) >= MAX_KEPT:
            self.dropped += 1
        else:
            self._done[peer, hour] = more if known is None else known.plus(more)

    def take_done(self) -> dict[tuple[PeerId, float], Done]:
        """What volunteers have done, by the hour, as far as it was collected; it is kept here no more."""
        done, self._done = self._done, {}
        return done

    @property
    def waiting(self) -> int:
        """How many pieces of evidence wait to be written."""
        return len(self._unwritten)

    def unwritten(self, most: int) -> list[Evidence]:
        """Some of what waits to be written."""
        return list(islice(self._unwritten.values(), most))

    def unwritten_of(self, peers: Iterable[PeerId]) -> list[Evidence]:
        wanted = set(peers)
        return [one for one in self._unwritten.values() if one.peer in wanted]

    def written(self, rows: Iterable[Evidence]) -> None:
        """Some of what waited has been written down. Nothing may have been collected meanwhile."""
        for one in rows:
            self._unwritten.pop(one.key, None)
