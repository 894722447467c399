"""Attention within the documents of a packed row: flex attention on a GPU, a full mask on a CPU."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def attend_densely(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """With a full [length, length] mask, for a CPU."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def dense_mask(documents: Tensor) -> Tensor:
    """What each position may look at: earlier ones of its own document. `documents`: [batch, length], a
    number each.
    """
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return causal & (documents[:, None, :, None] == documents[:, None, None, :])


def attend_sparsely(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    """Skipping what lies in other documents. Fast only when compiled."""
    return flex_attention(query, key, value, block_mask=mask, enable_gqa=True)  # type: ignore[return-value]


class SparseMasks:
    """Makes the block mask of one batch after another. Owns one buffer, so that compiled code sees one
    mask function.
    """

    def __init__(self, rows: int, length: int) -> None:
        documents = torch.zeros(rows, length, dtype=torch.int32, device="cuda")

        def allows(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (documents[batch, query] == documents[batch, key])

        self._documents = documents
        self._create: Any = partial(
            create_block_mask, allows, rows, None, length, length, "cuda", _compile=True
        )

    def __call__(self, documents: Tensor) -> BlockMask:
        """The mask for `documents`: [rows, length]. It is valid until the next call."""
        self._documents.copy_(documents)
        return self._create()
