"""Whether a volunteer had better hold other blocks than it does, and which: a pure function over the swarm.

A move is worth its while when the model gains more in what is left of `HORIZON_SECONDS` than it loses while
the volunteer drains, downloads and loads: until then its old blocks do without it. Who decides again and
again must not go round in circles, so:

- a gain counts from `LEAST_GAIN` on;
- no move opens a hole among blocks that are all served, and none leaves as many holes as there were;
- while the same volunteers are there each moves once at most, unless there is a hole to fill.

So a swarm in which nobody comes or goes ends moving, whatever speeds are measured meanwhile: moves into holes
leave fewer of them each time, none opens one again, and of the others there are no more than volunteers.

Does not know sockets, SQL or time: the caller runs it inside one transaction.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from relay.chains import MOST_MOVES, first_of_chain, moves_ahead
from relay.moves import (
    HORIZON_SECONDS,
    LEAST_GAIN,
    LastMove,
    Move,
    Resident,
    members_of,
    moved_already,
    seconds_away,
)
from relay.placement import typical_speed
from relay.records import HeldTogether
from relay.throughputs import holes, places, share_of, strength, summed, throughputs, with_span
from schema.ids import PeerId, Span
from schema.messages import ModelFacts

SETTLE_SECONDS = 300.0
"""How long a volunteer stays at least where it was put, in a complete model."""
PATIENCE_SECONDS = 900.0
"""How long the next move waits for the last one to be over."""


class _Blocks(NamedTuple):
    """Tokens a second of each block."""

    each: list[float]
    """When all serve that are about to."""
    served: list[float]
    """Now."""


class _Option(NamedTuple):
    """A move, and how good it is: compared from the left, the least first."""

    holes: int
    opened: int
    """Holes more than now, until it serves again."""
    loss: float
    """Tokens."""
    seconds: float
    """Until it serves again."""
    peer: PeerId
    move: Move


def is_strong_enough(together: Sequence[HeldTogether], facts: ModelFacts) -> bool:
    """Whether `next_move` has nothing to look for: a cheap answer for thousands, none of whom matters much.

    There is no hole, and as many moves as are looked ahead, of the strongest, add less to any block than a
    gain takes. What those add that have not measured is not counted: it may say False for that, not True.
    """
    shares = ((Span(one.start, one.end), one.blocks_per_second / (one.end - one.start)) for one in together)
    each = summed(facts.blocks, shares)
    fastest = max((one.fastest for one in together), default=0.0)
    lengths = (min(one.room, facts.blocks) for one in together if one.room)
    strongest = max((share_of(fastest, length) for length in lengths), default=0.0)
    return not holes(each) and MOST_MOVES * strongest < LEAST_GAIN * min(each)


def next_move(
    residents: Sequence[Resident], facts: ModelFacts, last: Sequence[LastMove], now: float
) -> Move | None:
    """The move that is due, if there is one.

    `last`: the model's moves so far, the latest first. `now` on the clock of `settled_at` and of these.
    """
    residents = _with_speeds(residents)
    each = throughputs(facts.blocks, ((one.span, one.blocks_per_second) for one in residents))
    movers = [one for one in residents if one.room and one.is_serving]
    if holes(each):
        move = _best(movers, _blocks(residents, each), facts)
    elif _is_on_its_way(residents, last, now):
        return None
    else:
        movers = [one for one in movers if now - one.settled_at >= SETTLE_SECONDS]
        move = _strengthening(residents, movers, each, facts, last)
    return None if move is None else replace(move, members=members_of(residents))


def _strengthening(
    residents: Sequence[Resident],
    movers: Sequence[Resident],
    each: list[float],
    facts: ModelFacts,
    last: Sequence[LastMove],
) -> Move | None:
    """The move that makes a complete model stronger, by itself or as the first of several."""
    strong = _strong(movers, each, facts)
    are_few = moves_ahead(movers, facts.blocks) > 1
    if not strong and not are_few:
        return None  # as among thousands: what is below takes longer
    stay = moved_already(residents, last)
    # A chain first: a single move that is due uses up one of the moves that may gain more together.
    if are_few and all(one.is_serving for one in residents):
        move = first_of_chain(each, [one for one in movers if one.peer not in stay], facts)
        if move is not None:
            return move
    return _best([one for one in strong if one.peer not in stay], _blocks(residents, each), facts)


def _with_speeds(residents: Sequence[Resident]) -> list[Resident]:
    typical = typical_speed(one.blocks_per_second for one in residents)
    return [one if one.blocks_per_second else replace(one, blocks_per_second=typical) for one in residents]


def _blocks(residents: Sequence[Resident], each: list[float]) -> _Blocks:
    serving = ((one.span, one.blocks_per_second) for one in residents if one.is_serving)
    return _Blocks(each, throughputs(len(each), serving))


def _is_on_its_way(residents: Sequence[Resident], last: Sequence[LastMove], now: float) -> bool:
    """Whether the last move is not over."""
    if not last or now - last[0].at >= PATIENCE_SECONDS:
        return False
    return any(one.peer == last[0].peer and not one.is_serving for one in residents)


def _strong(movers: Sequence[Resident], each: Sequence[float], facts: ModelFacts) -> list[Resident]:
    """Who strengthens blocks by less than is needed makes the model no stronger than that."""
    needed = LEAST_GAIN * min(each)
    return [one for one in movers if share_of(one.blocks_per_second, one.length(facts.blocks)) >= needed]


def _best(movers: Sequence[Resident], blocks: _Blocks, facts: ModelFacts) -> Move | None:
    options = (option for one in movers for option in _options(one, blocks, facts))
    best = min(options, key=lambda option: option[:-1], default=None)
    return None if best is None else best.move


def _options(one: Resident, blocks: _Blocks, facts: ModelFacts) -> list[_Option]:
    """The moves of this volunteer that are worth their while."""
    length = one.length(facts.blocks)
    share = share_of(one.blocks_per_second, length)
    each, without = blocks.each, with_span(blocks.each, one.span, -one.share)
    # Whoever answers nobody yet interrupts nobody, but shall not be kept from it: as if all served.
    meanwhile = each if holes(blocks.served) else blocks.served
    meanwhile_without = with_span(meanwhile, one.span, -one.share)
    missing_now, before = holes(each), strength(each)
    if holes(meanwhile_without) and not holes(blocks.served):
        return []
    opened, lost = holes(without) - missing_now, strength(meanwhile) - strength(meanwhile_without)
    found: list[_Option] = []
    for start, (place, away) in enumerate(
        zip(places(without, length, share), seconds_away(one, length, facts), strict=True)
    ):
        gain = place.strength - before
        if place.holes >= missing_now if missing_now else gain < LEAST_GAIN * before:
            continue
        span = Span(start, start + length)
        loss = lost * away - gain * (HORIZON_SECONDS - away)
        if span == one.span or away >= HORIZON_SECONDS or (loss >= 0 and not missing_now):
            continue
        if missing_now or min(with_span(without, span, share)) >= min(each):
            move = Move(one.peer, one.span, span, gain)
            found.append(_Option(place.holes, opened, loss, away, one.peer, move))
    return found
