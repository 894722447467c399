"""How strong each block of a model is: what volunteers compute for it, in tokens a second.

Pure arithmetic over spans and speeds, which placing newcomers and moving volunteers share. Does not know
volunteers, sockets or time.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

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
    changes, counts = [0.0] * (blocks + 1), [0] * (blocks + 1)
    for span, speed in held:
        share = share_of(speed, len(span))
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
