"""How a prompt is cut into slices, which travel the hops one behind the other. Pure."""

import math

from schema.limits import TARGET_SLICE_BYTES

LEADING_PARTS = (4, 2)
"""What parts of a full slice the first ones are, over several hops. Together they are less than one."""


def slice_lengths(tokens: int, bytes_per_token: int, max_tokens: int, hops: int = 1) -> list[int]:
    """How to cut a prompt of one token or more: into equal slices, to one token, that exceed neither limit.

    The limits are `max_tokens` tokens and `TARGET_SLICE_BYTES` bytes; a slice has one token at least. Over
    several hops a prompt of several slices begins with shorter ones: a slice goes on when it is there as a
    whole, so that they let the later hops begin, and their connections get up to speed, early.
    """
    most = max(1, min(TARGET_SLICE_BYTES // bytes_per_token, max_tokens))
    first = [most // part for part in LEADING_PARTS if most >= part] if hops > 1 and tokens > most else []
    rest = tokens - sum(first)
    count = math.ceil(rest / most)
    base, longer = divmod(rest, count)
    return first + [base + 1] * longer + [base] * (count - longer)
