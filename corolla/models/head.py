"""The head: everything of a model outside its blocks, run through the model's own causal-LM forward.

Turns token ids into the hidden states that enter block 0, and the hidden states that leave the last block
into logits. What the model does besides (embedding scale, norm and positions, final norm, soft-capping, logit
scaling) happens here, exactly once. Knows nothing of sampling or text. Owner: one thread at a time.
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from corolla.models.cache import SpanCache, cache_argument
from corolla.models.loading import LoadOptions, load_part
from corolla.models.partial import AbsentModule, FirstBlockReached, Part, hide_blocks
from corolla.models.positions import positions_of
from corolla.models.shards import Progress
from corolla.models.source import ModelSource
from corolla.models.weights import WeightReport, weigh
from schema.errors import PositionMismatch, ShapeMismatch


class HeadModel:
    """The embedding, the final norm and the output projection of one model on one device."""

    def __init__(self, model: PreTrainedModel, source: ModelSource, part: Part, options: LoadOptions) -> None:
        self.options = options
        self.family = source.family
        self.weights: WeightReport = weigh(model)
        self._model = model
        self._seam = part.seam
        self.hidden_size: int = source.config.hidden_size
        self.vocabulary: int = source.config.vocab_size
        """How wide logits are."""
        self._decoder, _ = hide_blocks(model, source.block_count, visible=1)
        _drop_rotary(self._decoder)
        self._takes_positions = "position_ids" in inspect.signature(self._decoder.forward).parameters
        empty = SpanCache(source.config, source.family, 0, 0, batch=1)
        # With a cache the decoder does not search its input for packed sequences.
        self._nothing_held = {cache_argument(self._decoder): empty.layers}
        width = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[1]
        # What the decoder is called with for logits, where its own embeddings do not matter.
        self._stand_in = torch.zeros(1, 1, width, device=options.device, dtype=options.dtype)

    @classmethod
    def load(
        cls, source: ModelSource, options: LoadOptions | None = None, progress: Progress | None = None
    ) -> Self:
        """Reads the tensors outside the blocks only; progress and errors as in `SpanModel.load`."""
        options = options or LoadOptions()
        part = Part(0, 0, head=True, blocks_return_tuples=source.family.blocks_return_tuples)
        return cls(load_part(source, part, options, progress), source, part, options)

    def embed(self, ids: Tensor, position: int = 0, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states [batch, tokens, hidden_size] that enter block 0, for token ids [batch, tokens].

        `position` is how many tokens came before the first. With padding give `attention_mask`,
        [batch, position + tokens], from which each row's own positions follow. Raises `PositionMismatch`.
        """
        ids = ids.to(self.options.device)
        batch, tokens = ids.shape
        if attention_mask is None:
            positions = torch.arange(position, position + tokens, device=ids.device).expand(batch, tokens)
        elif attention_mask.shape == (batch, position + tokens):
            positions = positions_of(attention_mask)[:, -tokens:]
        else:
            raise PositionMismatch(
                f"The attention mask is {list(attention_mask.shape)}, but at position {position} "
                f"it must be {[batch, position + tokens]}."
            )
        return self.embed_each(ids, positions).reshape(batch, tokens, -1)

    def embed_tokens(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Hidden states [n, 1, hidden_size] of n tokens of different sequences, each at its own position."""
        device = self.options.device
        return self.embed_each(torch.tensor(tokens, device=device), torch.tensor(positions, device=device))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [batch, tokens, vocabulary], in the model's dtype, for the last block's hidden states.

        Gradients flow to `hidden` if it requires them. Raises `ShapeMismatch`.
        """
        output = self._after_blocks(self._model, hidden)
        return output.logits.reshape(*hidden.shape[:2], -1)

    def normed(self, hidden: Tensor) -> Tensor:
        """What the model projects onto its vocabulary, [batch, tokens, width]: as `logits`, without that."""
        output = self._after_blocks(self._decoder, hidden)
        return output[0].reshape(*hidden.shape[:2], -1)

    def _after_blocks(self, module: nn.Module, hidden: Tensor) -> Any:
        """The output of the model, or of its decoder, with these hidden states behind the last block."""
        if hidden.dim() != 3 or hidden.shape[2] != self.hidden_size:
            raise ShapeMismatch(
                f"Hidden states are [batch, tokens, {self.hidden_size}], not {[*hidden.shape]}."
            )
        batch, tokens, width = hidden.shape
        differentiable = hidden.requires_grad and torch.is_grad_enabled()
        # Token by token, as in `embed`: to the decoder each is a sequence of its own.
        self._seam.entering = hidden.reshape(batch * tokens, 1, width)
        try:
            with nullcontext() if differentiable else torch.inference_mode():
                stand_in = self._stand_in.expand(batch * tokens, 1, -1)
                return module(inputs_embeds=stand_in, use_cache=True, **self._nothing_held)
        finally:
            self._seam.entering = None

    def embed_each(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [n, 1, hidden_size] of n tokens at these positions, both on the device.

        Every token is a sequence of its own: embeddings are made token by token, and so no mask grows.
        """
        arguments: dict[str, Any] = {"input_ids": ids.reshape(-1, 1), "use_cache": True, **self._nothing_held}
        if self._takes_positions:
            arguments["position_ids"] = positions.reshape(-1, 1)
        with suppress(FirstBlockReached):
            self._decoder(**arguments)
        hidden, self._seam.leaving = self._seam.leaving, None
        return cast(Tensor, hidden)


def _drop_rotary(decoder: nn.Module) -> None:
    """Rotary tables serve the attention inside the blocks, and there is none here."""
    for name, child in list(decoder.named_children()):
        if type(child).__name__.endswith("RotaryEmbedding"):
            setattr(decoder, name, AbsentModule())
