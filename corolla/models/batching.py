"""Chunks of several sequences through a span at once, each sequence with a KV cache of its own.

A decoder is called with one cache. `JoinedCache` is such a cache, made of those of the sequences: what
a block adds is shared out to them, and what it attends to comes from them, in one of two ways:

- ragged: the chunks stand one behind the other, [1, tokens of all, hidden_size], so that a prompt's chunk
  may go with the single tokens of others. The block's attention function gets every sequence's own keys and
  values, and is run on one after the other, of which nothing is padded; where all are in one pool, on those
  that are about equally long at once (corolla/models/pooled_chunks.py). It takes a block that looks its
  attention function up in `AttentionInterface`, since that is where this one is put.
- padded: single tokens, [sequences, 1, hidden_size]. Keys and values are copied into one tensor, shorter
  sequences filled up at the left, as the library pads batches. It works with any attention, at the price
  of the copy. Chunks of several tokens go so too if they are equally long and at the same position, since
  then nothing is to be padded; each may be of several sequences.

What matters for speed is the rest: the weights are read once for all. Sums of a matrix product come out in
another order with more rows, so results differ from those of a sequence alone in their last bits.

Owner: the thread that runs the model. Knows nothing of sessions or queues.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from corolla.models.cache import Clock, SpanCache, placeholder
from corolla.models.pool import PooledCache
from corolla.models.pooled_chunks import PooledChunks

RAGGED = "corolla_ragged_"
"""What the ragged attention functions are registered as, before the name of the one that they run."""
RAGGED_OVER = ("sdpa", "eager")


class Chunk(NamedTuple):
    """The next tokens of a cache's sequences, [sequences, tokens, hidden_size], and that cache."""

    hidden: Tensor
    cache: SpanCache | PooledCache

    @property
    def tokens(self) -> int:
        return self.hidden.shape[1]


def is_even(chunks: Sequence[Chunk]) -> bool:
    """Whether chunks of several tokens are equally long and at the same position: nothing is to be padded."""
    return chunks[0].tokens > 1 and len({(chunk.tokens, chunk.cache.position) for chunk in chunks}) == 1


@dataclass(slots=True)
class _Pass:
    """The chunks that a joined cache stands for at the moment. Owned by the cache, read by its layers."""

    sizes: list[int] = field(default_factory=list[int])
    """Each chunk's: tokens where the chunks are ragged, sequences where they are padded."""
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict[Any, Tensor])
    """Of chunks of more than one token, which all blocks of a kind share."""
    pooled: PooledChunks | None = None
    """Where several ragged chunks are in one pool."""


class _Ragged(NamedTuple):
    """Keys or values of each sequence, [1, heads, tokens, head_dim], or of each batch of them: what `update`
    hands to attention."""

    each: Sequence[Tensor]
    window: int | None
    """How many tokens back a token attends to, itself included."""
    current: _Pass


class _JoinedLayer(CacheLayerMixin):
    """The layers of one block in every sequence's cache, as one layer."""

    def __init__(self, layer: Any, block: int, clock: Clock, current: _Pass, is_ragged: bool) -> None:
        """`block`: counted from the first one of the caches."""
        super().__init__()
        self.is_sliding = layer.is_sliding
        self.members: list[Any] = []
        self._block = block
        self._window: int | None = getattr(layer, "sliding_window", None)
        self._clock = clock
        self._current = current
        self._is_ragged = is_ragged

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is stored here."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Appends each sequence's part to its own layer; what each attends to.

        Ragged: [1, heads, tokens of all, head_dim]. Padded: [sequences, heads, tokens, head_dim].
        """
        pooled = self._current.pooled
        if pooled is not None:
            pooled.write(self._block, key_states, value_states)
            keys, values = zip(*pooled.read(self._block, self._window), strict=True)
            return _Ragged(keys, self._window, self._current), _Ragged(values, self._window, self._current)
        cuts, axis = self._current.sizes, 2 if self._is_ragged else 0
        rows = zip(self.members, key_states.split(cuts, axis), value_states.split(cuts, axis), strict=True)
        each = [member.update(keys, values, *args, **kwargs) for member, keys, values in rows]
        keys, values = [keys for keys, _ in each], [values for _, values in each]
        if not self._is_ragged:
            return _padded(keys), _padded(values)
        return _Ragged(keys, self._window, self._current), _Ragged(values, self._window, self._current)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The longest sequence's, counted from the left edge of the padding."""
        visible = max(member.get_mask_sizes(query_length)[0] for member in self.members)
        return visible, self._clock.position + query_length - visible

    def get_seq_length(self) -> int:
        return self._clock.position

    def get_max_length(self) -> int:
        return -1


class JoinedCache:
    """A cache over several. One object serves every batch of its kind and blocks, one at a time."""

    def __init__(self, config: PreTrainedConfig, start: int, end: int, is_ragged: bool) -> None:
        self.is_ragged = is_ragged
        self.layers: Cache = DynamicCache(config=config)
        """What the decoder is called with."""
        self._clock = Clock()
        self._current = _Pass()
        self._own: list[Any] = [
            _JoinedLayer(layer, block, self._clock, self._current, self.is_ragged)
            for block, layer in enumerate(self.layers.layers[start:end])
        ]
        self.layers.layers = [
            self._own[index - start] if start <= index < end else placeholder(layer, self._clock)
            for index, layer in enumerate(self.layers.layers)
        ]

    @contextmanager
    def over(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Stands for the caches of `chunks` inside of the `with` block."""
        self._clock.position = max(chunk.cache.position for chunk in chunks)
        self._current.sizes = [chunk.tokens if self.is_ragged else chunk.cache.batch for chunk in chunks]
        members = zip(*(chunk.cache.own for chunk in chunks), strict=True)
        for layer, of_block in zip(self._own, members, strict=True):
            layer.members = list(of_block)
        self._current.pooled = self._pooled(chunks)
        try:
            yield
        finally:
            self._current.masks.clear()
            self._current.pooled = None
            for layer in self._own:
                layer.members = []

    def _pooled(self, chunks: Sequence[Chunk]) -> PooledChunks | None:
        caches = [chunk.cache for chunk in chunks if isinstance(chunk.cache, PooledCache)]
        if not self.is_ragged or len(chunks) == 1 or len(caches) < len(chunks):
            return None
        return PooledChunks.of(caches, self._current.sizes)

    def join(self, chunks: Sequence[Chunk]) -> Tensor:
        """The hidden states of all chunks, as the decoder takes them."""
        return torch.cat([chunk.hidden for chunk in chunks], dim=1 if self.is_ragged else 0)

    def part(self, output: Tensor) -> list[Tensor]:
        """What left the span, chunk by chunk, as it entered."""
        return list(output.split(self._current.sizes, 1 if self.is_ragged else 0))

    def positions(self, chunks: Sequence[Chunk]) -> Tensor:
        """Of every token, in the shape that `join` gives."""
        each = [
            list(range(chunk.cache.position, chunk.cache.position + chunk.tokens))
            for chunk in chunks
            for _ in range(chunk.cache.batch)
        ]
        return torch.tensor([[at for own in each for at in own]] if self.is_ragged else each)


def padding(chunks: Sequence[Chunk]) -> Tensor:
    """The attention mask of padded sequences, their next token included: [sequences, longest]."""
    lengths = [chunk.cache.position + chunk.tokens for chunk in chunks]
    longest = max(lengths)
    return torch.tensor([[0] * (longest - length) + [1] * length for length in lengths])


class RaggedAttention:
    """Turns a decoder's attention ragged for a while."""

    def __init__(self, decoder: nn.Module) -> None:
        configs: dict[int, Any] = {
            id(module.config): module.config for module in decoder.modules() if hasattr(module, "config")
        }
        self._configs = list(configs.values())
        for name in RAGGED_OVER:
            AttentionInterface.register(RAGGED + name, _ragged_attention)

    @contextmanager
    def on(self) -> Iterator[None]:
        before = [config._attn_implementation for config in self._configs]
        for config, name in zip(self._configs, before, strict=True):
            config._attn_implementation = RAGGED + name
        try:
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation = name


def _ragged_attention(
    module: nn.Module,
    query: Tensor,
    key: _Ragged,
    value: _Ragged,
    attention_mask: None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention of every chunk to its own sequence: [1, tokens of all, heads, head_dim].

    `query`: [1, heads, tokens of all, head_dim]. There is no mask: the library makes none for a function
    that it does not know, and what a token may see follows from its sequence.
    """
    current = key.current
    if current.pooled is not None:
        return _pooled_attention(module, query, key, value, current.pooled, arguments), None
    outputs: list[Tensor] = []
    for chunk, keys, values in zip(query.split(current.sizes, 2), key.each, value.each, strict=True):
        mask = None if chunk.shape[2] == 1 else _mask(chunk, keys, key)
        outputs.append(_attention(module, chunk, keys, values, mask, arguments))
    return torch.cat(outputs, dim=1), None


def _pooled_attention(
    module: nn.Module,
    query: Tensor,
    key: _Ragged,
    value: _Ragged,
    pooled: PooledChunks,
    arguments: dict[str, Any],
) -> Tensor:
    outputs: list[Tensor] = []
    for batch, keys, values in zip(pooled.batches, key.each, value.each, strict=True):
        mask = batch.visible(pooled.pool, key.window).mask
        outputs.append(_attention(module, batch.padded(query), keys, values, mask, arguments))
    return pooled.in_order(outputs)


def _attention(
    module: nn.Module,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    arguments: dict[str, Any],
) -> Tensor:
    """Of [sequences, heads, tokens, head_dim] each: [sequences, tokens, heads, head_dim]."""
    name, attend = _original(module)
    if mask is not None and name == "sdpa" and arguments.get("position_bias") is None:
        return _grouped_attention(query, keys, values, mask, arguments.get("scaling"))
    if mask is not None and name == "eager":
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    return attend(module, query, keys, values, mask, **arguments)[0]


def _grouped_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float | None
) -> Tensor:
    """Attention with a mask, as `_attention`.

    Heads that share keys attend as further tokens. The library would copy all keys for each of them, which
    for a few tokens at the end of a long prompt is most of the work.
    """
    sequences, heads, tokens, width = query.shape
    groups = heads // keys.shape[1]
    grouped = query.reshape(sequences, keys.shape[1], groups * tokens, width)
    output = nn.functional.scaled_dot_product_attention(
        grouped, keys, values, attn_mask=mask.repeat(1, 1, groups, 1), scale=scaling
    )
    return output.reshape(sequences, heads, tokens, -1).transpose(1, 2)


def _mask(chunk: Tensor, keys: Tensor, ragged: _Ragged) -> Tensor:
    """Which keys a chunk's tokens attend to, [1, 1, tokens, keys]: those up to itself, in its window."""
    tokens, held = chunk.shape[2], keys.shape[2]
    masks = ragged.current.masks
    found = masks.get((tokens, held, ragged.window))
    if found is None:
        own = torch.arange(held - tokens, held, device=chunk.device).unsqueeze(1)
        others = torch.arange(held, device=chunk.device)
        found = others <= own
        if ragged.window is not None:
            found &= others > own - ragged.window
        masks[tokens, held, ragged.window] = found = found[None, None]
    return found


def _original(module: Any) -> tuple[str, Callable[..., Any]]:
    """The attention function that `module` uses when it is not ragged, and its name."""
    name = module.config._attn_implementation.removeprefix(RAGGED)
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return name, AttentionInterface().get_interface(name, eager)


def _padded(each: Sequence[Tensor]) -> Tensor:
    """[sequences, heads, tokens, head_dim] each, as one of the longest, filled up at the left."""
    longest = max(one.shape[-2] for one in each)
    if all(one.shape[-2] == longest for one in each):
        return torch.cat(list(each))
    _, heads, _, width = each[0].shape
    joined = each[0].new_zeros((sum(len(one) for one in each), heads, longest, width))
    for rows, one in zip(joined.split([len(one) for one in each]), each, strict=True):
        rows[:, :, longest - one.shape[-2] :] = one
    return joined
