"""What KV caches cost: bytes of a span's cache by its tokens, for booking them before they are allocated.

Pure. Knows neither the caches nor the account.
"""

from dataclasses import dataclass
from typing import Self

from corolla.models.facts import ModelFacts
from corolla.models.growing import room_for
from schema.ids import Span


@dataclass(frozen=True, slots=True)
class KVCost:
    """Bytes of a span's KV cache for one sequence."""

    state: int
    """Recurrent and convolutional states, whatever the length."""
    per_token: int
    """Keys and values of the blocks that keep every token; they are held with room for more."""
    windows: tuple[tuple[int, int], ...] = ()
    """Of each sliding window its bytes a token, and the tokens that it keeps at most."""

    @classmethod
    def of_span(cls, facts: ModelFacts, span: Span) -> Self:
        blocks = slice(span.start, span.end)
        sizes = list(zip(facts.kv_bytes_per_token[blocks], facts.kv_tokens_at_most[blocks], strict=True))
        return cls(
            state=sum(facts.state_bytes[blocks]),
            per_token=sum(size for size, limit in sizes if limit is None),
            windows=tuple((size, limit) for size, limit in sizes if limit is not None),
        )

    def of_tokens(self, batch: int, tokens: int) -> int:
        """Bytes that a cache of `batch` sequences of `tokens` tokens has at most."""
        windows = sum(size * min(tokens, limit) for size, limit in self.windows)
        return batch * (self.state + self.per_token * room_for(tokens) + windows)
