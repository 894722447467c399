"""Token positions in padded batches, by the library's convention."""

from torch import Tensor


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position of every token, [batch, tokens]: counted from each row's first real token, 0 on padding.

    The same as `generate` computes for its own batches.
    """
    return (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 0)
