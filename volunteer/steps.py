"""A step on its way through a span: what came in its frame, checked; what is still to be computed; what was.

Does not run anything. Knows neither queues nor budgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from corolla.models.batching import Chunk
from corolla.models.cache import SpanCache
from corolla.models.facts import ModelFacts
from corolla.models.loading import LoadOptions
from corolla.models.pool import PooledCache
from corolla.tensors import (
    from_wire,
    is_finite,
    require_finite,
    require_hidden,
    stack_from_wire,
    to_wire,
)
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
    """[batch, position + tokens], on the host as it travelled."""


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
    return _finite_input(_checked(work, facts), options)


def read_unproven(work: Work, facts: ModelFacts, options: LoadOptions) -> StepInput:
    """As `read_step`, but for whether it is finite: what is large is quicker to look at on the device."""
    return _input(_checked(work, facts), options)


def read_steps(
    batch: Sequence[Work], facts: ModelFacts, options: LoadOptions
) -> dict[Work, StepInput | Exception]:
    """What `read_step` gives for each, or raises. Single tokens of one sequence are read as one tensor."""
    wires: dict[Work, _Wires] = {}
    found: dict[Work, StepInput | Exception] = {}
    for work in batch:
        try:
            wires[work] = _checked(work, facts)
        except Exception as error:  # noqa: BLE001 - what is wrong with one step concerns no other
            found[work] = error
    found |= _read_singles(wires, options)
    for work in [work for work in wires if work not in found]:
        try:
            found[work] = _finite_input(wires[work], options)
        except Exception as error:  # noqa: BLE001 - as above
            found[work] = error
    return found


def _read_singles(wires: "Mapping[Work, _Wires]", options: LoadOptions) -> dict[Work, StepInput]:
    """Single tokens of one sequence, if all of them are finite; else each is to be looked at by itself."""
    singles = [work for work, one in wires.items() if one.mask is None and one.hidden.shape[:2] == (1, 1)]
    if not singles:
        return {}
    joined = stack_from_wire([wires[work].hidden for work in singles])
    if not is_finite(joined):
        return {}
    rows = joined.to(options.dtype).split(1)
    return {work: StepInput(row, None) for work, row in zip(singles, rows, strict=True)}


class _Wires(NamedTuple):
    """A step's tensors as they travelled, of shapes that agree."""

    hidden: WireTensor
    mask: WireTensor | None


def _checked(work: Work, facts: ModelFacts) -> _Wires:
    wires = _split(decode_tensors(work.payload))
    require_hidden(wires.hidden, facts.hidden_size)
    batch, tokens, _ = wires.hidden.shape
    end, limit = work.position + tokens, facts.max_position
    if limit is not None and end > limit:
        raise PositionMismatch(f"the step ends at position {end}, but the model has {limit} positions")
    if wires.mask is not None:
        _require_mask(wires.mask, (batch, end))
    return wires


def _finite_input(wires: _Wires, options: LoadOptions) -> StepInput:
    require_finite(from_wire(wires.hidden))
    return _input(wires, options)


def _input(wires: _Wires, options: LoadOptions) -> StepInput:
    mask = None if wires.mask is None else from_wire(wires.mask)
    return StepInput(from_wire(wires.hidden, dtype=options.dtype), mask)


def _split(tensors: list[WireTensor]) -> _Wires:
    """Hidden states, and the attention mask if there is one."""
    by_role = {tensor.role: tensor for tensor in tensors}
    hidden = by_role.get(Role.HIDDEN)
    if hidden is None or len(by_role) != len(tensors):
        raise ShapeMismatch("a step has one tensor of hidden states, and at most one attention mask")
    return _Wires(hidden, by_role.get(Role.ATTENTION_MASK))


def _require_mask(wire: WireTensor, shape: tuple[int, int]) -> None:
    """Raises ShapeMismatch for what is not an attention mask of `shape`, [batch, position + tokens]."""
    if wire.dtype is not DType.INT8 or wire.shape != shape:
        raise ShapeMismatch(
            f"the attention mask is {wire.dtype.name} {list(wire.shape)}; INT8 {list(shape)} is due"
        )


def answer_of(output: Tensor, flags: Flags) -> bytes:
    """The payload that answers a step with this output, [batch, tokens, hidden_size] on the host."""
    return encode_tensors([to_wire(_wanted(output, flags))])


def _wanted(output: Tensor, flags: Flags) -> Tensor:
    """The part of the output that the flags ask for, [batch, 0, 1 or all tokens, hidden_size]."""
    if Flags.NO_OUTPUT in flags:
        return output[:, :0]
    return output[:, -1:] if Flags.LAST_ONLY in flags else output
