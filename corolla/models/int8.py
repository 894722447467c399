"""8-bit linear layers on a GPU: weights of 8 bits times hidden states that stay as they are.

bitsandbytes makes 8 bits of the hidden states too, but for outliers, which it looks for in every call: the
host has to wait for that, so that no step can be recorded as a CUDA graph, and one token takes several times
as long as its weights need to be read. Here a few rows are multiplied straight from the 8 bits, and for more
the weight is made wide first. Nothing of the hidden states is rounded, so results are nearer to those of the
wide weight than the library's. Where Triton, or the compiler that it needs, is not there, the library's
layers stay; they also compute gradients.
"""

from functools import partial
from typing import Any, Self

import torch
from bitsandbytes.functional import int8_vectorwise_quant
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor, nn

from corolla.models.compiled import can_be_used

MOST_ROWS = 32
"""That are multiplied straight from the 8 bits: of more, tensor cores are busier than memory."""
DTYPES = (torch.bfloat16, torch.float16)
"""Of hidden states: what tensor cores multiply."""


class WideningLinear8bit(Linear8bitLt):
    """An 8-bit layer of the library's that shares another's weight, and computes in 16 bits."""

    @classmethod
    def sharing(cls, layer: Linear8bitLt) -> Self:
        made = cls(layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, device="meta")
        made.weight, made.bias, made.state = layer.weight, layer.bias, layer.state
        return made.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """As `Linear8bitLt`: [..., in_features] to [..., out_features]."""
        if x.dtype not in DTYPES or not torch.is_inference_mode_enabled():
            return super().forward(x)
        weight, scales = self.weight.data, _scales(self)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if x.numel() > MOST_ROWS * self.in_features:
            return nn.functional.linear(x, _wide(weight, scales, x.dtype), bias)
        output = _product(x.reshape(-1, self.in_features), weight, scales)
        output = output if bias is None else output + bias
        return output.view(*x.shape[:-1], self.out_features)


def use_fast_kernels(model: nn.Module, dtype: torch.dtype) -> int:
    """Has the 8-bit layers of `model` that can do so compute quicker in `dtype`; how many those are."""
    if dtype not in DTYPES:
        return 0
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) is Linear8bitLt and layer.weight.is_cuda and layer.weight.dtype is torch.int8
    ]
    if not layers or not can_be_used("8-bit layers", partial(_is_right, layers[0][1].weight.device, dtype)):
        return 0
    for name, layer in layers:
        model.set_submodule(name, WideningLinear8bit.sharing(layer))
    return len(layers)


def _is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels compute what they should in `dtype`."""
    weight = torch.linspace(-3, 3, 96 * 80, device=device).to(torch.float16).view(96, 80)
    values, scales, _ = int8_vectorwise_quant(weight)
    exact = values.double() * (scales.double() / 127)[:, None]
    hidden = torch.linspace(-1, 1, MOST_ROWS * 80, device=device).to(dtype).view(MOST_ROWS, 80)
    some = (hidden[:1], hidden)  # more rows need more of the GPU's shared memory
    pairs = [(_product(one, values, scales), one.double() @ exact.t()) for one in some]
    pairs.append((_wide(values, scales, dtype), exact))
    return all(torch.allclose(found.double(), right, rtol=0.01, atol=0.01) for found, right in pairs)


def _scales(layer: Linear8bitLt) -> Tensor:
    """fp32 [out_features]; the library moves them from the weight to the state in its first pass."""
    weight: Any = layer.weight
    state: Any = layer.state
    return state.SCB if weight.SCB is None else weight.SCB


def _product(hidden: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    from corolla.models.int8_kernel import multiply

    output = torch.empty(len(hidden), len(weight), dtype=hidden.dtype, device=hidden.device)
    multiply(hidden.contiguous(), weight, scales, output)
    return output


def _wide(weight: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    from corolla.models.int8_kernel import widen

    wide = torch.empty_like(weight, dtype=dtype)
    widen(weight, scales, wide)
    return wide
