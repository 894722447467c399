"""A model without a checkpoint: its config is enough, and the weights are noise.

For measuring at full size. Speed and memory do not depend on what weights are, so a volunteer can show
what it would do for a model of 176 billion parameters on a machine whose disk does not hold them. The
library's loader takes these tensors as it takes a checkpoint's, one after the other, quantization included.

The noise of a tensor depends on its name alone, so all volunteers have the same model.
"""

from collections.abc import Collection
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from corolla.models.loading import build_on_meta, causal_lm_class
from corolla.models.shards import LazyTensor, Meter, Progress
from corolla.models.source import ModelSource

SCALE = 0.02
"""Standard deviation of the weights: what most models are initialized with."""
POOL = 1 << 20
"""Numbers of noise that all tensors are made of: drawing billions would take an hour."""


class RandomWeights(ModelSource):
    """A model's config with noise for weights."""

    def tensor_names(self) -> tuple[str, ...]:
        return tuple(sorted(self._shapes))

    def names_on_disk(self) -> frozenset[str]:
        return frozenset(self.tensor_names())

    @cached_property
    def digest(self) -> str:
        """Never that of the model itself: noise must not be taken for it."""
        return sha256(f"random weights\0{super().digest}".encode()).hexdigest()

    def lazy(
        self, names: Collection[str], stack: ExitStack, progress: Progress | None = None
    ) -> dict[str, LazyTensor]:
        meter = Meter(progress)
        return {name: LazyTensor(_Noise(name, self._shapes[name], self._pool), meter) for name in names}

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        """Of every tensor of the whole model, by the first name that the model itself gives it.

        A checkpoint that has tied weights under both of their names is loaded as if they were not tied.
        """
        whole = build_on_meta(causal_lm_class(self.config), self, self._dtype)
        whole.tie_weights()
        firsts: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in whole.state_dict(keep_vars=True).items():
            firsts.setdefault(id(tensor), (name, tensor))
        return {name: list(tensor.shape) for name, tensor in firsts.values()}

    @cached_property
    def _pool(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(POOL, generator=generator) * SCALE).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """What the checkpoint would be in."""
        stored = self.config.dtype
        return stored if isinstance(stored, torch.dtype) else torch.float32


class _Noise:
    """One tensor, in the form in which safetensors gives a slice of a shard."""

    def __init__(self, name: str, shape: list[int], pool: Tensor) -> None:
        self._name = name
        self._shape = shape
        self._pool = pool

    def __getitem__(self, index: Any) -> Tensor:
        if len(self._shape) < 2 and self._name.endswith("weight"):
            return torch.ones(self._shape, dtype=self._pool.dtype)[index]  # a norm's
        offset = int.from_bytes(sha256(self._name.encode()).digest()[:4], "little") % POOL
        size = torch.Size(self._shape).numel()
        noise = self._pool.roll(-offset).repeat(size // POOL + 1)[:size]
        return noise.reshape(self._shape)[index]

    def get_shape(self) -> list[int]:
        return self._shape

    def get_dtype(self) -> str:
        return {2: "BF16", 4: "F32", 8: "F64"}[self._pool.element_size()]


def number_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Token `i` reads `i `, so that two texts are equal just when their tokens are."""
    words = Tokenizer(WordLevel({f"{token} ": token for token in range(vocabulary)}, unk_token="0 "))
    words.pre_tokenizer = WhitespaceSplit()
    words.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words)
