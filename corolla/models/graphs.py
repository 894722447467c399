"""Decode steps of several sequences as one CUDA graph.

On a GPU one token keeps the device busy for less time than Python needs to launch its hundreds of kernels.
A graph is launched at once. It computes with fixed shapes on fixed memory: one is captured for each number
of sequences and of tokens held, both rounded up, when it is first needed; the sequences' keys and values
are in a pool (corolla/models/pool.py). All that changes from step to step is a few numbers a sequence.

Inside, the sequences are a batch that is padded at the left, as the library pads it: what each may see
follows from the mask, in the library's own code. A decoder that cannot be captured is called without a
graph, which is said once and counted.

Owner: the thread that runs the model. Knows nothing of sessions or queues.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from corolla.models.cache import Clock, placeholder
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


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph and the memory that it reads and writes.

    The graph copies its input from the host's memory by itself, so that a step is one launch. Whoever fills
    that memory again has waited for the step before.
    """

    graph: torch.cuda.CUDAGraph
    hidden: Tensor
    """Pinned, [sequences, 1, hidden_size]."""
    numbers: Tensor
    """Pinned, [2, sequences]."""
    output: Tensor
    """Pinned, as `hidden`."""


class GraphedDecoder:
    """Decodes one token of each of several sequences of one pool."""

    def __init__(self, decode: Decode, pool: KVPool, config: PreTrainedConfig, start: int, end: int) -> None:
        self.pool = pool
        self.eager_because: str | None = None
        """Why steps run without a graph, where they do."""
        self.eager_steps = 0
        self._decode = decode
        self._step = _Step()
        self._clock = Clock()
        self._cache: Cache = DynamicCache(config=config)
        layers: list[Any] = [
            _StepLayer(pool, self._step, self._clock, index - start, layer)
            if start <= index < end
            else placeholder(layer, self._clock)
            for index, layer in enumerate(self._cache.layers)
        ]
        self._cache.layers = layers
        self._captured: dict[tuple[int, int], _Captured] = {}
        self._memory: Any = None
        """The graphs' shared memory for what is between the blocks: they never run at once."""

    def step(self, hidden: Tensor, caches: Sequence[PooledCache]) -> Tensor:
        """[sequences, 1, hidden_size] in and out, on the host or the device. Does not advance the caches.

        Each has room for the token. What comes out is good until the next step, and on the host where there
        are graphs.
        """
        count, lengths = len(caches), [cache.position + 1 for cache in caches]
        rows = [cache.row for cache in caches]
        size, tokens = bucket(count, 1), bucket(max(lengths), LEAST_TOKENS)
        padding = size - count
        numbers = torch.tensor([rows + [0] * padding, lengths + [1] * padding])
        captured = self._graph_for(hidden, size, tokens)
        if captured is None:
            self.eager_steps += 1
            return self._compute(hidden.to(self.pool.device), numbers[:, :count].to(self.pool.device), tokens)
        captured.hidden[:count] = hidden
        captured.numbers.copy_(numbers)
        captured.graph.replay()
        torch.cuda.current_stream().synchronize()
        return captured.output[:count]

    def _graph_for(self, like: Tensor, size: int, tokens: int) -> _Captured | None:
        """The graph for `size` sequences of up to `tokens` tokens; None where there are none."""
        if self.eager_because is not None or self.pool.device.type != "cuda":
            return None
        captured = self._captured.get((size, tokens))
        if captured is None:
            try:
                captured = self._captured[size, tokens] = self._capture(like, size, tokens)
            except Exception as error:  # noqa: BLE001 - whatever the library does that cannot be captured
                self.eager_because = f"{type(error).__name__}: {error}"
                _logger.warning("Steps run without CUDA graphs: %s", self.eager_because)
                torch.cuda.synchronize()
        return captured

    def _capture(self, like: Tensor, size: int, tokens: int) -> _Captured:
        shape = (size, *like.shape[1:])
        hidden = torch.zeros(shape, dtype=like.dtype, pin_memory=True)
        output = torch.empty(shape, dtype=like.dtype, pin_memory=True)
        numbers = torch.tensor([[0] * size, [1] * size]).pin_memory()

        def run() -> None:
            device = self.pool.device
            entering = hidden.to(device, non_blocking=True), numbers.to(device, non_blocking=True)
            output.copy_(self._compute(*entering, tokens), non_blocking=True)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # what libraries set up at their first call must not be captured
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._memory):
            run()
        return _Captured(graph, hidden, numbers, output)

    def _compute(self, hidden: Tensor, numbers: Tensor, tokens: int) -> Tensor:
        """`numbers`: row of the table and length with the new token, [2, sequences]."""
        rows, lengths = numbers[0].unsqueeze(1), numbers[1].unsqueeze(1)
        columns = torch.arange(tokens, device=hidden.device) - tokens + lengths
        self._step.slots = self.pool.slots(rows, columns.clamp(min=0))
        self._clock.position = tokens - 1
        arguments = {"position_ids": lengths - 1, "attention_mask": (columns >= 0).long()}
        return self._decode(hidden, {**arguments, "cache": self._cache})


def bucket(count: int, least: int) -> int:
    """`count` rounded up to `least` times a power of two."""
    size = least
    while size < count:
        size *= 2
    return size
