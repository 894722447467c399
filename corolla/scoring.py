"""How likely a model found tokens: log-probabilities, and the likeliest tokens beside them.

They are the model's own: of its logits as they are, before bias, penalties, constraint and temperature.
`PromptScorer` finds those of tokens that are in the sequence already, from the hidden states that a prefill
brings back. Does not know what a token says.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from corolla.models.head import HeadModel
from corolla.tensors import from_wire, require_finite, require_hidden
from schema.errors import NotFinite
from schema.generation import LEAST_LOGPROB
from schema.tensors import WireTensor

LOGITS_AT_ONCE = 2**22
"""A prompt's logits are as many times as wide as the vocabulary as it has tokens: never more than these
exist."""


class TokenScore(NamedTuple):
    """A token, and what was likely in its place."""

    token: int
    logprob: float
    """Natural; `LEAST_LOGPROB` at least."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their log-probabilities, the likeliest first; of equals the first one's
    first."""
    is_first: bool = False
    """Nothing is before it, so that it has no probability."""


def score_tokens(logits: Tensor, tokens: Sequence[int], alternatives: int) -> list[TokenScore]:
    """The score of each row's token.

    Args:
        logits: [tokens, vocabulary], any floating dtype and device. Sums are taken in float32 or wider.
        alternatives: how many of the likeliest tokens to tell.

    Raises:
        NotFinite: NaN or plus infinity among the logits.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logprobs = torch.log_softmax(wide, dim=-1)
    if bool(torch.isnan(logprobs).any()):
        raise NotFinite("The model's logits hold NaN or infinity, so no token has a probability.")
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0]
    tops = _likeliest(logprobs, alternatives) if alternatives else [()] * len(tokens)
    return [
        TokenScore(token, max(logprob, LEAST_LOGPROB), top)
        for token, logprob, top in zip(tokens, chosen.tolist(), tops, strict=True)
    ]


def _likeliest(logprobs: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """The `count` likeliest of each row. `topk` alone takes any of those that tie, the greedy choice the
    first."""
    least = logprobs.topk(min(count, logprobs.shape[1]), dim=-1).values[:, -1:]
    rows, tokens = (logprobs >= least).nonzero(as_tuple=True)
    values = logprobs[rows, tokens]
    found: list[list[tuple[int, float]]] = [[] for _ in range(len(logprobs))]
    for row, token, value in zip(rows.tolist(), tokens.tolist(), values.tolist(), strict=True):
        found[row].append((token, max(value, LEAST_LOGPROB)))
    return [tuple(sorted(row, key=lambda one: -one[1])[:count]) for row in found]


class PromptScorer:
    """Scores of tokens that are given. Owner: the reply's driver; the pieces are for the head's thread."""

    def __init__(self, model: HeadModel, tokens: Sequence[int], since: int, alternatives: int) -> None:
        """Of `tokens` from the position `since` on, which is 1 at least: the first one has no probability."""
        self._model = model
        self._tokens = tokens
        self._since = since
        self._alternatives = alternatives
        self._scores: dict[int, TokenScore] = {}

    def pieces(self, position: int, states: WireTensor) -> list[Callable[[], None]]:
        """What the head's thread has to do with the last block's hidden states [1, tokens, hidden_size], from
        `position` on: in pieces, so that others' tokens need not wait for all of it.

        May be called again for the same positions, when another route computes the prompt again.

        Raises:
            ShapeMismatch, NotFinite: they are none. The pieces may raise NotFinite.
        """
        require_hidden(states, self._model.hidden_size, batch=1)
        first = max(0, self._since - 1 - position)
        last = min(states.shape[1], len(self._tokens) - 1 - position)
        if first >= last:
            return []
        hidden = from_wire(states)[:, first:last]
        require_finite(hidden)
        rows = max(1, LOGITS_AT_ONCE // self._model.vocabulary)
        return [
            partial(self._score, position + first + 1 + start, hidden[:, start : start + rows])
            for start in range(0, last - first, rows)
        ]

    @torch.inference_mode()
    def _score(self, start: int, hidden: Tensor) -> None:
        """Of the tokens from the position `start` on, which are behind these states."""
        options = self._model.options
        logits = self._model.logits(hidden.to(options.device, options.dtype))[0]
        tokens = self._tokens[start : start + len(logits)]
        self._scores.update(enumerate(score_tokens(logits, tokens, self._alternatives), start))

    def between(self, start: int, end: int) -> list[TokenScore]:
        """Of the tokens at the positions `[start, end)`."""
        return [
            self._scores[at] if at else TokenScore(self._tokens[0], 0.0, is_first=True)
            for at in range(start, end)
        ]
