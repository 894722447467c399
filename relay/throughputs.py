"""How strong each block of a model is: what volunteers compute for it, in tokens a second.

Pure arithmetic over spans and speeds, which placing newcomers and moving volunteers share. Does not know
volunteers, sockets or time.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from schema.ids import Span

SLOWEST, FASTEST = 1e-3, 1e6
"""Blocks per second between which a volunteer is believed: none makes its blocks look like holes, or like
blocks that will never need another."""
SHARPNESS = 8
"""How much more the weakest blocks count in a model's strength than the others."""
NOTHING = 5e-7
"""Tokens a second: less than the slowest volunteer of the longest span gives, and more than rounding leaves
of a block off which all were taken."""


def share_of(speed: float, blocks: int) -> float:
    """Tokens a second through each of `blocks` blocks: a volunteer's speed is shared by its span."""
    return min(max(speed, SLOWEST), FASTEST) / blocks


def throughputs(blocks: int, held: Iterable[tuple[Span, float]]) -> list[float]:
    """Tokens per second of each block, from spans and the blocks per second of who holds them."""
    return summed(blocks, ((span, share_of(speed, len(span))) for span, speed in held))


def summed(blocks: int, shares: Iterable[tuple[Span, float]]) -> list[float]:
    """Tokens per second of each block, from spans and what they add to each of their blocks."""
    changes, counts = [0.0] * (blocks + 1), [0] * (blocks + 1)
    for span, share in shares:
        start, end = min(span.start, blocks), min(span.end, blocks)
        changes[start] += share
        changes[end] -= share
        counts[start] += 1
        counts[end] -= 1
    each = zip(accumulate(changes[:blocks]), accumulate(counts[:blocks]), strict=True)
    return [max(value, 2 * NOTHING) if count else 0.0 for value, count in each]  # whatever rounding says


def with_span(each: Sequence[float], span: Span, share: float) -> list[float]:
    """The same with one more volunteer, or with one less where `share` is negative."""
    changed = list(each)
    for block in range(span.start, span.end):
        value = changed[block] + share
        changed[block] = value if value > NOTHING else 0.0
    return changed


def holes(each: Iterable[float]) -> int:
    """Blocks that nobody computes."""
    return sum(value <= NOTHING for value in each)


def strength(each: Sequence[float]) -> float:
    """About the tokens a second of the weakest block; the fewer are that weak, the more. 0 with a hole.

    The least alone would not tell that of two equally weak places one was mended.
    """
    least = min(each)
    if least <= NOTHING:
        return 0.0
    mean = sum((least / value) ** SHARPNESS for value in each) / len(each)
    return float(least * mean ** (-1 / SHARPNESS))


class Place(NamedTuple):
    """What a model is when one more volunteer is there."""

    holes: int
    strength: float


def places(each: Sequence[float], length: int, share: float) -> list[Place]:
    """For each start of its span: what `holes` and `strength` would say. O(blocks)."""
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
