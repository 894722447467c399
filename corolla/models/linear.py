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

FEW_ROWS = 24
"""Of more rows than one and fewer than this it is a batch of decode steps, from there on prefill."""
MEASURED_ROWS = (1, 8, 128)
"""At which decoding, a batch of decode steps and prefill are measured: what is fastest differs."""
MEASURED_LAYERS = 3
MEASURED_BYTES = 128 << 20
"""Layers of one shape that are measured, one at least; copies of them exist meanwhile."""
MAX_TURNED_BYTES = 256 << 20
"""Larger weights stay as they are stored: turning needs a copy of one."""
ROUNDS = 4
WORTH_IT = 0.95
"""Another way is taken when it needs less than this share of the time of torch's own."""
DECODE_WEIGHT = 3.0
"""How much one row counts against a batch of rows where a layout is better for one of them only."""
MAX_PREFILL_LOSS = 1.1
"""How much longer prefill may take for decoding's sake."""
FLUSH_BYTES = 64 << 20
"""Read before each measurement, so that weights come from memory, as they do between two tokens."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the layers of one shape compute. The defaults are torch's own way."""

    by_columns: bool = False
    """The weight [out_features, in_features] is stored column by column."""
    decode: bool = False
    """oneDNN multiplies one row."""
    batch: bool = False
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
        size = input.numel()
        if size == self.in_features:
            by_onednn = self.choice.decode
        else:
            by_onednn = self.choice.batch if size < FEW_ROWS * self.in_features else self.choice.prefill
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
        may_turn = not any(id(_linear(model, name).weight) in looked_up for name in names)
        choices[shape] = measured_choice(_some_weights(model, names), may_turn)
        if choices[shape] != Choice():
            for name in names:
                model.set_submodule(name, ChosenLinear.sharing(_linear(model, name), choices[shape]))
    return choices


def is_available() -> bool:
    """Whether this build of torch has oneDNN's operation."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass(frozen=True, slots=True)
class _Way:
    """Weights of one shape as they would be stored, and who multiplies them."""

    by_columns: bool
    by_onednn: bool
    weights: Sequence[Tensor]

    def seconds(self, hidden: Tensor, junk: Tensor) -> float:
        """Through all weights, each read from memory."""
        total = 0.0
        for weight in self.weights:
            junk.sum()
            begun = time.perf_counter()
            _onednn(hidden, weight, None) if self.by_onednn else nn.functional.linear(hidden, weight)
            total += time.perf_counter() - begun
        return total


@torch.inference_mode()
def measured_choice(weights: Sequence[Tensor], may_turn: bool = True) -> Choice:
    """What is fastest for weights of one shape. `may_turn`: whether they may be stored by columns."""
    ways = [_Way(False, by_onednn, weights) for by_onednn in (False, True)]
    if may_turn and weights[0].nbytes <= MAX_TURNED_BYTES:
        turned = [_by_columns(weight) for weight in weights]
        ways += [_Way(True, by_onednn, turned) for by_onednn in (False, True)]
    return _decide(ways, *(_best_seconds(rows, ways) for rows in MEASURED_ROWS))


def _decide(
    ways: Sequence[_Way], decode: Sequence[float], batch: Sequence[float], prefill: Sequence[float]
) -> Choice:
    """The best of `ways`, the first of which is torch's own, by the seconds that each took.

    A layout is judged by decoding and by batches of it: replies come alone, and sometimes many at a time.
    """
    as_stored = [index for index, way in enumerate(ways) if not way.by_columns]
    turned = [index for index, way in enumerate(ways) if way.by_columns]

    def best(seconds: Sequence[float], layout: Sequence[int]) -> float:
        return min(seconds[index] for index in layout) / seconds[0]

    layout = as_stored
    if turned:

        def cost(layout: Sequence[int]) -> float:
            return DECODE_WEIGHT * best(decode, layout) + best(batch, layout)

        loss = best(prefill, turned) / best(prefill, as_stored)
        if cost(turned) < WORTH_IT * cost(as_stored) and loss <= MAX_PREFILL_LOSS:
            layout = turned
    by_onednn = [ways[_fastest(seconds, layout)].by_onednn for seconds in (decode, batch, prefill)]
    return Choice(layout is turned, *by_onednn)


def _fastest(seconds: Sequence[float], layout: Sequence[int]) -> int:
    """Of a layout's ways the fastest, or the first of them where it is not worth it."""
    best = min(layout, key=seconds.__getitem__)
    return best if seconds[best] < WORTH_IT * seconds[layout[0]] else layout[0]


def _best_seconds(rows: int, ways: Sequence[_Way]) -> list[float]:
    """The shortest time of each way for hidden states of `rows` rows; the ways take turns."""
    hidden = torch.ones(1, rows, ways[0].weights[0].shape[1])
    junk = torch.ones(FLUSH_BYTES // 4)
    rounds = [[way.seconds(hidden, junk) for way in ways] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _some_weights(model: nn.Module, names: Sequence[str]) -> list[Tensor]:
    first = _linear(model, names[0]).weight.data
    count = max(1, min(MEASURED_LAYERS, MEASURED_BYTES // first.nbytes))
    return [_linear(model, name).weight.data for name in names[:count]]


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
