"""KV memory in pages: keys and values of many sequences in one tensor a block, which never moves.

A captured graph reads and writes the memory that it was captured with, so caches that grow into new memory
are no use to it. Here every block has one tensor of slots, a sequence owns pages of them, and a table says
which. A page number is the same in every block. Page 0 and row 0 of the table belong to nobody: what is
padded points there.

Pages are taken as a sequence grows and given back when its cache is closed. Owner: the thread that runs the
model. Knows nothing of attention, budgets or graphs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin

from corolla.models.cache import Clock, placeholder
from corolla.models.errors import RollbackRefused
from corolla.models.growing import LEAST_ROOM, room_for
from schema.errors import KVCacheFull

PAGE_TOKENS = LEAST_ROOM
RETRY_SECONDS = 5.0


class KVPool:
    """The pages of one span."""

    def __init__(self, blocks: int, pages: int, rows: int, longest: int, device: str) -> None:
        """`rows`: sequences at most, `longest`: tokens of one at most. Memory is taken at the first use."""
        self.table = torch.zeros(
            rows + 1, -(-room_for(longest) // PAGE_TOKENS), dtype=torch.int64, device=device
        )
        """The page of every `PAGE_TOKENS` tokens of each sequence, [rows, pages]."""
        self.device = self.table.device
        self._free_pages = list(range(pages, 0, -1))
        self._free_rows = list(range(rows, 0, -1))
        self._slots = (pages + 1) * PAGE_TOKENS
        self.page_bytes = 0
        """Of one page in all blocks that were used yet."""
        self.reclaim: Callable[[], bool] = lambda: False
        """Gives back what nobody needs at the moment, a cache at a time; whether there was any."""
        self._keys: list[Tensor | None] = [None] * blocks
        self._values: list[Tensor | None] = [None] * blocks

    @property
    def free_pages(self) -> int:
        return len(self._free_pages)

    @property
    def free_rows(self) -> int:
        return len(self._free_rows)

    def take_row(self) -> int:
        while not self._free_rows and self.reclaim():
            pass
        if not self._free_rows:
            raise KVCacheFull("too many replies are being written here: try again", retry_after=RETRY_SECONDS)
        return self._free_rows.pop()

    def take_pages(self, row: int, held: int, count: int) -> list[int]:
        """`count` pages more for the sequence of `row`, which has `held`."""
        while count > len(self._free_pages) and self.reclaim():
            pass
        if count > len(self._free_pages):
            raise KVCacheFull(
                f"{count} pages of KV memory are needed and {len(self._free_pages)} are free: "
                "try again when other replies have ended",
                retry_after=RETRY_SECONDS,
            )
        taken = self._free_pages[-count:]
        self.table[row, held : held + count] = torch.tensor(taken, device=self.table.device)
        del self._free_pages[-count:]
        return taken

    def give_back(self, row: int, pages: list[int]) -> None:
        self.table[row] = 0
        self._free_pages += pages
        self._free_rows.append(row)

    def slots(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Where the tokens at `columns` of the sequences of `rows` are; both broadcast."""
        return self.table[rows, columns // PAGE_TOKENS] * PAGE_TOKENS + columns % PAGE_TOKENS

    def write(self, block: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores [tokens, heads, head_dim] in slots [tokens]."""
        for memory, new in ((self._keys, keys), (self._values, values)):
            tensor = memory[block]
            if tensor is None:
                memory[block] = tensor = new.new_zeros((self._slots, *new.shape[1:]))
                self.page_bytes += tensor.nbytes // self._slots * PAGE_TOKENS
            tensor.index_copy_(0, slots, new)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """What is stored in slots `source`, in slots `target` too, in every block that was used yet."""
        for tensor in (*self._keys, *self._values):
            if tensor is not None:
                tensor.index_copy_(0, target, tensor.index_select(0, source))

    def read(self, block: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of slots [sequences, tokens]: [sequences, heads, tokens, head_dim] each."""
        keys, values = self._keys[block], self._values[block]
        if keys is None or values is None:
            raise RuntimeError("a block is read that was never written")
        return keys[slots].transpose(1, 2), values[slots].transpose(1, 2)


class _PooledLayer(CacheLayerMixin):
    """One block of one sequence."""

    def __init__(self, cache: "PooledCache", block: int, layer: Any) -> None:
        super().__init__()
        self.is_sliding = layer.is_sliding
        self.is_initialized = True
        self._window: int | None = getattr(layer, "sliding_window", None)
        self._cache = cache
        self._block = block

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The pool does that."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends [1, heads, tokens, head_dim]; what its tokens may attend to."""
        pool, slots, tokens = self._cache.pool, self._cache.slots, key_states.shape[2]
        pool.write(
            self._block, slots[-tokens:], key_states[0].transpose(0, 1), value_states[0].transpose(0, 1)
        )
        visible, _ = self.get_mask_sizes(tokens)
        return pool.read(self._block, slots[-visible:].unsqueeze(0))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        held = self._cache.position
        seen = held if self._window is None else min(held, self._window - 1)
        return seen + query_length, held - seen

    def get_seq_length(self) -> int:
        return self._cache.position

    def get_max_length(self) -> int:
        return -1


class PooledCache:
    """The KV cache of one sequence on all blocks of a span, in a pool. Else like a `SpanCache`."""

    batch = 1

    def __init__(self, pool: KVPool, config: PreTrainedConfig, start: int, end: int) -> None:
        """Raises `KVCacheFull` when there are too many sequences."""
        self.start = start
        self.end = end
        self.pool = pool
        self._config = config
        self.row = pool.take_row()
        self.slots: Tensor = pool.table[0, :0]
        """Of the tokens that are held and of those of the pass that runs."""
        self._pages: list[int] = []
        self._clock = Clock()
        self.layers = DynamicCache(config=config)
        self.own: list[Any] = [
            _PooledLayer(self, index, layer) for index, layer in enumerate(self.layers.layers[start:end])
        ]
        self.layers.layers = [
            self.own[index - start] if start <= index < end else placeholder(layer, self._clock)
            for index, layer in enumerate(self.layers.layers)
        ]

    @property
    def position(self) -> int:
        """Tokens held."""
        return self._clock.position

    @property
    def nbytes(self) -> int:
        return len(self._pages) * self.pool.page_bytes

    @property
    def room(self) -> int:
        """Tokens more that it has pages for."""
        return len(self._pages) * PAGE_TOKENS - self.position

    def reserve(self, tokens: int) -> None:
        """Takes pages for `tokens` tokens more. Raises `KVCacheFull`."""
        due = room_for(self.position + tokens) // PAGE_TOKENS - len(self._pages)
        if due > 0:
            self._pages += self.pool.take_pages(self.row, len(self._pages), due)

    def begin(self, tokens: int) -> None:
        """Before a pass over `tokens` tokens that reads its slots. Raises `KVCacheFull`."""
        self.reserve(tokens)
        self.slots = self._slots_of(self.position + tokens)

    def fork(self, position: int) -> "PooledCache":
        """A cache of its own that holds a copy of the first `position` tokens.

        Raises `RollbackRefused` for tokens that are not held, and `KVCacheFull`.
        """
        self.require_cut(position)
        copy = PooledCache(self.pool, self._config, self.start, self.end)
        try:
            copy.reserve(position)
            with torch.inference_mode():
                self.pool.copy(self._slots_of(position), copy._slots_of(position))
        except BaseException:
            copy.close()
            raise
        copy.advance(position)
        return copy

    def _slots_of(self, tokens: int) -> Tensor:
        """Where the first `tokens` tokens are."""
        device = self.pool.table.device
        row = torch.tensor(self.row, device=device)
        return self.pool.slots(row, torch.arange(tokens, device=device))

    def advance(self, tokens: int) -> None:
        self._clock.position += tokens

    def drop_unfinished(self) -> None:
        """What lies behind the position is written over."""

    def truncate(self, position: int) -> None:
        """Forgets every token from `position` on; raises `RollbackRefused` for one that is not held."""
        self.require_cut(position)
        self._clock.position = position

    def require_cut(self, position: int) -> None:
        """Raises as `truncate`."""
        if not 0 <= position <= self.position:
            raise RollbackRefused(f"The cache holds {self.position} tokens; it cannot be cut to {position}.")

    def close(self) -> None:
        """Gives the pages back. The cache is of no more use."""
        self.pool.give_back(self.row, self._pages)
        self._pages = []
