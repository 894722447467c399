"""How the next token is drawn from the logits of one position.

The steps and their order are those of transformers' `generate`:

    bias, repetition penalty, presence and frequency penalties, constraint     also when greedy
    temperature 0: the likeliest token, the first of several that tie
    otherwise: temperature, top-k, top-p, min-p, draw

Randomness has no state: the number that decides a draw is a hash of the seed and the token's position
in the sequence. So a reply that is continued from any token on, by another process, continues as it would
have, and the drafts of a speculative step can be checked in one pass by drawing at their positions.

What comes before the draw runs where the logits are. A draw moves them to the CPU once and works in float64
there, so its result does not hang on a device's order of summation.

Does not know where logits come from, what a token says, or when a reply ends.
"""

import secrets
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from corolla.scoring import TokenScore, score_tokens
from schema.errors import CorollaError, NotFinite
from schema.generation import Sampling

_KEY = struct.Struct("<qq")
_BITS = 53  # of a float64's mantissa: every multiple of 2**-53 below 1 is exact


def resolved_seed(sampling: Sampling) -> int:
    """The seed that was asked for, or a new one. Whoever may have to continue the reply keeps it."""
    return secrets.randbits(63) if sampling.seed is None else sampling.seed


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on `seed` (signed 64 bits) and `position` alone, on every machine."""
    digest = blake2b(_KEY.pack(seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> (64 - _BITS)) * 2.0**-_BITS


class Constraint(Protocol):
    """Rules out tokens. Owner: the sequence's sampler."""

    def apply(self, scores: Tensor) -> Tensor:
        """The scores [vocab], minus infinity for what must not come next. Raises CorollaError: nothing
        may."""
        ...

    def accept(self, token: int) -> None:
        """The next token is there. Raises CorollaError: it should not be."""
        ...


class Sampler:
    """Draws the tokens of one sequence, one after the other. Owner: the sequence's driver."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        seed: int,
        generated: Sequence[int] = (),
        constraint: Constraint | None = None,
        alternatives: int | None = None,
    ) -> None:
        """`generated` are tokens of the reply that exist already, when it is continued; the constraint knows
        them.

        `alternatives`: of how many of the likeliest tokens to note the log-probabilities, beside that of the
        token that is drawn; None: of none.
        """
        self.scores: list[TokenScore] = []
        """What was noted, token after token."""
        self._sampling = sampling
        self._seed = seed
        self._position = len(prompt) + len(generated)
        self._bias = _Bias(sampling.logit_bias) if sampling.logit_bias else None
        self._penalties = _Penalties(sampling, prompt, generated) if _penalized(sampling) else None
        self._constraint = constraint
        self._alternatives = alternatives
        self.is_plainly_greedy = sampling.temperature == 0 and all(
            part is None for part in (self._bias, self._penalties, constraint, alternatives)
        )
        """Whether it takes the likeliest token of the logits as they are, and notes nothing."""

    @property
    def position(self) -> int:
        """Of the token that comes next, counted from the start of the prompt."""
        return self._position

    def next_token(self, logits: Tensor) -> int:
        """The token at `position`, which it counts as generated.

        Args:
            logits: [vocab], any floating dtype and device; minus infinity means never.

        Raises:
            NotFinite: NaN or plus infinity among the logits, or nothing but minus infinity. The sampler
                is as before the call.
            CorollaError: the constraint's.
        """
        logits = logits.detach()
        scores = self._adjusted(logits)
        if self._sampling.temperature == 0:
            token = _likeliest(scores)
        else:
            weights = token_weights(scores, self._sampling)
            token = _drawn(weights, uniform(self._seed, self._position))
        if self._alternatives is not None:
            self.scores += score_tokens(logits[None], [token], self._alternatives)
        self.accept(token)
        return token

    def _adjusted(self, scores: Tensor) -> Tensor:
        """New scores, or the logits themselves."""
        if self._bias is not None:
            scores = self._bias.applied(scores)
        if self._penalties is not None:
            scores = self._penalties.applied(scores)
        return scores if self._constraint is None else self._constraint.apply(scores)

    def accept(self, token: int) -> None:
        """Counts a token as generated at `position`. Raises as the constraint."""
        self._position += 1
        if self._penalties is not None:
            self._penalties.add(token)
        if self._constraint is not None:
            self._constraint.accept(token)


def next_tokens(
    samplers: Sequence[Sampler], logits: Tensor, likeliest: Sequence[int] | None = None
) -> list[int | CorollaError]:
    """What `next_token` of each sampler gives for its row of `logits`, [sequences, vocab], or raises.

    Greedy sequences share one reduction and one transfer from the device, the others a transfer.
    `likeliest`: each row's token of the greatest logit, or -1 where that is not finite, if it is known.
    """
    if likeliest is None:
        likeliest = _likeliest_each(logits) if any(one.is_plainly_greedy for one in samplers) else []
    rows = logits if all(one.is_plainly_greedy for one in samplers) else logits.cpu()
    found: list[int | CorollaError] = []
    for index, sampler in enumerate(samplers):
        try:
            if not sampler.is_plainly_greedy:
                found.append(sampler.next_token(rows[index]))
            elif likeliest[index] < 0:
                found.append(_not_finite())
            else:
                sampler.accept(likeliest[index])
                found.append(likeliest[index])
        except CorollaError as error:
            found.append(error)
    return found


def token_weights(scores: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that a draw follows, not normalized: float64 [vocab] on the CPU, 1 for the likeliest.

    Tokens that a filter drops have weight 0. Tokens that tie with the last one kept are kept too, so
    the order of the vocabulary decides nothing.

    Raises:
        NotFinite: as `Sampler.next_token`.
    """
    scores = scores.cpu().double()
    peak = scores.max()
    if not torch.isfinite(peak):
        raise _not_finite()
    # The peak comes off first: divided by a tiny temperature, it would overflow.
    weights = (scores - peak).div_(sampling.temperature).exp_()
    return weights.masked_fill_(weights < _smallest_kept(weights, sampling), 0.0)


def _smallest_kept(weights: Tensor, sampling: Sampling) -> float:
    """The weight below which a token is dropped."""
    smallest = 0.0
    survivors = weights
    if 0 < sampling.top_k < len(weights):
        smallest = weights.topk(sampling.top_k).values[-1].item()
        survivors = weights[weights >= smallest]
    if sampling.top_p < 1.0:
        smallest = _nucleus_border(survivors, sampling.top_p)
    return max(smallest, sampling.min_p)


def _nucleus_border(weights: Tensor, top_p: float) -> float:
    """The smallest weight in the nucleus: the fewest largest weights whose sum reaches `top_p` of the total.

    Most of a vocabulary is below an equal share of what may be left out, so it is outside whatever its
    order is: only the rest is sorted. NumPy sorts plain values ten times faster than torch does.
    """
    total = weights.sum()
    margin = 0.5  # for rounding: a few more are sorted, and none is lost
    large = weights[weights >= margin * (1.0 - top_p) * total / len(weights)]
    falling = np.sort(large.numpy())[::-1]
    before = np.cumsum(falling) - falling
    count = np.count_nonzero(before < top_p * total.item())
    return float(falling[max(count, 1) - 1])


def _drawn(weights: Tensor, number: float) -> int:
    """The inverse of the cumulative distribution at `number`, by token. Weight 0 is never drawn."""
    cumulative = weights.cumsum(0)
    return int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))


def _likeliest(scores: Tensor) -> int:
    (token,) = _likeliest_each(scores.unsqueeze(0))
    if token < 0:
        raise _not_finite()
    return token


def _likeliest_each(scores: Tensor) -> list[int]:
    """The argmax of each row, -1 where it cannot be trusted: one transfer from the device says both."""
    values, indices = scores.detach().max(dim=-1)
    return torch.where(torch.isfinite(values), indices, -1).tolist()


def _not_finite() -> NotFinite:
    return NotFinite(
        "The model's logits hold NaN or infinity, so no token can be drawn. "
        "Repeat the step over other volunteers; if it stays, the checkpoint or its dtype is at fault."
    )


def _penalized(sampling: Sampling) -> bool:
    return (
        sampling.repetition_penalty != 1.0
        or sampling.presence_penalty != 0.0
        or sampling.frequency_penalty != 0.0
    )


class _Bias:
    """What a request adds to some logits. Owner: its `Sampler`."""

    def __init__(self, bias: dict[int, float]) -> None:
        self._tokens = torch.tensor(list(bias), dtype=torch.int64)
        self._values = torch.tensor(list(bias.values()), dtype=torch.float64)

    def applied(self, logits: Tensor) -> Tensor:
        """New scores, float32 or wider."""
        scores = logits.double() if logits.dtype == torch.float64 else logits.float()
        tokens, values = self._tokens.to(scores.device), self._values.to(scores.device, scores.dtype)
        return scores.index_add(0, tokens, values)


class _Penalties:
    """What earlier tokens take off the logits. Owner: its `Sampler`."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]) -> None:
        self._repetition = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))
        self._repeats = sampling.repetition_penalty != 1.0
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._prompt_length = len(prompt)
        self._tokens = torch.tensor([*prompt, *generated], dtype=torch.int64)  # moves to the logits' device

    def add(self, token: int) -> None:
        self._tokens = torch.cat((self._tokens, self._tokens.new_tensor([token])))

    def applied(self, logits: Tensor) -> Tensor:
        """New scores, float32 or wider.

        Presence and frequency follow OpenAI's definition: from the logit of a token that was generated
        n > 0 times, `presence + n * frequency` is taken off. The prompt does not count for them.
        """
        scores = logits.float() if logits.dtype != torch.float64 else logits
        self._tokens = self._tokens.to(scores.device)
        if self._repeats:
            scores = self._repetition(cast(torch.LongTensor, self._tokens[None]), scores[None])[0]
        if self._presence or self._frequency:
            counts = torch.zeros_like(scores)
            generated = self._tokens[self._prompt_length :]
            counts.scatter_add_(0, generated, torch.ones_like(generated, dtype=scores.dtype))
            scores = scores - self._frequency * counts - self._presence * (counts > 0)
        return scores
