"""A step on its way through a span: what came in its frame, checked; what is still to be computed; what was.

Does not run anything. Knows neither queues nor budgets.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from corolla.models.batching import Chunk
from corolla.models.cache import SpanCache
from corolla.models.facts import ModelFacts
from corolla.models.loading import LoadOptions
from corolla.models.pool import PooledCache
from corolla.tensors import from_wire, require_finite, require_hidden, to_wire
from schema.errors import PositionMismatch, ShapeMismatch
from schema.frames import Flags
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors
from volunteer.work import Work

Cache = SpanCache | PooledCache


class StepInput(NamedTuple):
    """A step's tensors: all of its own shapes agree, and it is finite."""

    hidden: Tensor
    """[batch, tokens, hidden_size], on the host in the model's dtype."""
    mask: Tensor | None
    """[batch, position + tokens], on the device."""


@dataclass(slots=True)
class Step:
    """A step that is ready to run: its memory is booked, and its cache ends where it begins."""

    work: Work
    cache: Cache
    rest: Tensor
    """Hidden states that are still to be computed, [batch, tokens, hidden_size]."""
    mask: Tensor | None
    outputs: list[Tensor] = field(default_factory=list[Tensor])
    """Of the parts that were computed, what is wanted of them, on the host."""

    @property
    def tokens(self) -> int:
        """How many are still to be computed."""
        return self.rest.shape[1]

    def take(self, tokens: int) -> Chunk:
        """The next part, of `tokens` tokens at most."""
        part, self.rest = self.rest[:, :tokens], self.rest[:, tokens:]
        return Chunk(part, self.cache)

    def keep(self, output: Tensor) -> None:
        """Takes what is wanted of a part's output, [batch, tokens, hidden_size]."""
        self.outputs.append(_wanted(output, self.work.flags).cpu())

    def answer(self) -> bytes:
        """The payload that answers the step, when all of it was computed."""
        is_last_only = Flags.LAST_ONLY in self.work.flags
        wanted = self.outputs[-1] if is_last_only else torch.cat(self.outputs, dim=1)
        return encode_tensors([to_wire(wanted)])


def read_step(work: Work, facts: ModelFacts, options: LoadOptions) -> StepInput:
    """The step's tensors, after every check that does not need the KV cache.

    Raises MalformedTensor, ShapeMismatch, PositionMismatch or NotFinite.
    """
    hidden_wire, mask_wire = _split(decode_tensors(work.payload))
    require_hidden(hidden_wire, facts.hidden_size)
    batch, tokens, _ = hidden_wire.shape
    end, limit = work.position + tokens, facts.max_position
    if limit is not None and end > limit:
        raise PositionMismatch(f"the step ends at position {end}, but the model has {limit} positions")
    if mask_wire is not None:
        _require_mask(mask_wire, (batch, end))
    hidden = from_wire(hidden_wire)
    require_finite(hidden)
    return StepInput(
        hidden.to(options.dtype),
        None if mask_wire is None else from_wire(mask_wire, options.device, torch.int64),
    )


def _split(tensors: list[WireTensor]) -> tuple[WireTensor, WireTensor | None]:
    """Hidden states, and the attention mask if there is one."""
    by_role = {tensor.role: tensor for tensor in tensors}
    hidden = by_role.get(Role.HIDDEN)
    if hidden is None or len(by_role) != len(tensors):
        raise ShapeMismatch("a step has one tensor of hidden states, and at most one attention mask")
    return hidden, by_role.get(Role.ATTENTION_MASK)


def _require_mask(wire: WireTensor, shape: tuple[int, int]) -> None:
    """Raises ShapeMismatch for what is not an attention mask of `shape`, [batch, position + tokens]."""
    if wire.dtype is not DType.INT8 or wire.shape != shape:
        raise ShapeMismatch(
            f"the attention mask is {wire.dtype.name} {list(wire.shape)}; INT8 {list(shape)} is due"
        )


def _wanted(output: Tensor, flags: Flags) -> Tensor:
    """The part of the output that the flags ask for, [batch, 0, 1 or all tokens, hidden_size]."""
    if Flags.NO_OUTPUT in flags:
        return output[:, :0]
    return output[:, -1:] if Flags.LAST_ONLY in flags else output
