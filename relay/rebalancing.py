"""Whether a volunteer had better hold other blocks than it does, and which: a pure function over the swarm.

A move is worth its while when the model gains more in what is left of `HORIZON_SECONDS` than it loses while
the volunteer drains, downloads and loads: until then its old blocks do without it. Who decides again and
again must not go round in circles, so:

- a gain counts from a tenth on;
- no move opens a hole, unless the model has holes already, and has fewer of them afterwards;
- while the same volunteers are there as at the last move, none is moved, unless there is a hole to fill: so
  each one that dies or joins moves one other at most, and nothing goes back to where it was by itself.

Does not know sockets, SQL or time: the caller runs it inside one transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

from relay.placement import typical_speed
from relay.throughputs import NOTHING, SHARPNESS, holes, share_of, strength, throughputs, with_span
from schema.ids import PeerId, Span
from schema.messages import ModelFacts

HORIZON_SECONDS = 3600.0
"""How long a move is expected to be of use: home machines stay for some hours."""
LEAST_GAIN = 0.1
"""Of a complete model's strength."""
SETTLE_SECONDS = 300.0
"""How long a volunteer stays at least where it was put, in a complete model."""
PATIENCE_SECONDS = 900.0
"""How long the next move waits for the last one to be over."""
AWAY_SECONDS = 30.0
"""What a move takes beside download and loading: sessions end, and the probe passes."""
DOWNLOAD_BYTES_PER_SECOND = 12.5e6
"""What a home connection is taken for: 100 Mbit/s."""
LOAD_BYTES_PER_SECOND = 500e6
"""From disk to device."""
BYTES_PER_PARAMETER = 2
"""As checkpoints hold them."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A volunteer and the span that it serves, or is about to."""

    peer: PeerId
    span: Span
    blocks_per_second: float
    room: int | None = None
    """How many blocks it could hold elsewhere; None: it stays where it is."""
    cached: tuple[Span, ...] = ()
    """Blocks that it need not download, beside those that it holds."""
    settled_at: float = 0.0
    """When it was given its span."""
    is_serving: bool = True


class LastMove(NamedTuple):
    """The last move of a model's volunteers."""

    peer: PeerId
    at: float
    members: str
    """Who was there; see `members_of`."""


@dataclass(frozen=True, slots=True)
class Move:
    """A volunteer that shall hold another span."""

    peer: PeerId
    before: Span
    after: Span
    gain: float
    """Tokens a second of the model's strength; 0 where it stays incomplete."""
    members: str = ""
    """Who was there when it was decided; see `members_of`."""


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


def members_of(residents: Iterable[Resident]) -> str:
    """A short name for who is there."""
    peers = sorted(resident.peer for resident in residents)
    return blake2b("".join(peers).encode(), digest_size=16).hexdigest()


def next_move(
    residents: Sequence[Resident], facts: ModelFacts, last: LastMove | None, now: float
) -> Move | None:
    """The move that is due, if there is one. `now` on the clock of `settled_at` and `last`."""
    typical = typical_speed(one.blocks_per_second for one in residents)
    each = throughputs(facts.blocks, ((one.span, one.blocks_per_second or typical) for one in residents))
    if not holes(each) and last is not None and not _is_over(residents, last, now):
        return None
    found: list[_Option] = []
    needed = 0.0 if holes(each) else LEAST_GAIN * min(each)
    for one in residents:
        speed = one.blocks_per_second or typical
        if one.room and one.is_serving and (not needed or _may_move(one, speed, needed, facts, now)):
            found += _options(one, speed, each, facts)
    best = min(found, key=lambda option: option[:-1], default=None)
    return None if best is None else replace(best.move, members=members_of(residents))


def _is_over(residents: Sequence[Resident], last: LastMove, now: float) -> bool:
    """Whether the last move is over, and others are there than when it was decided."""
    is_on_its_way = any(one.peer == last.peer and not one.is_serving for one in residents)
    if is_on_its_way and now - last.at < PATIENCE_SECONDS:
        return False
    return last.members != members_of(residents)


def _may_move(one: Resident, speed: float, needed: float, facts: ModelFacts, now: float) -> bool:
    """In a complete model. Who strengthens blocks by less than is `needed` makes it no stronger than that."""
    length = min(one.room or 0, facts.blocks)
    return share_of(speed, length) >= needed and now - one.settled_at >= SETTLE_SECONDS


def _options(one: Resident, speed: float, each: Sequence[float], facts: ModelFacts) -> list[_Option]:
    """The moves of this volunteer that are worth their while."""
    length = min(one.room or 0, facts.blocks)
    share = share_of(speed, length)
    without = with_span(each, one.span, -share_of(speed, len(one.span)))
    missing_now = holes(each)
    before, alone, opened = strength(each), strength(without), holes(without) - missing_now
    if opened and not missing_now:
        return []
    found: list[_Option] = []
    for start, (place, away) in enumerate(
        zip(places(without, length, share), _seconds_away(one, length, facts), strict=True)
    ):
        gain = place.strength - before
        if place.holes >= missing_now if missing_now else gain < LEAST_GAIN * before:
            continue
        span = Span(start, start + length)
        loss = (before - alone) * away - gain * (HORIZON_SECONDS - away)
        if span == one.span or away >= HORIZON_SECONDS or (loss >= 0 and not missing_now):
            continue
        if missing_now or min(with_span(without, span, share)) >= min(each):
            move = Move(one.peer, one.span, span, gain)
            found.append(_Option(place.holes, opened, loss, away, one.peer, move))
    return found


def _seconds_away(one: Resident, length: int, facts: ModelFacts) -> list[float]:
    """How long a move takes to each start: sessions end, and what is not on disk is downloaded."""
    here = {block for run in (*one.cached, one.span) for block in range(run.start, run.end)}
    missing = list(accumulate((block not in here for block in range(facts.blocks)), initial=0))
    block_bytes = BYTES_PER_PARAMETER * facts.parameters / facts.blocks
    least = AWAY_SECONDS + length * block_bytes / LOAD_BYTES_PER_SECOND
    a_block = block_bytes / DOWNLOAD_BYTES_PER_SECOND
    starts = range(facts.blocks - length + 1)
    return [least + a_block * (missing[start + length] - missing[start]) for start in starts]


class Place(NamedTuple):
    """What a model is when one more volunteer is there."""

    holes: int
    strength: float


def places(each: Sequence[float], length: int, share: float) -> list[Place]:
    """For each start of its span: what `throughputs.holes` and `strength` would say. O(blocks)."""
    scale = min((value for value in each if value > NOTHING), default=share)

    def weakness(value: float) -> float:
        return (scale / value) ** SHARPNESS if value > NOTHING else 0.0

    now, then = [weakness(value) for value in each], [weakness(value + share) for value in each]
    # Sums of what is added up only: of a difference, rounding would be all that is left.
    before = list(accumulate(now, initial=0.0))
    behind = list(accumulate(reversed(now), initial=0.0))[::-1]
    within = list(accumulate(then, initial=0.0))
    filled = list(accumulate((value <= NOTHING for value in each), initial=0))
    found: list[Place] = []
    for start in range(len(each) - length + 1):
        end = start + length
        left = filled[-1] - filled[end] + filled[start]
        weak = (before[start] + within[end] - within[start] + behind[end]) / len(each)
        found.append(Place(left, 0.0 if left else scale * weak ** (-1 / SHARPNESS)))
    return found
