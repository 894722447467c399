"""What the weights of a loaded model really are: counted from its tensors, never from the options."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class WeightReport:
    """Parameters of a loaded part, by the format that they are held in."""

    parameters: Mapping[str, int] = field(default_factory=dict)
    """How many parameters are in each format: a dtype's name (`float32`), `int8` or `nf4`."""
    nbytes: int = 0
    """Bytes of memory for all of them, quantization constants and buffers included."""

    @property
    def quantized_share(self) -> float:
        """Which part of the parameters is quantized, 0 to 1."""
        total = sum(self.parameters.values())
        quantized = sum(self.parameters.get(kind, 0) for kind in ("int8", "nf4", "fp4"))
        return quantized / total if total else 0.0


def weigh(model: nn.Module) -> WeightReport:
    """Counts every parameter of `model` once, in the format that it is really held in."""
    counts: Counter[str] = Counter()
    nbytes = sum(buffer.nbytes for buffer in model.buffers())
    for parameter in model.parameters():
        kind, count = _format_of(parameter)
        counts[kind] += count
        nbytes += parameter.nbytes + sum(tensor.nbytes for tensor in _constants_of(parameter))
    return WeightReport(dict(counts), nbytes)


def _format_of(parameter: Any) -> tuple[str, int]:
    """bitsandbytes keeps a 4-bit weight as packed bytes, and its true shape beside it."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return state.quant_type, prod(state.shape)
    return str(parameter.dtype).removeprefix("torch."), parameter.numel()


def _constants_of(parameter: Any) -> Iterator[Tensor]:
    """The scales that bitsandbytes keeps beside a quantized weight, each once.

    A weight answers for its state too, so the same tensor is found in two places.
    """
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    found: dict[int, Tensor] = {}
    for owner in (parameter, state, nested):
        for name in ("SCB", "absmax", "code", "offset"):
            tensor = getattr(owner, name, None)
            if isinstance(tensor, Tensor):
                found[id(tensor)] = tensor
    yield from found.values()
