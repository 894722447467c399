"""How much memory blocks take: an estimate from the few facts that the relay knows of a model.

All parameters are shared out among the blocks. Those of the embedding and the output projection are among
them, since the relay does not know how many they are, so the figure is too large: by 3 % for Llama 70B, by
15 % for Llama 8B, by 27 % for Llama 1B. That is the better side to err on. Keys and values of sessions come
on top.
Pure. Does not know who is connected.
"""

from collections.abc import Iterable

from schema.ids import Span
from schema.messages import ModelFacts

BYTES_16_BIT = 2.0
BYTES_NF4 = 0.5 + 4 / 64
"""Half a byte a parameter, and a scale of 4 bytes for each 64 of them."""
_UNITS, _LARGEST = ("bytes", "kB", "MB", "GB", "TB"), "PB"


def bytes_of_blocks(facts: ModelFacts, spans: Iterable[Span], bytes_each: float = BYTES_16_BIT) -> int:
    """What these blocks take, about. `bytes_each`: of one parameter."""
    return round(facts.parameters / facts.blocks * sum(map(len, spans)) * bytes_each)


def describe_need(facts: ModelFacts, gaps: list[Span]) -> str:
    """`they need about 8 GB of memory at 16 bits, or 2.3 GB in nf4`: the predicate of missing blocks."""
    subject = "it needs" if sum(map(len, gaps)) == 1 else "they need"
    at_16_bits = describe_bytes(bytes_of_blocks(facts, gaps))
    in_nf4 = describe_bytes(bytes_of_blocks(facts, gaps, BYTES_NF4))
    return f"{subject} about {at_16_bits} of memory at 16 bits, or {in_nf4} in nf4"


def describe_bytes(count: float) -> str:
    """As people say it, in as many digits as an estimate is worth."""
    for unit in _UNITS:
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} {_LARGEST}"
