"""Linear layers on the CPU the way that is measured to be fastest here: by which library, in which layout.

torch multiplies fp32 matrices with MKL, and stores weights row by row. On processors that MKL is not made
for, one token then reads its weights at less than half the speed of memory. The same weights stored column by
column, or multiplied by oneDNN, which torch has on board for its compiler, can be read up to twice as fast
(docs/decisions.md has figures). What is fastest depends on processor and shape, so each shape is measured
here, on the weights that were loaded.

Sums come out in another order: results differ from the library's in their last bits. Whoever needs the bits
of the library's whole model does not call this. Gradients always take torch's own way.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

FEW_ROWS = 16
"""Below this many rows it is decoding, from there on prefill: they are measured apart."""
PREFILL_ROWS = 128
MEASURED_LAYERS = 3
"""Layers of one shape that are measured."""
ROUNDS = 4
WORTH_IT = 0.95
"""Another way is taken when it needs less than this share of the time of torch's own."""
FLUSH_BYTES = 64 << 20
"""Read before each measurement, so that weights come from memory, as they do between two tokens."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the layers of one shape compute. The defaults are torch's own way."""

    by_columns: bool = False
    """The weight [out_features, in_features] is stored column by column."""
    decode: bool = False
    """oneDNN multiplies a few rows."""
    prefill: bool = False
    """oneDNN multiplies many rows."""


class ChosenLinear(nn.Linear):
    """A linear layer that computes as its choice says. Shares the weights of another."""

    choice: Choice

    @classmethod
    def sharing(cls, layer: nn.Linear, choice: Choice) -> Self:
        made = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        made.choice = choice
        if choice.by_columns:
            made.weight.data = _by_columns(made.weight.data)
        return made.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`: [..., in_features] to [..., out_features]."""
        is_decoding = input.numel() < FEW_ROWS * self.in_features
        by_onednn = self.choice.decode if is_decoding else self.choice.prefill
        if by_onednn and torch.is_inference_mode_enabled():
            return _onednn(input, self.weight, self.bias)
        return super().forward(input)


def choose_kernels(model: nn.Module) -> dict[tuple[int, int], Choice]:
    """Has the fp32 CPU layers of `model` compute the fastest way; what was chosen, by [out, in] features.

    Takes some tenths of a second a shape. Does nothing where torch has no oneDNN.
    """
    if not is_available():
        return {}
    layers: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        if type(module) is nn.Linear and _is_plain(module.weight):
            layers[module.out_features, module.in_features].append(name)
    looked_up = _embedded(model)
    choices: dict[tuple[int, int], Choice] = {}
    for shape, names in layers.items():
        weights = [_linear(model, name).weight.data for name in names[:MEASURED_LAYERS]]
        may_turn = not any(id(_linear(model, name).weight) in looked_up for name in names)
        choices[shape] = measured_choice(weights, may_turn)
        if choices[shape] != Choice():
            for name in names:
                model.set_submodule(name, ChosenLinear.sharing(_linear(model, name), choices[shape]))
    return choices


def is_available() -> bool:
    """Whether this build of torch has oneDNN's operation."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@torch.inference_mode()
def measured_choice(weights: Sequence[Tensor], may_turn: bool = True) -> Choice:
    """What is fastest for weights of one shape. `may_turn`: whether they may be stored by columns."""
    layouts = [(False, weights)]
    if may_turn:
        layouts.append((True, [_by_columns(weight) for weight in weights]))
    ways = [(turned, by_onednn, stored) for turned, stored in layouts for by_onednn in (False, True)]
    fastest = _fastest(1, [(by_onednn, stored) for _, by_onednn, stored in ways])
    turned, decode, stored = ways[fastest]
    prefill = _fastest(PREFILL_ROWS, [(False, stored), (True, stored)]) == 1
    return Choice(turned, decode, prefill)


def _fastest(rows: int, ways: Sequence[tuple[bool, Sequence[Tensor]]]) -> int:
    """The index of the way, (by oneDNN, weights), in which `rows` rows take the least time."""
    hidden = torch.ones(1, rows, ways[0][1][0].shape[1])
    junk = torch.ones(FLUSH_BYTES // 4)
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for index, (by_onednn, weights) in enumerate(ways):
            seconds = 0.0
            for weight in weights:
                junk.sum()
                begun = time.perf_counter()
                _onednn(hidden, weight, None) if by_onednn else nn.functional.linear(hidden, weight)
                seconds += time.perf_counter() - begun
            best[index] = min(best[index], seconds)
    index = min(range(len(ways)), key=best.__getitem__)
    return index if best[index] < WORTH_IT * best[0] else 0


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{name} is a {type(module).__name__}, not a linear layer")
    return module


def _embedded(model: nn.Module) -> set[int]:
    """The weights whose rows are looked up, which has to stay quick."""
    embeddings: Iterable[nn.Module] = (one for one in model.modules() if isinstance(one, nn.Embedding))
    return {id(parameter) for one in embeddings for parameter in one.parameters()}


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.is_contiguous()


def _by_columns(weight: Tensor) -> Tensor:
    return weight.t().contiguous().t()


def _onednn(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(hidden, weight, bias, "none", [], "")
