"""Decode steps of several sequences as one CUDA graph.

On a GPU one token keeps the device busy for less time than Python needs to launch its hundreds of kernels.
A graph is launched at once. It computes with fixed shapes on fixed memory: one is recorded for each number
of sequences and of tokens held, both rounded up, when it is first needed; the sequences' keys and values
are in a pool (corolla/models/pool.py). All that changes from step to step is a few numbers a sequence.

Inside, the sequences are a batch that is padded at the left, as the library pads it: what each may see
follows from the mask, in the library's own code. A decoder that cannot be recorded is called without a
graph, which is said once.

Owner: the thread that runs the model. Knows nothing of sessions or queues.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from corolla.models.cache import Clock, placeholder
from corolla.models.capture import (
    IsDone,
    Recorder,
    Run,
    bucket,
    bytes_of,
    finish,
    host_tensor,
    nothing,
    row_norms,
)
from corolla.models.pool import KVPool, PooledCache

LEAST_TOKENS = 128
"""Of the shortest graph; longer ones have twice as many as the one before."""

_logger = logging.getLogger(__name__)
Decode = Callable[[Tensor, dict[str, Any]], Tensor]
"""Runs the blocks: what enters them, and what else the decoder is called with; what leaves them."""


class _Step:
    """Where the keys and values of the step that runs are. Owned by the decoder, read by its layers."""

    slots: Tensor
    """[sequences, tokens], the newest token last."""


class _StepLayer(CacheLayerMixin):
    """One block of all sequences of a step."""

    is_compileable = True

    def __init__(self, pool: KVPool, step: _Step, clock: Clock, block: int, layer: Any) -> None:
        super().__init__()
        self.is_sliding = layer.is_sliding
        self.is_initialized = True
        self._window: int | None = getattr(layer, "sliding_window", None)
        self._pool = pool
        self._step = step
        self._clock = clock
        self._block = block

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The pool does that."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores [sequences, heads, 1, head_dim]; what the tokens may attend to, the padding with it."""
        slots = self._step.slots
        self._pool.write(self._block, slots[:, -1], key_states[:, :, 0], value_states[:, :, 0])
        visible, _ = self.get_mask_sizes(1)
        return self._pool.read(self._block, slots[:, -visible:])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        tokens = self._clock.position + query_length
        seen = tokens if self._window is None else min(tokens, self._window)
        return seen, tokens - seen

    def get_seq_length(self) -> int:
        return self._clock.position

    def get_max_length(self) -> int:
        return -1


class Row(NamedTuple):
    """What left the span of one sequence's token."""

    hidden: memoryview
    """[hidden_size] in the decoder's dtype. Good until the next step."""
    entered: float
    """The norm of what entered. Infinite or NaN where that was not finite: then the rest says nothing."""
    left: float
    """The norm of what left."""

    @property
    def came_finite(self) -> bool:
        return isfinite(self.entered)

    @property
    def is_finite(self) -> bool:
        """Whether it came and went so."""
        return isfinite(self.entered) and isfinite(self.left)


class StartedRows(NamedTuple):
    """A step that the device computes while its caller does something else."""

    is_done: IsDone
    rows: Callable[[], list[Row]]
    """What left the span, once it is done."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a step reads and writes on the host, and how it is run.

    Where it is a graph it copies from and to this memory by itself, so that a step is one launch. Whoever
    fills the memory again has waited for the step before.
    """

    hidden: Tensor
    """[sequences, 1, hidden_size]."""
    numbers: Tensor
    """Row of the table, and length with the new token, [2, sequences]."""
    output: Tensor
    """As `hidden`."""
    norms: Tensor
    """Of what entered and what left, fp32 [2, sequences]."""
    run: Run
    """Computes, and waits for it."""
    start: Callable[[], IsDone] | None
    """Computes, and does not wait; None where that cannot be."""
    size: int
    """Sequences."""
    row_bytes: int
    """Of a sequence's token. What follows is the memory of the tensors, which are slow to ask."""
    addresses: memoryview
    """The integers of `numbers`, one behind the other."""
    entering: memoryview
    """The bytes of `hidden`."""
    leaving: memoryview
    """The bytes of `output`."""
    norm_values: "memoryview[float]"
    """The floats of `norms`, one behind the other."""

    @classmethod
    def of(cls, like: Tensor, size: int, device: torch.device) -> Self:
        """For `size` sequences whose hidden states are like `like`, [hidden_size]; `run` is still to come."""
        hidden, output = (
            host_tensor(size, 1, *like.shape, dtype=like.dtype, device=device) for _ in range(2)
        )
        numbers = host_tensor(2, size, dtype=torch.int64, device=device)
        numbers[1] = 1  # who has nothing to attend to gives NaN
        norms = host_tensor(2, size, dtype=torch.float32, device=device)
        return cls(
            hidden=hidden,
            numbers=numbers,
            output=output,
            norms=norms,
            run=nothing,
            start=None,
            size=size,
            row_bytes=hidden.nbytes // size,
            addresses=bytes_of(numbers).cast("q"),
            entering=bytes_of(hidden),
            leaving=bytes_of(output),
            norm_values=bytes_of(norms).cast("f"),
        )

    def address(self, caches: Sequence[PooledCache]) -> None:
        """Whose step it is. What there is room for besides computes with nobody's page."""
        addresses, size = self.addresses, self.size
        for index, cache in enumerate(caches):
            addresses[index], addresses[size + index] = cache.row, cache.position + 1
        for index in range(len(caches), size):
            addresses[index], addresses[size + index] = 0, 1

    def write(self, rows: Sequence[bytes | memoryview]) -> None:
        size = self.row_bytes
        for index, row in enumerate(rows):
            self.entering[index * size : (index + 1) * size] = row

    def read(self, count: int) -> list[Row]:
        size, norms = self.row_bytes, self.norm_values
        return [
            Row(self.leaving[index * size : (index + 1) * size], norms[index], norms[self.size + index])
            for index in range(count)
        ]


class GraphedDecoder:
    """Decodes one token of each of several sequences of one pool."""

    def __init__(self, decode: Decode, pool: KVPool, config: PreTrainedConfig, blocks: range) -> None:
        self.pool = pool
        self.eager_because: str | None = None
        """Why steps run without a graph, where they do."""
        self._decode = decode
        self._step = _Step()
        self._clock = Clock()
        self._cache: Cache = DynamicCache(config=config)
        layers: list[Any] = [
            _StepLayer(pool, self._step, self._clock, index - blocks.start, layer)
            if index in blocks
            else placeholder(layer, self._clock)
            for index, layer in enumerate(self._cache.layers)
        ]
        self._cache.layers = layers
        self._memories: dict[tuple[int, int], _Memory] = {}
        self._recorder = Recorder(pool.device)
        self._is_on_gpu = pool.device.type == "cuda"

    def step(self, hidden: Tensor, caches: Sequence[PooledCache]) -> Tensor:
        """[sequences, 1, hidden_size] in, on the host or the device, and out, on the host.

        Each cache has room for the token, and is not advanced. What comes out is good until the next step.
        """
        memory = self._memory_for(caches, hidden[0, 0])
        memory.hidden[: len(caches)] = hidden
        memory.run()
        return memory.output[: len(caches)]

    def step_rows(
        self, rows: Sequence[bytes | memoryview], caches: Sequence[PooledCache], like: Tensor
    ) -> list[Row]:
        """As `step`, with the bytes of each token's hidden states. Those are like `like`, [hidden_size]."""
        memory = self._memory_for(caches, like)
        memory.write(rows)
        memory.run()
        return memory.read(len(caches))

    def start_rows(
        self, rows: Sequence[bytes | memoryview], caches: Sequence[PooledCache]
    ) -> StartedRows | None:
        """As `step_rows`, without waiting for it; None where there is no graph for it yet."""
        memory = self._memories.get(self._key_of(caches))
        if memory is None or memory.start is None:
            return None
        memory.address(caches)
        memory.write(rows)
        return StartedRows(memory.start(), partial(memory.read, len(caches)))

    @property
    def has_graphs(self) -> bool:
        return self._is_on_gpu and self.eager_because is None

    def _key_of(self, caches: Sequence[PooledCache]) -> tuple[int, int]:
        size = bucket(len(caches), 1) if self.has_graphs else len(caches)
        return size, bucket(max(cache.position for cache in caches) + 1, LEAST_TOKENS)

    def _memory_for(self, caches: Sequence[PooledCache], like: Tensor) -> _Memory:
        size, tokens = self._key_of(caches)
        memory = self._memories.get((size, tokens))
        if memory is None:
            memory = self._recorded(like, size, tokens) if self.has_graphs else None
            memory = memory or self._without_graph(like, len(caches), tokens)
            self._memories[memory.size, tokens] = memory
        memory.address(caches)
        return memory

    def _without_graph(self, like: Tensor, size: int, tokens: int) -> _Memory:
        memory = _Memory.of(like, size, self.pool.device)

        def run() -> None:
            self._run_on_device(memory, tokens)
            finish(self.pool.device)

        return replace(memory, run=run)

    def _recorded(self, like: Tensor, size: int, tokens: int) -> _Memory | None:
        """The graph for `size` sequences of up to `tokens` tokens; None where it cannot be recorded."""
        memory = _Memory.of(like, size, self.pool.device)
        try:
            recorded = self._recorder.record(partial(self._run_on_device, memory, tokens))
            return replace(memory, run=recorded, start=recorded.start)
        except Exception as error:  # noqa: BLE001 - whatever the library does that cannot be recorded
            self.eager_because = f"{type(error).__name__}: {error}"
            self._memories.clear()
            _logger.warning("Steps run without CUDA graphs: %s", self.eager_because)
            torch.cuda.synchronize(self.pool.device)
            return None

    def _run_on_device(self, memory: _Memory, tokens: int) -> None:
        device = self.pool.device
        hidden = memory.hidden.to(device, non_blocking=True)
        leaving = self._compute(hidden, memory.numbers.to(device, non_blocking=True), tokens)
        memory.norms.copy_(torch.stack([row_norms(hidden), row_norms(leaving)]), non_blocking=True)
        memory.output.copy_(leaving, non_blocking=True)

    def _compute(self, hidden: Tensor, numbers: Tensor, tokens: int) -> Tensor:
        """`numbers`: row of the table and length with the new token, [2, sequences]."""
        rows, lengths = numbers[0].unsqueeze(1), numbers[1].unsqueeze(1)
        columns = torch.arange(tokens, device=hidden.device) - tokens + lengths
        self._step.slots = self.pool.slots(rows, columns.clamp(min=0))
        self._clock.position = tokens - 1
        arguments = {"position_ids": lengths - 1, "attention_mask": (columns >= 0).long()}
        return self._decode(hidden, {**arguments, "cache": self._cache})
