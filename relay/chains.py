"""Moves that are worth their while only one after the other: a search that looks a few moves ahead.

Where no single move makes a model stronger, several may: one volunteer doubles the blocks of another, which
can then leave them without opening a hole. What such a chain gains at its end is weighed against what is
missing during each of its moves. Each volunteer moves once in it, and its last move gains enough to be due by
itself once the others are made, so that nobody need remember the chain.

All chains are tried, so the search is for few volunteers and blocks: `WORK` says how few. Does not know when
volunteers may be moved, sockets, SQL or time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from relay.moves import HORIZON_SECONDS, LEAST_GAIN, Move, Resident, seconds_away
from relay.throughputs import holes, places, share_of, strength, with_span
from schema.ids import Span
from schema.messages import ModelFacts

MOST_MOVES = 3
WORK = 30_000
"""Blocks that may be looked at, which take about a microsecond each."""
ROUNDING = 1e-9


class _Target(NamedTuple):
    """A volunteer, and all it could hold."""

    one: Resident
    length: int
    share: float
    away: Sequence[float]
    """Seconds, for each start."""


class _Begun(NamedTuple):
    """A chain without its last moves."""

    before: float
    """The model's strength before it."""
    strongest: float
    """And the most that it was since."""
    weakest: float
    """The most that its weakest block was since."""
    lost: float
    """Tokens, while volunteers were away."""
    seconds: float
    """That they were."""


class _Step(NamedTuple):
    """One more move of a chain."""

    move: Move
    strength: float
    """Of the model after it."""
    lost: float
    """Tokens, with all before."""
    seconds: float
    """With all before."""


class _Chain(NamedTuple):
    """A chain that is worth its while."""

    loss: float
    """Tokens."""
    first: Move


def first_of_chain(each: Sequence[float], movers: Sequence[Resident], facts: ModelFacts) -> Move | None:
    """The first move of the best chain that is worth its while, one of a single move included.

    None too where there are too many to try. `each`: the throughputs of a complete model of which all that is
    held is served already; `movers`: who may be moved.
    """
    depth = moves_ahead(movers, facts.blocks)
    if depth < 2:
        return None
    targets = [_target(one, facts) for one in movers]
    before = strength(each)
    found = _best(each, targets, depth, _Begun(before, before, min(each), 0.0, 0.0))
    return None if found is None else found.first


def _target(one: Resident, facts: ModelFacts) -> _Target:
    length = one.length(facts.blocks)
    share = share_of(one.blocks_per_second, length)
    return _Target(one, length, share, seconds_away(one, length, facts))


def moves_ahead(movers: Sequence[Resident], blocks: int) -> int:
    """How many moves ahead can be looked; with 1 there is nothing to see."""
    if len(movers) ** 2 * blocks > WORK:
        return 1
    ways = sum(blocks - one.length(blocks) + 1 for one in movers)
    work, depth = len(movers) * blocks, 1
    while work * ways <= WORK and depth < min(MOST_MOVES, len(movers)):
        work, depth = work * ways, depth + 1
    return depth


def _best(each: Sequence[float], targets: Sequence[_Target], depth: int, begun: _Begun) -> _Chain | None:
    """The best way to go on from here, with `depth` moves at most; None where none is worth its while."""
    best: _Chain | None = None
    for target in targets:
        without = with_span(each, target.one.span, -target.one.share)
        if holes(without):
            continue
        rest = [other for other in targets if other is not target]
        for step in _steps(target, without, begun):
            found = _ended(step, target, without, begun)
            if depth > 1:
                then = with_span(without, step.move.after, target.share)
                longer = _best(then, rest, depth - 1, _gone_on(step, then, begun))
                if longer is not None and (found is None or longer.loss < found.loss):
                    found = longer
            if found is not None and (best is None or found.loss < best.loss):
                best = _Chain(found.loss, step.move)
    return best


def _steps(target: _Target, without: Sequence[float], begun: _Begun) -> Iterator[_Step]:
    """What a volunteer could hold next, that is over in time."""
    missing = begun.before - strength(without)
    for start, place in enumerate(places(without, target.length, target.share)):
        span, away = Span(start, start + target.length), target.away[start]
        if span != target.one.span and begun.seconds + away < HORIZON_SECONDS:
            move = Move(target.one.peer, target.one.span, span, place.strength - begun.before)
            yield _Step(move, place.strength, begun.lost + missing * away, begun.seconds + away)


def _ended(step: _Step, target: _Target, without: Sequence[float], begun: _Begun) -> _Chain | None:
    """The chain that ends with this step, if that is worth its while."""
    loss = step.lost - step.move.gain * (HORIZON_SECONDS - step.seconds)
    if step.strength < (1 + LEAST_GAIN) * begun.strongest or loss >= 0:
        return None
    then = with_span(without, step.move.after, target.share)
    return None if min(then) < begun.weakest * (1 - ROUNDING) else _Chain(loss, step.move)


def _gone_on(step: _Step, then: Sequence[float], begun: _Begun) -> _Begun:
    strongest, weakest = max(begun.strongest, step.strength), max(begun.weakest, min(then))
    return _Begun(begun.before, strongest, weakest, step.lost, step.seconds)
