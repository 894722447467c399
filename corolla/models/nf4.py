"""4-bit linear layers on a GPU: for many rows they are made wide by a quicker kernel than the library's.

bitsandbytes multiplies a few rows straight from the 4 bits. For more it makes the weight wide first, in more
time than the product takes for a hundred rows. The values are the same bits. Where Triton, or the compiler
that it needs, is not there, the library's layers stay.
"""

from functools import partial
from typing import Any, Self

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn

from corolla.models.compiled import can_be_used

LEAST_ROWS = 33
"""Fewer are multiplied straight from the 4 bits: on an H200 32 rows take the same time either way."""


class WideningLinear(Linear4bit):
    """A 4-bit layer of the library's that shares another's weight, and widens it for many rows."""

    @classmethod
    def sharing(cls, layer: Linear4bit) -> Self:
        made = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        made.compute_dtype, made.compute_type_is_set = layer.compute_dtype, layer.compute_type_is_set
        made.quant_state = _state(layer.weight)
        return made.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """As `Linear4bit`: [..., in_features] to [..., out_features]."""
        state = _state(self.weight)
        is_few = x.numel() < LEAST_ROWS * self.in_features
        if is_few or x.dtype is not state.dtype or not torch.is_inference_mode_enabled():
            return super().forward(x)
        return nn.functional.linear(x, _wide(self.weight.data, state), self.bias)


def use_fast_kernels(model: nn.Module) -> int:
    """Has the 4-bit layers of `model` that can do so widen quicker; how many those are."""
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) is Linear4bit and _is_plain(layer.weight)
    ]
    if not layers or not can_be_used("4-bit layers", partial(_is_right, layers[0][1].weight.device)):
        return 0
    for name, layer in layers:
        model.set_submodule(name, WideningLinear.sharing(layer))
    return len(layers)


def _is_right(device: torch.device) -> bool:
    """Whether the kernel gives the library's bits."""
    weight = torch.linspace(-3, 3, 64 * 64, device=device).to(torch.bfloat16).view(64, 64)
    packed, state = quantize_4bit(weight, quant_type="nf4")
    return torch.equal(_wide(packed, state), dequantize_4bit(packed, state))


def _is_plain(weight: Any) -> bool:
    """Whether scales are plain numbers, and each is of whole bytes."""
    state = _state(weight)
    return weight.is_cuda and state is not None and not state.nested and state.blocksize % 2 == 0


def _state(weight: Any) -> Any:
    """The library's `QuantState` of a weight, shape, dtype, scales and table; None before it has one."""
    return getattr(weight, "quant_state", None)


def _wide(packed: Tensor, state: Any) -> Tensor:
    from corolla.models.nf4_kernel import widen

    wide = torch.empty(state.shape, dtype=state.dtype, device=packed.device)
    widen(packed, state.absmax, state.code, state.blocksize, wide)
    return wide
