"""The best placement of given volunteers that a search finds, and what moves without holes can reach.

With few blocks and volunteers all are tried; with more, one volunteer after the other is put where the model
is strongest, again and again from where some were put anywhere: better placements may exist. Nobody downloads
here, so it is what is possible for whoever may move everybody at once. Does not know time.
"""

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from relay.throughputs import holes, places, share_of, strength, throughputs, with_span
from schema.ids import Span

DISTURBED = (2, 2, 3, 4)
"""How many volunteers are put anywhere before the next search."""
BETTER = 1 + 1e-6
"""Less is rounding."""


class Machine(NamedTuple):
    """A volunteer, wherever it is put."""

    length: int
    """Of its span."""
    speed: float
    """Blocks a second."""

    @property
    def share(self) -> float:
        return share_of(self.speed, self.length)


Starts = tuple[int, ...]
"""Of the span of each volunteer."""


def weakest(blocks: int, machines: Sequence[Machine], starts: Sequence[int]) -> float:
    return min(_each(blocks, machines, starts))


def best_of_all(blocks: int, machines: Sequence[Machine]) -> float:
    """The weakest block in the best of all placements."""
    ways = itertools.product(*(range(blocks - one.length + 1) for one in machines))
    return max(weakest(blocks, machines, starts) for starts in ways)


def best_reached(blocks: int, machines: Sequence[Machine], starts: Sequence[int]) -> float:
    """The weakest block in the best placement to which moves lead of which none opens a hole."""
    seen, ahead = {tuple(starts)}, [tuple(starts)]
    best = 0.0
    while ahead:
        here = ahead.pop()
        each = _each(blocks, machines, here)
        best = max(best, min(each))
        for number, one in enumerate(machines):
            without = with_span(each, Span(here[number], here[number] + one.length), -one.share)
            if holes(without) > holes(each):
                continue
            for start in range(blocks - one.length + 1):
                there = (*here[:number], start, *here[number + 1 :])
                if there not in seen:
                    seen.add(there)
                    ahead.append(there)
    return best


def best_found(
    blocks: int, machines: Sequence[Machine], starts: Sequence[int], rounds: int, source: random.Random
) -> float:
    """The weakest block in the best placement that was found from this one on."""
    best = weakest(blocks, machines, starts)
    here = _ascended(blocks, machines, starts, source)
    for _ in range(rounds):
        best = max(best, weakest(blocks, machines, here))
        there = list(here)
        for number in source.sample(range(len(machines)), min(len(machines), source.choice(DISTURBED))):
            there[number] = source.randrange(blocks - machines[number].length + 1)
        there = _ascended(blocks, machines, there, source)
        if _strength(blocks, machines, there) >= _strength(blocks, machines, here):
            here = there
    return max(best, weakest(blocks, machines, here))


def _ascended(
    blocks: int, machines: Sequence[Machine], starts: Sequence[int], source: random.Random
) -> list[int]:
    """Everybody where the model is strongest given the others, until nobody would gain by another place."""
    found, each = list(starts), _each(blocks, machines, starts)
    order = list(range(len(machines)))
    is_better = True
    while is_better:
        is_better = False
        source.shuffle(order)
        for number in order:
            one = machines[number]
            without = with_span(each, Span(found[number], found[number] + one.length), -one.share)
            ways = places(without, one.length, one.share)
            best = min(range(len(ways)), key=lambda start: (ways[start].holes, -ways[start].strength))
            now, then = ways[found[number]], ways[best]
            if then.holes < now.holes or then.strength > now.strength * BETTER:
                found[number], is_better = best, True
            each = with_span(without, Span(found[number], found[number] + one.length), one.share)
    return found


def _each(blocks: int, machines: Sequence[Machine], starts: Sequence[int]) -> list[float]:
    spans = (Span(start, start + one.length) for start, one in zip(starts, machines, strict=True))
    return throughputs(blocks, zip(spans, (one.speed for one in machines), strict=True))


def _strength(blocks: int, machines: Sequence[Machine], starts: Sequence[int]) -> tuple[int, float]:
    each = _each(blocks, machines, starts)
    return -holes(each), strength(each)
