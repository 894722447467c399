"""Which weights bitsandbytes holds in fewer bits, and how many bytes they take then.

A span's linear layers are quantized, one by one: what the library has no quantized form for stays as it is
(fused experts, Falcon's own linear layers, shapes that 4 bits cannot be computed in), and so does the head.
Both loading and the sizes before loading ask here, so they cannot disagree. Reads shapes only: a model on the
meta device is enough. Knows nothing of checkpoints, devices or free memory.
"""

from collections.abc import Iterator
from math import ceil
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.import_utils import is_accelerate_available, is_bitsandbytes_available

Quantization = Literal["none", "int8", "nf4"]

NF4_IN_FEATURES, NF4_OUT_FEATURES = 64, 32
"""What the sides of a 4-bit weight must be multiples of: bitsandbytes 0.50 packs it so on AVX-512 CPUs."""
NF4_GROUP = 64
"""4-bit weights that share a scale."""
NF4_TABLE = 16 * 4
"""Bytes of the table of values that every 4-bit layer keeps."""
SCALE = 4
"""Bytes of a scale: fp32."""


def missing_libraries() -> tuple[str, ...]:
    """What has to be installed before anything can be quantized."""
    installed = {"bitsandbytes": is_bitsandbytes_available(), "accelerate": is_accelerate_available()}
    return tuple(name for name, available in installed.items() if not available)


def kept_layers(model: PreTrainedModel, quantization: Quantization) -> list[str]:
    """Names of the linear layers of `model` that the library would quantize, and must not."""
    return [name for name, layer in _library_takes(model) if not _fits(layer, quantization)]


def quantized_layers(
    model: PreTrainedModel, quantization: Quantization
) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    """The layers of `model` that are quantized when they are in a span, by name."""
    if quantization != "none":
        yield from ((name, layer) for name, layer in _library_takes(model) if _fits(layer, quantization))


def saved_bytes(layer: nn.Linear | Conv1D, quantization: Quantization) -> int:
    """How much smaller a layer gets when it is quantized, scales included."""
    out_features, in_features = _sides(layer)
    count = out_features * in_features
    if quantization == "int8":
        return layer.weight.nbytes - count - SCALE * out_features
    return layer.weight.nbytes - ceil(count / 2) - SCALE * ceil(count / NF4_GROUP) - NF4_TABLE


def _library_takes(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    """Plain linear layers, and not those of a subclass: what those compute the library does not know."""
    patterns = list(model._keep_in_fp32_modules or ())
    for name, layer in model.named_modules():
        if (type(layer) is nn.Linear or isinstance(layer, Conv1D)) and should_convert_module(name, patterns):
            yield name, layer


def _fits(layer: nn.Linear | Conv1D, quantization: Quantization) -> bool:
    """Whether bitsandbytes can compute with it on every processor."""
    out_features, in_features = _sides(layer)
    return quantization != "nf4" or not (out_features % NF4_OUT_FEATURES or in_features % NF4_IN_FEATURES)


def _sides(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """[out_features, in_features]; a Conv1D stores its weight the other way round."""
    rows, columns = layer.weight.shape
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)
