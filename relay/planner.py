"""Which volunteers a session's frames visit: a pure function over the swarm as it is.

Fewest hops first, since every hop costs a round trip; among equals, the driver's own volunteer
(that leg never leaves its process), then the least loaded; one that the driver prefers may have a few
sessions more. Does not know sockets, time or SQL.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from schema.errors import ModelUnavailable
from schema.ids import PeerId, Span
from schema.limits import MAX_HOPS
from schema.routes import Hop

PREFERRED_SESSIONS = 2
"""How many sessions of a preferred volunteer are not counted: what it holds spares a prompt's computation.
And its load is as old as its last heartbeat, so that the reply which has just ended is often still in it."""
RETRY_SECONDS = 10.0
"""When asking again for an incomplete model makes sense."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A volunteer that serves blocks of the model in question."""

    peer: PeerId
    span: Span
    sessions: int = 0
    score: float = 1.0
    """How far it can be relied on, 0 to 1 (relay/reputation.py)."""


class Cost(NamedTuple):
    """What a chain of hops costs, compared field by field: no load is worth another hop."""

    hops: int = 0
    elsewhere: int = 0
    """Hops that are not the driver's own volunteer."""
    sessions: int = 0
    not_preferred: int = 0
    """Hops that the driver did not ask for."""

    def plus(self, other: "Cost") -> "Cost":
        return Cost(*map(sum, zip(self, other, strict=True)))


class Wishes(NamedTuple):
    """Which peers a driver does not want, and which it would like."""

    exclude: frozenset[PeerId] = frozenset()
    prefer: frozenset[PeerId] = frozenset()


NO_WISHES = Wishes()


def missing_blocks(holders: Iterable[Holder], wanted: Span) -> list[Span]:
    """The parts of `wanted` that nobody holds, in order."""
    gaps: list[Span] = []
    reached = wanted.start
    for span in sorted({holder.span for holder in holders}):
        if reached >= wanted.end:
            return gaps
        if span.start > reached:
            gaps.append(Span(reached, min(span.start, wanted.end)))
        reached = max(reached, span.end)
    if reached < wanted.end:
        gaps.append(Span(reached, wanted.end))
    return gaps


def plan_route(
    holders: Iterable[Holder], wanted: Span, origin: PeerId, wishes: Wishes = NO_WISHES
) -> tuple[Hop, ...]:
    """The cheapest chain of hops over all blocks of `wanted`. A hop may use a part of its span.

    Shortest path from the last block boundary back to the first; a hop is always used to the end of
    its span, which never costs a hop more. O(holders + blocks x spans); the first of equals is taken.

    Raises:
        ModelUnavailable: some block has no holder; names the blocks. Or there are too many hops.
    """
    usable = [holder for holder in holders if holder.peer not in wishes.exclude]
    gaps = missing_blocks(usable, wanted)
    if gaps:
        raise ModelUnavailable(f"{describe_gaps(gaps)} no volunteer", retry_after=RETRY_SECONDS)
    cheapest = _cheapest_of_each_span(usable, origin, wishes.prefer)
    best: dict[int, tuple[Cost, Holder | None]] = {wanted.end: (Cost(), None)}
    for start in range(wanted.end - 1, wanted.start - 1, -1):
        best[start] = min(
            (
                (cost.plus(best[min(holder.span.end, wanted.end)][0]), holder)
                for cost, holder in cheapest
                if holder.span.start <= start < holder.span.end
            ),
            key=lambda candidate: candidate[0],
        )
    return _follow(best, wanted)


def _cheapest_of_each_span(
    holders: Iterable[Holder], origin: PeerId, prefer: frozenset[PeerId]
) -> list[tuple[Cost, Holder]]:
    """Among volunteers of the same span only the cheapest can be on the best route."""
    found: dict[Span, tuple[Cost, Holder]] = {}
    for holder in holders:
        cost = _cost(holder, origin, is_preferred=holder.peer in prefer)
        if holder.span not in found or cost < found[holder.span][0]:
            found[holder.span] = (cost, holder)
    return list(found.values())


def _cost(holder: Holder, origin: PeerId, *, is_preferred: bool) -> Cost:
    sessions = max(0, holder.sessions - PREFERRED_SESSIONS) if is_preferred else holder.sessions
    return Cost(1, int(holder.peer != origin), sessions, int(not is_preferred))


def _follow(best: dict[int, tuple[Cost, Holder | None]], wanted: Span) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    start = wanted.start
    while (holder := best[start][1]) is not None:
        end = min(holder.span.end, wanted.end)
        hops.append(Hop(holder.peer, Span(start, end)))
        start = end
    if len(hops) > MAX_HOPS:
        raise ModelUnavailable(
            f"the blocks are spread over {len(hops)} volunteers, but a route has at most {MAX_HOPS} hops: "
            "larger spans are needed",
            retry_after=RETRY_SECONDS,
        )
    return tuple(hops)


def describe_gaps(gaps: list[Span]) -> str:
    """`blocks 4-7 and 10-11 have`, `block 3 has`: a sentence's subject and verb; the last block counts."""
    names = [str(gap.start) if len(gap) == 1 else f"{gap.start}\N{EN DASH}{gap.end - 1}" for gap in gaps]
    if len(names) == 1 and len(gaps[0]) == 1:
        return f"block {names[0]} has"
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"blocks {listed} have"
