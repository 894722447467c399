"""Decode steps of a head as CUDA graphs: hidden states become logits, and tokens hidden states.

As with blocks (graphs.py), Python needs longer to launch a head's kernels than a GPU to run them. The
likeliest tokens are found, and embedded, in the same graph as the logits: for greedy replies a step is one
launch. For those that draw, the embedding of what they drew is a second one.

A head that cannot be recorded has none of this: that is said once, and `HeadModel` is to be called instead.
Owner: the thread that runs the model. Knows nothing of sampling.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from corolla.models.capture import Recorder, Run, bucket, bytes_of, host_tensor, nothing, row_norms
from corolla.models.head import HeadModel

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a head makes of the hidden states of several sequences. Good until its next step."""

    logits: Tensor
    """[sequences, vocabulary], on the device in the model's dtype."""
    norms: list[float]
    """Of the hidden states; infinite or NaN where those were not finite."""
    likeliest: list[int]
    """The token of the greatest logit; -1 where that is not finite."""
    embedded: list[memoryview]
    """Of the likeliest, the bytes of [hidden_size] in the model's dtype."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the graphs for so many sequences read and write on the host, and how they are run."""

    hidden: Tensor
    """[sequences, 1, hidden_size]."""
    positions: Tensor
    """Of the tokens that are to be found, [sequences]."""
    norms: Tensor
    tokens: Tensor
    """The likeliest, or those to embed, [sequences]."""
    embedded: Tensor
    """As `hidden`."""
    logits: Tensor
    """On the device, [sequences, vocabulary]."""
    score: Run
    embed: Run

    @classmethod
    def of(cls, model: HeadModel, size: int) -> Self:
        """What runs it is still to come."""
        device, dtype = torch.device(model.options.device), model.options.dtype
        logits = model.logits(torch.zeros(size, 1, model.hidden_size, dtype=dtype, device=device))[:, -1]
        hidden, embedded = (
            host_tensor(size, 1, model.hidden_size, dtype=dtype, device=device) for _ in range(2)
        )
        positions, tokens = (host_tensor(size, dtype=torch.int64, device=device) for _ in range(2))
        return cls(
            hidden=hidden,
            positions=positions,
            norms=host_tensor(size, dtype=torch.float32, device=device),
            tokens=tokens,
            embedded=embedded,
            logits=torch.zeros_like(logits),
            score=nothing,
            embed=nothing,
        )

    def rows(self, count: int) -> list[memoryview]:
        """Of `embedded`."""
        source = bytes_of(self.embedded)
        size = len(source) // len(self.embedded)
        return [source[index * size : (index + 1) * size] for index in range(count)]


class GraphedHead:
    """The decode steps of one head."""

    def __init__(self, model: HeadModel, record: Callable[[Run], Run] | None = None) -> None:
        """`record`: what makes a graph of work, for a device that has none; None: CUDA's."""
        self._model = model
        self._device = torch.device(model.options.device)
        self._record = record or Recorder(self._device).record
        self._memories: dict[int, _Memory] = {}
        self.eager_because: str | None = None
        """Why there are no graphs, where there are none."""

    @torch.inference_mode()
    def score(self, rows: Sequence[bytes | memoryview], positions: Sequence[int]) -> Scored | None:
        """The bytes of each sequence's hidden states, and the position of its next token.

        None: the head cannot be recorded.
        """
        memory = self._memory_for(len(rows))
        if memory is None:
            return None
        target, count = bytes_of(memory.hidden), len(rows)
        for index, row in enumerate(rows):
            target[index * len(row) : (index + 1) * len(row)] = row
        memory.hidden[count:] = 0
        memory.positions.numpy()[:count] = positions
        memory.score()
        return Scored(
            logits=memory.logits[:count],
            norms=memory.norms[:count].tolist(),
            likeliest=memory.tokens[:count].tolist(),
            embedded=memory.rows(count),
        )

    @torch.inference_mode()
    def embed(self, tokens: Sequence[int], positions: Sequence[int]) -> list[memoryview]:
        """As `Scored.embedded`, of these tokens at these positions. After a `score` of as many sequences."""
        memory = self._memories[bucket(len(tokens), 1)]
        memory.tokens.zero_()  # -1 of an earlier step is no token, and nothing else is asked for behind these
        memory.tokens.numpy()[: len(tokens)] = tokens
        memory.positions.numpy()[: len(tokens)] = positions
        memory.embed()
        return memory.rows(len(tokens))

    def is_recorded(self, count: int) -> bool:
        """Whether a step of so many sequences is but launches."""
        return bucket(count, 1) in self._memories

    def _memory_for(self, count: int) -> _Memory | None:
        """None where graphs cannot be recorded."""
        size = bucket(count, 1)
        if self.eager_because is None and size not in self._memories:
            try:
                self._memories[size] = self._recorded(size)
            except Exception as error:  # noqa: BLE001 - whatever the library does that cannot be recorded
                self.eager_because = f"{type(error).__name__}: {error}"
                self._memories.clear()
                _logger.warning("The head runs without CUDA graphs: %s", self.eager_because)
                torch.cuda.synchronize(self._device)
        return self._memories.get(size)

    def _recorded(self, size: int) -> _Memory:
        memory = _Memory.of(self._model, size)
        return replace(
            memory,
            score=self._record(partial(self._score, memory)),
            embed=self._record(partial(self._embed, memory)),
        )

    def _score(self, memory: _Memory) -> None:
        hidden = memory.hidden.to(memory.logits.device, non_blocking=True)
        logits = self._model.logits(hidden)[:, -1]
        values, indices = logits.max(dim=-1)
        likeliest = torch.where(torch.isfinite(values), indices, -1)
        memory.logits.copy_(logits)
        memory.norms.copy_(row_norms(hidden), non_blocking=True)
        memory.tokens.copy_(likeliest, non_blocking=True)
        self._embed_into(memory, likeliest.clamp(min=0))

    def _embed(self, memory: _Memory) -> None:
        self._embed_into(memory, memory.tokens.to(memory.logits.device, non_blocking=True))

    def _embed_into(self, memory: _Memory, tokens: Tensor) -> None:
        positions = memory.positions.to(tokens.device, non_blocking=True)
        memory.embedded.copy_(self._model.embed_each(tokens, positions), non_blocking=True)
