"""What a model is and what it costs, by block: from its config and tensor names alone, no weights read.

Sizes come from the model's own code, built and run on the meta device, where tensors have shapes but no
memory. So they hold for every family without a formula for any of them. What is quantized, and how small it
gets, is `quantization`'s to say. Knows nothing of devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from corolla.models.cache import ROLLBACK_TOKENS, cache_argument, layer_tensors
from corolla.models.loading import build_on_meta, causal_lm_class, refusing_nonsense
from corolla.models.partial import Part, find_decoder, partial_class
from corolla.models.quantization import Quantization, quantized_layers, saved_bytes
from corolla.models.source import ModelSource

FORMS: tuple[Quantization, ...] = ("none", "int8", "nf4")
EXPERTS_WITHOUT_DATA = "batched_mm"
"""The way to run experts that does not look at values, which meta tensors do not have."""


@dataclass(frozen=True)
class ModelFacts:
    """One model in one dtype. Tuples have one entry per block."""

    name: str
    revision: str | None
    digest: str
    """See `ModelSource.digest`."""
    model_type: str
    dtype: str
    block_count: int
    hidden_size: int
    vocab_size: int
    max_position: int | None
    """Positions that the model was made for; None where nothing limits them."""
    block_parameters: tuple[int, ...]
    block_bytes: tuple[int, ...]
    """Parameters and buffers."""
    block_bytes_in: Mapping[Quantization, tuple[int, ...]]
    """The same for every way to hold the blocks; the head is never quantized."""
    span_bytes: int
    """What every span has a copy of, however long it is: rotary tables, and some families' masks."""
    head_parameters: int
    head_bytes: int
    """Everything outside the blocks; tied embeddings count once."""
    kv_bytes_per_token: tuple[int, ...]
    """How much a cache grows with each token of one sequence; 0 where it does not grow."""
    kv_tokens_at_most: tuple[int | None, ...]
    """After how many tokens a sliding window's cache stops growing; None where it never does."""
    state_bytes: tuple[int, ...]
    """What one sequence takes whatever its length: recurrent and convolutional states."""
    can_roll_back: bool
    can_chunk_prefill: bool

    def tokens_to_roll_back(self, held: int) -> int:
        """How many of `held` tokens a cache can surely forget again; see `SpanCache.truncate`."""
        if not self.can_roll_back:
            return 0
        windows = [limit for limit in self.kv_tokens_at_most if limit is not None]
        return held if held <= min(windows, default=held) else ROLLBACK_TOKENS


def describe(source: ModelSource, dtype: torch.dtype) -> ModelFacts:
    """The facts of `source` when computed in `dtype`.

    Raises `CheckpointBroken` where the config makes no model.
    """
    blocks, quantized, head = _weights(source, dtype)
    span = _span_of_all_blocks(source, dtype)
    per_token, fixed = _cache_sizes(span, source, dtype)
    config = source.config
    return ModelFacts(
        name=source.name,
        revision=source.revision,
        digest=source.digest,
        model_type=source.family.model_type,
        dtype=str(dtype).removeprefix("torch."),
        block_count=source.block_count,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_position=getattr(config, "max_position_embeddings", None),
        block_parameters=tuple(count for count, _ in blocks),
        block_bytes=tuple(nbytes for _, nbytes in blocks),
        block_bytes_in=quantized,
        span_bytes=_size(span)[1] - sum(nbytes for _, nbytes in blocks),
        head_parameters=head[0],
        head_bytes=head[1],
        kv_bytes_per_token=per_token,
        kv_tokens_at_most=_token_limits(source),
        state_bytes=fixed,
        can_roll_back=source.family.can_roll_back,
        can_chunk_prefill=source.family.can_chunk_prefill,
    )


def _weights(
    source: ModelSource, dtype: torch.dtype
) -> tuple[list[tuple[int, int]], dict[Quantization, tuple[int, ...]], tuple[int, int]]:
    """Parameters and bytes of every block, the blocks' bytes in every form, and the rest."""
    whole = build_on_meta(causal_lm_class(source.config), source, dtype)
    whole.tie_weights()
    path, list_name = find_decoder(whole, source.block_count)
    blocks = [_size(block) for block in cast(nn.ModuleList, getattr(whole.get_submodule(path), list_name))]
    parameters, nbytes_in_all = _size(whole)
    inside = (sum(count for count, _ in blocks), sum(size for _, size in blocks))
    prefix = f"{path}.{list_name}.".lstrip(".")
    plain = [nbytes for _, nbytes in blocks]
    quantized: dict[Quantization, tuple[int, ...]] = {
        form: _quantized(whole, prefix, plain, form) for form in FORMS
    }
    return blocks, quantized, (parameters - inside[0], nbytes_in_all - inside[1])


def _quantized(
    whole: PreTrainedModel, prefix: str, plain: list[int], quantization: Quantization
) -> tuple[int, ...]:
    """Bytes of every block when it is quantized; the blocks' names begin with `prefix` and their number."""
    sizes = list(plain)
    for name, layer in quantized_layers(whole, quantization):
        if name.startswith(prefix):
            sizes[int(name.removeprefix(prefix).partition(".")[0])] -= saved_bytes(layer, quantization)
    return tuple(sizes)


def _size(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    nbytes = sum(tensor.nbytes for tensor in (*parameters, *module.buffers()))
    return sum(parameter.numel() for parameter in parameters), nbytes


def _span_of_all_blocks(source: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    part = Part(0, source.block_count, head=False, blocks_return_tuples=source.family.blocks_return_tuples)
    model_class = partial_class(causal_lm_class(source.config), source.block_count, part)
    return build_on_meta(model_class, source, dtype)


def _cache_sizes(
    model: PreTrainedModel, source: ModelSource, dtype: torch.dtype
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes that each block's cache grows by with a token, and bytes that it has without any.

    Measured on what the blocks leave in the cache after one token and after two.
    """
    model.set_experts_implementation(EXPERTS_WITHOUT_DATA)
    path, _ = find_decoder(model, source.block_count)
    after_one, after_two = (_cached_bytes(model.get_submodule(path), source, dtype, n) for n in (1, 2))
    growth = tuple(two - one for one, two in zip(after_one, after_two, strict=True))
    return growth, tuple(one - grown for one, grown in zip(after_one, growth, strict=True))


def _cached_bytes(decoder: nn.Module, source: ModelSource, dtype: torch.dtype, tokens: int) -> list[int]:
    cache = DynamicCache(config=source.config)
    arguments: dict[str, Any] = {cache_argument(decoder): cache, "use_cache": True}
    with torch.device("meta"), torch.inference_mode(), refusing_nonsense(source.name):
        decoder(inputs_embeds=torch.empty(1, tokens, source.config.hidden_size, dtype=dtype), **arguments)
    return [sum(tensor.nbytes for tensor in layer_tensors(layer)) for layer in cache.layers]


def _token_limits(source: ModelSource) -> tuple[int | None, ...]:
    """What `SpanCache` lets a sliding layer gather before it drops the oldest tokens."""
    margin = 2 * ROLLBACK_TOKENS if source.family.can_roll_back else 0
    return tuple(
        layer.sliding_window - 1 + margin if isinstance(layer, DynamicSlidingWindowLayer) else None
        for layer in DynamicCache(config=source.config).layers
    )
