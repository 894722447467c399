"""A span: the blocks `[start, end)` of a model, run inside the model's own decoder.

Takes the hidden states that leave the block before and gives those that leave its last block. Knows nothing
of tokens, sessions, batching or the network. Owner: one thread at a time, since one seam carries the step.
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from corolla.models.batching import Chunk, JoinedCache, RaggedAttention, is_even, padding
from corolla.models.cache import SpanCache, cache_argument
from corolla.models.errors import ChunkRefused, SpanRefused
from corolla.models.families import Batching
from corolla.models.graphs import GraphedDecoder, Row, StartedRows
from corolla.models.loading import LoadOptions, load_part
from corolla.models.partial import Part, join_seam
from corolla.models.pool import PAGE_TOKENS, KVPool, PooledCache
from corolla.models.positions import positions_of
from corolla.models.shards import Progress
from corolla.models.source import ModelSource
from corolla.models.weights import WeightReport, weigh
from schema.errors import PositionMismatch, ShapeMismatch


class SpanModel:
    """Blocks `[start, end)` of one model on one device, in evaluation mode."""

    def __init__(self, model: PreTrainedModel, source: ModelSource, part: Part, options: LoadOptions) -> None:
        self.start = part.start
        self.end = part.end
        self.options = options
        self.family = source.family
        self._config = source.config
        self._hidden_size: int = source.config.hidden_size
        self._seam = part.seam
        self._decoder = join_seam(model, source.block_count, part)
        accepted = inspect.signature(self._decoder.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._cache_name = cache_argument(self._decoder)
        self._ragged = RaggedAttention(self._decoder)
        self._joined: dict[tuple[int, int, bool], JoinedCache] = {}
        """By the blocks of a batch, and whether it is ragged."""
        self._graphed: GraphedDecoder | None = None
        self._like = torch.empty(self._hidden_size, dtype=options.dtype, device="meta")
        """Of one token's hidden states."""
        self.weights: WeightReport = weigh(model)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        start: int,
        end: int,
        options: LoadOptions | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Reads the tensors of blocks `[start, end)` and nothing else.

        `progress(bytes_read, bytes_in_all)` is called from the threads that read. Raises `SpanRefused`,
        `FamilyRefused`, `CheckpointBroken` or `QuantizationUnavailable`.
        """
        options = options or LoadOptions()
        count = source.block_count
        if not 0 <= start < end <= count:
            raise SpanRefused(f"{source.name} has blocks 0 to {count}; [{start}, {end}) is no span of them.")
        part = Part(start, end, head=False, blocks_return_tuples=source.family.blocks_return_tuples)
        return cls(load_part(source, part, options, progress), source, part, options)

    @property
    def batching(self) -> Batching:
        """How single tokens of several sequences are computed at once here."""
        return self.family.batching if self._graphed is None else Batching.PADDED

    @property
    def slice_batching(self) -> Batching:
        """How several tokens of several sequences are."""
        return self.family.batching

    def use_pool(self, tokens: int, rows: int, longest: int) -> GraphedDecoder | None:
        """From now on caches of one sequence share a pool, and on a GPU their decode steps are CUDA graphs.

        `tokens`: of all sequences together, `rows`: sequences at most, `longest`: tokens of one at most.
        None for a family that cannot be computed so: there it stays as it was.
        """
        if self.family.batching is not Batching.ONE_BY_ONE and self.family.takes_views:
            pool = KVPool(self.end - self.start, tokens // PAGE_TOKENS, rows, longest, self.options.device)
            self._graphed = GraphedDecoder(
                self._decode_pooled, pool, self._config, range(self.start, self.end)
            )
        return self._graphed

    def use_no_pool(self) -> None:
        """New caches have memory of their own again."""
        self._graphed = None

    def new_cache(self, batch: int = 1, blocks: tuple[int, int] | None = None) -> SpanCache | PooledCache:
        """An empty KV cache for `batch` sequences, over the blocks `[start, end)` of this span, or all of it.

        Raises `SpanRefused` for blocks that are not in the span, and `KVCacheFull`.
        """
        start, end = self._within(blocks)
        if self._graphed is not None and batch == 1 and (start, end) == (self.start, self.end):
            return PooledCache(self._graphed.pool, self._config, start, end)
        return SpanCache(self._config, self.family, start, end, batch)

    def forward(
        self,
        hidden: Tensor,
        cache: SpanCache | PooledCache | None = None,
        attention_mask: Tensor | None = None,
        blocks: tuple[int, int] | None = None,
    ) -> Tensor:
        """Hidden states after the span, of the same shape as `hidden`: [batch, tokens, hidden_size].

        Runs the blocks of the cache; without one `blocks`, or the whole span. With a cache the tokens are
        appended at its position, without gradients. Without one they are whole sequences, and gradients
        flow to `hidden` if autograd is on.
        `attention_mask`, [batch, position + tokens], is 0 on padding; leave it out where there is none.
        After an error in the middle of a pass the cache is of no more use.

        Raises `ShapeMismatch`, `PositionMismatch`, `ChunkRefused` or `SpanRefused`.
        """
        start, end = self._within(blocks) if cache is None else (cache.start, cache.end)
        self._seam.first, self._seam.last = start, end - 1
        self._check(hidden, cache, attention_mask)
        if isinstance(cache, PooledCache) and hidden.shape[1] == 1 and attention_mask is None:
            return self._pooled_step(hidden, [cache])
        if cache is not None:
            cache.begin(hidden.shape[1])
        output = self._run(hidden, self._arguments(hidden, cache, attention_mask), gradients=cache is None)
        if cache is not None:
            cache.advance(hidden.shape[1])
        return output

    def forward_batch(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """The next tokens of several sequences at once: what leaves the span of each chunk, as it entered.

        With a pool the hidden states may also come on the host, and then leave there: a graph copies them.

        All caches are of the same blocks, and of one sequence each, or the chunks are even: equally long,
        and at one position. As `forward` of each, but for the last bits. After an error the caches are as
        they were.

        Raises `ShapeMismatch`, or `SpanRefused` for what cannot be batched.
        """
        self._check_batch(chunks)
        pooled = [chunk.cache for chunk in chunks if isinstance(chunk.cache, PooledCache)]
        if pooled and all(chunk.tokens == 1 for chunk in chunks):
            return list(self._pooled_step(torch.cat([chunk.hidden for chunk in chunks]), pooled).split(1))
        joined = self._joined_for(chunks)
        hidden = joined.join(chunks)
        try:
            for chunk in chunks:
                chunk.cache.begin(chunk.tokens)
            with joined.over(chunks), self._ragged.on() if joined.is_ragged else nullcontext():
                arguments = self._batch_arguments(hidden, joined, chunks)
                outputs = joined.part(self._run(hidden, arguments, gradients=False))
        except Exception:
            for chunk in chunks:
                chunk.cache.drop_unfinished()
            raise
        for chunk in chunks:
            chunk.cache.advance(chunk.tokens)
        return outputs

    def _joined_for(self, chunks: Sequence[Chunk]) -> JoinedCache:
        """The cache that stands for those of `chunks`, with the seam over its blocks."""
        start, end = chunks[0].cache.start, chunks[0].cache.end
        key = start, end, self._are_ragged(chunks)
        if key not in self._joined:
            self._joined[key] = JoinedCache(self._config, *key)
        self._seam.first, self._seam.last = start, end - 1
        return self._joined[key]

    def _are_ragged(self, chunks: Sequence[Chunk]) -> bool:
        return self.slice_batching is Batching.RAGGED and all(chunk.cache.batch == 1 for chunk in chunks)

    def _pooled_step(self, hidden: Tensor, caches: Sequence[PooledCache]) -> Tensor:
        """One token of each, [sequences, 1, hidden_size]."""
        if self._graphed is None:
            raise SpanRefused("These caches are of another span.")
        for cache in caches:
            cache.reserve(1)
        with torch.inference_mode():
            output = self._graphed.step(hidden, caches).to(hidden.device, copy=True)
        for cache in caches:
            cache.advance(1)
        return output

    def decode_rows(self, rows: Sequence[bytes | memoryview], caches: Sequence[PooledCache]) -> Sequence[Row]:
        """One token of each sequence, its hidden states as bytes in this span's dtype; what leaves the span.

        For as little beside the computation as there can be: all checks are the caller's. Each cache is in
        the pool, over the whole span, and has room for a token. Advances those whose rows are finite.

        Raises `SpanRefused` where there is no pool.
        """
        if self._graphed is None:
            raise SpanRefused("These caches are of another span.")
        with torch.inference_mode():
            found = self._graphed.step_rows(rows, caches, self._like)
        return _advanced(caches, found)

    @property
    def starts_rows(self) -> bool:
        """Whether `start_rows` is worth asking."""
        return self._graphed is not None and self._graphed.has_graphs

    def start_rows(
        self, rows: Sequence[bytes | memoryview], caches: Sequence[PooledCache]
    ) -> StartedRows | None:
        """As `decode_rows`, without waiting; caches are advanced when the rows are read.

        None where the device needs more than a launch for it: then nothing has happened. Between this and
        the end nothing else may be computed.
        """
        started = None if self._graphed is None else self._graphed.start_rows(rows, caches)
        if started is None:
            return None
        return started._replace(rows=lambda: _advanced(caches, started.rows()))

    def _decode_pooled(self, hidden: Tensor, given: dict[str, Any]) -> Tensor:
        """What `GraphedDecoder` runs."""
        self._seam.first, self._seam.last = self.start, self.end - 1
        arguments = {"inputs_embeds": hidden, "use_cache": True, self._cache_name: given["cache"]}
        arguments["attention_mask"] = given["attention_mask"]
        if self._takes_positions:
            arguments["position_ids"] = given["position_ids"]
        return self._run(hidden, arguments, gradients=False)

    def _batch_arguments(
        self, hidden: Tensor, joined: JoinedCache, chunks: Sequence[Chunk]
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "inputs_embeds": hidden,
            "use_cache": True,
            self._cache_name: joined.layers,
        }
        if self._takes_positions:
            arguments["position_ids"] = joined.positions(chunks).to(hidden.device)
        if not joined.is_ragged and chunks[0].tokens == 1:
            arguments["attention_mask"] = padding(chunks).to(hidden.device)
        return arguments

    def _arguments(
        self, hidden: Tensor, cache: SpanCache | PooledCache | None, attention_mask: Tensor | None
    ) -> dict[str, Any]:
        """What the decoder is called with. Positions are always told: not every decoder counts them right."""
        held, tokens = 0 if cache is None else cache.position, hidden.shape[1]
        arguments: dict[str, Any] = {"inputs_embeds": hidden, "use_cache": cache is not None}
        if cache is not None:
            arguments[self._cache_name] = cache.layers
        if self._takes_positions and attention_mask is None:
            arguments["position_ids"] = torch.arange(held, held + tokens, device=hidden.device).unsqueeze(0)
        elif self._takes_positions and attention_mask is not None:
            arguments["position_ids"] = positions_of(attention_mask)[:, -tokens:]
        if attention_mask is not None and not (held and self.family.masks_first_pass_only):
            arguments["attention_mask"] = attention_mask
        return arguments

    def _run(self, hidden: Tensor, arguments: dict[str, Any], gradients: bool) -> Tensor:
        seam = self._seam
        seam.entering = hidden
        try:
            with nullcontext() if gradients else torch.inference_mode():
                self._decoder(**arguments)
            output = seam.leaving
        finally:
            seam.entering = seam.leaving = None
        if output is None:
            raise SpanRefused("The decoder did not run its last block. List this family as refused.")
        return output

    def _within(self, blocks: tuple[int, int] | None) -> tuple[int, int]:
        start, end = blocks or (self.start, self.end)
        if not self.start <= start < end <= self.end:
            raise SpanRefused(f"Blocks [{start}, {end}) are not in the span [{self.start}, {self.end}).")
        return start, end

    def _check_batch(self, chunks: Sequence[Chunk]) -> None:
        batching, first = self.batching, chunks[0].cache
        if batching is Batching.ONE_BY_ONE:
            raise SpanRefused(f"Models of type {self.family.model_type} are computed one sequence at a time.")
        for hidden, cache in chunks:
            if (type(cache), cache.start, cache.end) != (type(first), first.start, first.end):
                raise SpanRefused("A batch takes caches of the same blocks.")
            self._check(hidden, cache, attention_mask=None)
        if self._are_ragged(chunks) or is_even(chunks):
            return
        if any(chunk.cache.batch > 1 or chunk.tokens > 1 for chunk in chunks):
            raise SpanRefused(
                f"Models of type {self.family.model_type} batch single tokens of one sequence each, or "
                "chunks that are equally long and at one position."
            )

    def _check(
        self, hidden: Tensor, cache: SpanCache | PooledCache | None, attention_mask: Tensor | None
    ) -> None:
        if hidden.dim() != 3 or hidden.shape[2] != self._hidden_size or hidden.shape[1] == 0:
            raise ShapeMismatch(
                f"Hidden states are [batch, tokens, {self._hidden_size}] here, not {[*hidden.shape]}."
            )
        if hidden.dtype != self.options.dtype:
            raise ShapeMismatch(f"Hidden states are {self.options.dtype} here, not {hidden.dtype}.")
        held = 0 if cache is None else cache.position
        if cache is not None and cache.batch != hidden.shape[0]:
            raise ShapeMismatch(f"This cache is for {cache.batch} sequences, not for {hidden.shape[0]}.")
        expected = (hidden.shape[0], held + hidden.shape[1])
        if attention_mask is not None and attention_mask.shape != expected:
            raise PositionMismatch(
                f"The attention mask is {[*attention_mask.shape]}, but with {held} tokens held "
                f"it must be {[*expected]}."
            )
        if held and hidden.shape[1] > 1 and not self.family.can_chunk_prefill:
            raise ChunkRefused(
                f"Models of type {self.family.model_type} take a whole prompt at once, then one token a step."
            )


def _advanced(caches: Sequence[PooledCache], rows: list[Row]) -> list[Row]:
    """The rows, their tokens counted as held where they are finite."""
    for row, cache in zip(rows, caches, strict=True):
        if row.is_finite:
            cache.advance(1)
    return rows
