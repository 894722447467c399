"""The volunteers of a model, in the order in which routes look for them: the cheapest first.

A plan looks at the `ENOUGH` volunteers of each block that are cheapest when their whole span is used. That
makes it as fast among thousands as among hundreds; where a block has no more than that many, nobody is left
out. What is new about a volunteer costs a search in a sorted list.

Owned by whoever keeps it (relay/swarm.py). Does not know time, sockets or what is wanted.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from relay.prices import Holder, Price, price_of
from schema.ids import PeerId, Span

ENOUGH = 8
"""Volunteers of each block that a plan looks at."""

_Place = tuple[float, PeerId]
"""Seconds for each block when the whole span is used; among equals any order that is always the same."""


class Candidate(NamedTuple):
    """A volunteer that a route may use for any part of its span, and its prices."""

    price: Price
    holder: Holder


class _Entry(NamedTuple):
    candidate: Candidate
    place: _Place
    blocks: int
    """Its span as a set of bits."""


class Candidates:
    """The holders of one model's blocks."""

    def __init__(self, holders: Iterable[Holder] = ()) -> None:
        self._entries: dict[PeerId, _Entry] = {}
        self._order: list[_Place] = []
        self._held: Counter[int] = Counter()
        """Holders of each block."""
        for holder in holders:
            self.put(holder)

    def put(self, holder: Holder) -> None:
        """Add a volunteer, or what is new about one."""
        earlier = self._entries.get(holder.peer)
        if earlier is not None and earlier.candidate.holder == holder:
            return  # most heartbeats say nothing new
        if earlier is not None and earlier.candidate.holder.span == holder.span:
            self._take_out(earlier)
        else:
            self.drop(holder.peer)
            self._count(holder.span, 1)
        price = price_of(holder)
        place = (price.of(len(holder.span)) / len(holder.span), holder.peer)
        self._entries[holder.peer] = _Entry(Candidate(price, holder), place, _bits(holder.span))
        insort(self._order, place)

    def drop(self, peer: PeerId) -> None:
        """Take a volunteer out, if it is there."""
        entry = self._entries.pop(peer, None)
        if entry is not None:
            self._take_out(entry)
            self._count(entry.candidate.holder.span, -1)

    def __len__(self) -> int:
        return len(self._entries)

    def holders(self) -> list[Holder]:
        return [entry.candidate.holder for entry in self._entries.values()]

    def held(self, exclude: Collection[PeerId] = ()) -> Mapping[int, int]:
        """How many hold each block, not counting those peers."""
        left = self._held.copy()
        for peer in exclude:
            entry = self._entries.get(peer)
            if entry is not None:
                left.subtract(range(entry.candidate.holder.span.start, entry.candidate.holder.span.end))
        return left

    def best(
        self, origin: PeerId, exclude: Collection[PeerId] = (), prefer: Collection[PeerId] = ()
    ) -> list[Candidate]:
        """Enough for a good route, at prices for this driver."""
        found: list[Candidate] = []
        special = {origin, *prefer}
        for peer in sorted(special):
            entry = self._entries.get(peer)
            if entry is not None and peer not in exclude:
                holder = entry.candidate.holder
                price = price_of(holder, is_own=peer == origin, is_preferred=peer in prefer)
                found.append(Candidate(price, holder))
        return found + self._cheapest(special.union(exclude))

    def _cheapest(self, without: Collection[PeerId]) -> list[Candidate]:
        left = self.held(without)
        wanted = {block: min(count, ENOUGH) for block, count in left.items() if count > 0}
        needy = sum(1 << block for block in wanted)
        found: list[Candidate] = []
        for _, peer in self._order:
            if not needy:
                break
            candidate, _, blocks = self._entries[peer]
            if not blocks & needy or peer in without:
                continue
            found.append(candidate)
            for block in range(candidate.holder.span.start, candidate.holder.span.end):
                wanted[block] -= 1
                if not wanted[block]:
                    needy &= ~(1 << block)
        return found

    def _take_out(self, entry: _Entry) -> None:
        del self._order[bisect_left(self._order, entry.place)]

    def _count(self, span: Span, change: int) -> None:
        for block in range(span.start, span.end):
            self._held[block] += change


def _bits(span: Span) -> int:
    return (1 << span.end) - (1 << span.start)
