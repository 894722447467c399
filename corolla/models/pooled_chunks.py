"""Attention of chunks of several sequences to keys and values in one pool, in a few launches for all of them.

On a GPU a few tokens of a sequence keep the device busy for less time than it takes to launch what reads,
masks and attends. The chunks stand one behind the other (corolla/models/batching.py), and what they add to a
block is stored at once. To attend, chunks that are about equally long become a batch, padded at the left:
what each token may see follows from a mask. What is padded sees its own sequence, and is thrown away.

Pure but for the pool's memory. Owner: the thread that runs the model. Knows nothing of sessions or queues.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from corolla.models.pool import KVPool, PooledCache

MOST_PADDED = 4
"""How many times as many scores as it needs may be computed for a sequence, so that it is in a batch."""
FEW_SCORES = 16_384
"""So many for nothing do not count beside a launch."""
MOST_SCORES = 1 << 23
"""Of a batch of several: the mask has as many elements, and is repeated for heads that share keys."""


class Extent(NamedTuple):
    """The tokens of a sequence that a pass computes, and those that it held before."""

    row: int
    held: int
    tokens: int

    def visible(self, window: int | None) -> int:
        """How many tokens the pass reads, its own included; `window` as far back as one attends."""
        return self.tokens + (self.held if window is None else min(self.held, window - 1))

    @property
    def scores(self) -> int:
        return self.tokens * (self.held + self.tokens)


class Visible(NamedTuple):
    """What the sequences of a batch attend to."""

    slots: Tensor
    """Where it is, [sequences, longest], the newest token last."""
    mask: Tensor
    """What each token sees of it, [sequences, 1, tokens, longest]."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks that attend at once."""

    extents: Sequence[Extent]
    queries: Tensor
    """Which tokens of all chunks stand where, [sequences * tokens]."""
    _visible: dict[int | None, Visible] = field(default_factory=dict[int | None, Visible])
    """By window."""

    @property
    def tokens(self) -> int:
        return max(extent.tokens for extent in self.extents)

    def padded(self, query: Tensor) -> Tensor:
        """Of [1, heads, tokens of all chunks, head_dim] those here: [sequences, heads, tokens, head_dim]."""
        _, heads, _, width = query.shape
        rows = query[0].index_select(1, self.queries)
        return rows.view(heads, len(self.extents), self.tokens, width).transpose(0, 1)

    def visible(self, pool: KVPool, window: int | None) -> Visible:
        found = self._visible.get(window)
        if found is None:
            found = self._visible[window] = _visible(pool, self.extents, window)
        return found


@dataclass(frozen=True, slots=True)
class PooledChunks:
    """The chunks of one pass."""

    pool: KVPool
    slots: Tensor
    """Where their tokens are stored, [tokens of all chunks]."""
    batches: Sequence[Batch]
    _order: Tensor
    """Where each token of the chunks is in the batches, one behind the other."""

    @classmethod
    def of(cls, caches: Sequence[PooledCache], sizes: Sequence[int]) -> Self:
        """The next `sizes` tokens of each cache, for which it has begun."""
        pool = caches[0].pool
        extents = [Extent(cache.row, cache.position, size) for cache, size in zip(caches, sizes, strict=True)]
        begins = [sum(sizes[:index]) for index in range(len(sizes))]
        batches: list[Batch] = []
        order, offset = [0] * sum(sizes), 0
        for members in groups(extents):
            own = [extents[index] for index in members]
            longest = max(extent.tokens for extent in own)
            queries: list[int] = []
            for index in members:
                begin, tokens = begins[index], extents[index].tokens
                queries += [begin] * (longest - tokens) + list(range(begin, begin + tokens))
                end = offset + len(queries)
                order[begin : begin + tokens] = range(end - tokens, end)
            offset += len(queries)
            batches.append(Batch(own, torch.tensor(queries, device=pool.device)))
        slots = torch.cat([cache.slots[-size:] for cache, size in zip(caches, sizes, strict=True)])
        return cls(pool, slots, batches, torch.tensor(order, device=pool.device))

    def write(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Stores [1, heads, tokens of all chunks, head_dim]."""
        self.pool.write(block, self.slots, keys[0].transpose(0, 1), values[0].transpose(0, 1))

    def read(self, block: int, window: int | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each batch, [sequences, heads, longest, head_dim]."""
        return [self.pool.read(block, batch.visible(self.pool, window).slots) for batch in self.batches]

    def in_order(self, outputs: Sequence[Tensor]) -> Tensor:
        """[sequences, tokens, heads, head_dim] of each batch: [1, tokens of all chunks, heads, head_dim]."""
        rows = torch.cat([output.flatten(0, 1) for output in outputs])
        return rows.index_select(0, self._order).unsqueeze(0)


def groups(extents: Sequence[Extent]) -> list[list[int]]:
    """Which chunks attend as one batch, by their places: little of a batch is padding."""
    found: list[list[int]] = []
    for index in sorted(range(len(extents)), key=lambda index: (-extents[index].scores, index)):
        if found and _is_worth_it([extents[one] for one in (*found[-1], index)]):
            found[-1].append(index)
        else:
            found.append([index])
    return found


def _is_worth_it(extents: Sequence[Extent]) -> bool:
    keys = [extent.held + extent.tokens for extent in extents]
    padded = max(extent.tokens for extent in extents) * max(keys)
    if len(extents) * padded > MOST_SCORES or len(extents) * max(keys) > MOST_PADDED * sum(keys) + FEW_SCORES:
        return False
    return all(padded <= MOST_PADDED * extent.scores + FEW_SCORES for extent in extents)


def _visible(pool: KVPool, extents: Sequence[Extent], window: int | None) -> Visible:
    counts = [extent.visible(window) for extent in extents]
    ends = [extent.held + extent.tokens for extent in extents]
    numbers = torch.tensor(
        [[extent.row for extent in extents], ends, counts, [extent.tokens for extent in extents]],
        device=pool.device,
    )
    row, end, count, tokens = numbers.unsqueeze(2)
    back = torch.arange(-max(counts), 0, device=pool.device)
    """How far from its end a token is, the last one at -1: in every sequence the same."""
    columns = torch.maximum(end + back, end - count)
    of_query = torch.arange(-max(extent.tokens for extent in extents), 0, device=pool.device)
    band = back <= of_query.unsqueeze(1)
    if window is not None:
        band &= back > of_query.unsqueeze(1) - window
    mask = band & (back >= -count).unsqueeze(1)
    # Who attends to nothing gives NaN, and some kernels say so loudly.
    mask |= (of_query < -tokens).unsqueeze(2)
    return Visible(pool.slots(row, columns), mask.unsqueeze(1))
