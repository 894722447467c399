"""Linear layers on the CPU through oneDNN, where that is measured to be faster than torch's own choice.

torch multiplies fp32 matrices with MKL. On processors that MKL is not made for it reads weights at half the
speed of oneDNN, which torch has on board for its compiler (docs/decisions.md has figures). Which is faster
depends on processor and shape, so each shape is measured here, on the weights that were loaded.

oneDNN sums in another order: results differ from MKL's in their last bits. Whoever needs the bits of the
library's whole model does not call this. Gradients always take torch's own way.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

FEW_ROWS = 16
"""Below this many rows it is decoding, from there on prefill: they are measured apart."""
PREFILL_ROWS = 128
MEASURED_LAYERS = 8
"""Layers of one shape that are measured, one after the other: more of them than a cache holds."""
ROUNDS = 5
WORTH_IT = 0.95
"""oneDNN is taken when it needs less than this share of torch's own time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """For which numbers of rows oneDNN is used."""

    decode: bool
    prefill: bool


class OneDnnLinear(nn.Linear):
    """A linear layer that computes with oneDNN where its choice says so. Shares the weights of another."""

    choice: Choice

    @classmethod
    def sharing(cls, layer: nn.Linear, choice: Choice) -> Self:
        made = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        made.choice = choice
        return made.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`: [..., in_features] to [..., out_features]."""
        rows = input.numel() // self.in_features
        chosen = self.choice.decode if rows < FEW_ROWS else self.choice.prefill
        if chosen and torch.is_inference_mode_enabled():
            return _onednn(input, self)
        return super().forward(input)


def choose_kernels(model: nn.Module) -> dict[tuple[int, int], Choice]:
    """Puts `OneDnnLinear` in place of the fp32 CPU layers that it makes faster; what was found, by shape.

    Takes milliseconds a shape. Does nothing where torch has no oneDNN.
    """
    if not is_available():
        return {}
    layers: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        if type(module) is nn.Linear and _is_plain(module.weight):
            layers[module.out_features, module.in_features].append(name)
    choices: dict[tuple[int, int], Choice] = {}
    for shape, names in layers.items():
        choice = _measured([_linear(model, name) for name in names[:MEASURED_LAYERS]])
        choices[shape] = choice
        if choice.decode or choice.prefill:
            for name in names:
                model.set_submodule(name, OneDnnLinear.sharing(_linear(model, name), choice))
    return choices


def is_available() -> bool:
    """Whether this build of torch has the operation."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{name} is a {type(module).__name__}, not a linear layer")
    return module


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.is_contiguous()


@torch.inference_mode()
def _measured(layers: Sequence[nn.Linear]) -> Choice:
    """Which way is faster through these layers of one shape."""

    def is_faster(rows: int) -> bool:
        hidden = torch.ones(1, rows, layers[0].in_features)
        theirs, ours = _best_seconds([_own, _onednn], hidden, layers)
        return ours < WORTH_IT * theirs

    return Choice(decode=is_faster(1), prefill=is_faster(PREFILL_ROWS))


def _best_seconds(
    kernels: Sequence[Callable[[Tensor, nn.Linear], Tensor]], hidden: Tensor, layers: Sequence[nn.Linear]
) -> list[float]:
    """The shortest time of each kernel through all layers; the kernels take turns."""
    best = [float("inf")] * len(kernels)
    for _ in range(ROUNDS):
        for index, kernel in enumerate(kernels):
            begun = time.perf_counter()
            for layer in layers:
                kernel(hidden, layer)
            best[index] = min(best[index], time.perf_counter() - begun)
    return best


def _own(hidden: Tensor, layer: nn.Linear) -> Tensor:
    return nn.functional.linear(hidden, layer.weight, layer.bias)


def _onednn(hidden: Tensor, layer: nn.Linear) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(hidden, layer.weight, layer.bias, "none", [], "")
