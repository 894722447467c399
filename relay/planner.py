"""Which volunteers a session's frames visit: a pure function over the swarm as it is.

The route on which a step takes the least time: the way to each hop and back, the wait there, and its blocks,
all in seconds (relay/prices.py). Every hop costs a round trip, so that few hops are chosen by themselves
wherever volunteers are far. Any part of a volunteer's span may be used. Does not know sockets, time or SQL.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relay.candidates import Candidate, Candidates
from schema.errors import ModelUnavailable
from schema.ids import PeerId, Span
from schema.limits import MAX_HOPS
from schema.routes import Hop

RETRY_SECONDS = 10.0
"""When asking again for an incomplete model makes sense."""
MOST_SPLITS = 4
"""How often the search for a route is repeated because a volunteer is on it twice."""
FEWEST_HOPS = 1e6
"""Seconds for each hop at which nothing else counts."""


class Wishes(NamedTuple):
    """Which peers a driver does not want, and which it would like."""

    exclude: frozenset[PeerId] = frozenset()
    prefer: frozenset[PeerId] = frozenset()


NO_WISHES = Wishes()


class Leg(NamedTuple):
    """A candidate, and the blocks that it runs."""

    candidate: Candidate
    start: int
    end: int

    @property
    def peer(self) -> PeerId:
        return self.candidate.holder.peer


@dataclass(frozen=True, slots=True)
class Plan:
    """A route that is not signed yet."""

    legs: tuple[Leg, ...]
    seconds: float
    """What a step over it takes, as far as that is known."""

    @property
    def hops(self) -> tuple[Hop, ...]:
        return tuple(Hop(leg.peer, Span(leg.start, leg.end)) for leg in self.legs)


def gaps_in(held: Mapping[int, int], wanted: Span) -> list[Span]:
    """The parts of `wanted` of whose blocks nobody is counted, in order."""
    gaps: list[Span] = []
    for block in range(wanted.start, wanted.end):
        if held.get(block, 0) > 0:
            continue
        if gaps and gaps[-1].end == block:
            gaps[-1] = Span(gaps[-1].start, block + 1)
        else:
            gaps.append(Span(block, block + 1))
    return gaps


def plan(candidates: Candidates, wanted: Span, origin: PeerId, wishes: Wishes = NO_WISHES) -> Plan:
    """The chain of hops over all blocks of `wanted` on which a step takes the least time.

    Raises:
        ModelUnavailable: some block has no holder; names the blocks. Or there are too many hops.
    """
    gaps = gaps_in(candidates.held(wishes.exclude), wanted)
    if gaps:
        raise ModelUnavailable(f"{describe_gaps(gaps)} no volunteer", retry_after=RETRY_SECONDS)
    best = candidates.best(origin, wishes.exclude, wishes.prefer)
    legs = [Leg(one, one.holder.span.start, one.holder.span.end) for one in best]
    found = _without_repeats(legs, wanted, MOST_SPLITS)
    if len(found.legs) > MAX_HOPS:
        found = _without_repeats(legs, wanted, MOST_SPLITS, FEWEST_HOPS)
    if len(found.legs) > MAX_HOPS:
        raise ModelUnavailable(
            f"the blocks are spread over {len(found.legs)} volunteers, but a route has at most {MAX_HOPS} "
            "hops: larger spans are needed",
            retry_after=RETRY_SECONDS,
        )
    return found


def _without_repeats(usable: list[Leg], wanted: Span, splits: int, each: float = 0.0) -> Plan:
    """The cheapest route on which nobody is twice: a volunteer keeps one cache for a session.

    It may pay to leave a slow volunteer for a few blocks and to come back to it. Then it stays, or is used on
    one side only, or not at all, whichever is best. `usable`: what may be used; `each`: added to every hop.
    """
    found = _cheapest(usable, wanted, each)
    peers = [leg.peer for leg in found.legs]
    twice = next((peer for peer in peers if peers.count(peer) > 1), None)
    if twice is None:
        return found
    first = peers.index(twice)
    last = len(peers) - 1 - peers[::-1].index(twice)
    whole = found.legs[first]._replace(end=found.legs[last].end)
    options = [_sum((*found.legs[:first], whole, *found.legs[last + 1 :]), each)]
    if splits:
        left = found.legs[first].end
        before = [leg._replace(end=min(leg.end, left)) if leg.peer == twice else leg for leg in usable]
        after = [leg._replace(start=max(leg.start, left)) if leg.peer == twice else leg for leg in usable]
        options += [_without_repeats(rest, wanted, splits - 1, each) for rest in (before, after)]
    allowed = [option for option in options if len({leg.peer for leg in option.legs}) == len(option.legs)]
    return min(allowed or options, key=lambda option: option.seconds)


def _sum(legs: tuple[Leg, ...], each: float) -> Plan:
    return Plan(legs, sum(each + leg.candidate.price.of(leg.end - leg.start) for leg in legs))


def _cheapest(usable: list[Leg], wanted: Span, each: float) -> Plan:
    """Shortest path over (volunteer, block), from the last boundary back to the first.

    At each block, everybody who holds it either goes on with the next one or hands over to whoever is best
    from there; whoever is best with a hop's price added takes over at this block. O(blocks held).
    """
    entering: dict[int, list[int]] = {}
    for number, leg in enumerate(usable):
        if max(leg.start, wanted.start) < (end := min(leg.end, wanted.end)):
            entering.setdefault(end, []).append(number)
    ahead = [math.inf] * len(usable)
    """Seconds from the next block on, if this volunteer has it."""
    leaves = [0] * len(usable)
    active: list[int] = []
    rest, chosen = 0.0, dict[int, tuple[int, int]]()
    starts = [leg.start for leg in usable]
    hop_prices = [each + leg.candidate.price.hop for leg in usable]
    block_prices = [leg.candidate.price.block for leg in usable]
    for block in range(wanted.end - 1, wanted.start - 1, -1):
        active = [one for one in active if starts[one] <= block] + entering.get(block + 1, [])
        least, taker = math.inf, -1
        for one in active:
            seconds = ahead[one]
            if rest < seconds:
                seconds, leaves[one] = rest, block + 1
            ahead[one] = seconds = seconds + block_prices[one]
            seconds += hop_prices[one]
            if seconds < least:
                least, taker = seconds, one
        rest = least
        if taker >= 0:
            chosen[block] = (taker, leaves[taker])
    return _follow(usable, chosen, wanted, rest)


def _follow(usable: list[Leg], chosen: dict[int, tuple[int, int]], wanted: Span, seconds: float) -> Plan:
    """The legs from the first block on; none, and for ever, where there is no way."""
    legs: list[Leg] = []
    block = wanted.start
    while block < wanted.end:
        if block not in chosen:
            return Plan((), math.inf)
        taker, end = chosen[block]
        legs.append(usable[taker]._replace(start=block, end=end))
        block = end
    return Plan(tuple(legs), seconds)


def describe_gaps(gaps: list[Span]) -> str:
    """`blocks 4-7 and 10-11 have`, `block 3 has`: a sentence's subject and verb; the last block counts."""
    names = [str(gap.start) if len(gap) == 1 else f"{gap.start}\N{EN DASH}{gap.end - 1}" for gap in gaps]
    if len(names) == 1 and len(gaps[0]) == 1:
        return f"block {names[0]} has"
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"blocks {listed} have"
