"""What fits: how many blocks of a model a machine can hold, and in which form it had better hold them.

Pure functions over byte counts: everything is decided from free memory before anything is loaded. Does not
ask the machine, and does not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schema.ids import Span

if TYPE_CHECKING:
    from corolla.models.facts import ModelFacts
    from corolla.models.quantization import Quantization

KV_TOKENS = 8192
"""Tokens of KV cache that each block is given room for when deciding how many fit."""
RESERVED_SHARE = 0.1
"""Of the free memory, for activations and what else the machine does."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Bytes of one model in the dtype and quantization in which it would be loaded."""

    block_bytes: tuple[int, ...]
    """Each block's weights."""
    head_bytes: int
    kv_bytes_per_token: tuple[int, ...]
    """Of each block."""
    span_bytes: int = 0
    """What a span takes beside its blocks."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of a model fits."""

    max_blocks: int
    """Wherever in the model the span is."""
    can_hold_head: bool
    """Beside `max_blocks` blocks."""
    kv_budget: int
    """Bytes left for KV caches when all that is held."""


@dataclass(frozen=True, slots=True)
class Form:
    """A way to hold a model's weights, and how much of the model fits then."""

    quantization: "Quantization"
    fit: Fit


@dataclass(frozen=True, slots=True)
class Wish:
    """What the owner asks this machine to hold. Neither: as much of the model as it can."""

    blocks: Span | None = None
    max_blocks: int | None = None

    def count(self, blocks: int) -> int:
        """How many blocks that is, of a model of `blocks` blocks."""
        if self.blocks is not None:
            return len(self.blocks)
        return blocks if self.max_blocks is None else min(self.max_blocks, blocks)


def forms_that_fit(
    free_bytes: int, facts: "ModelFacts", wish: Wish, quantizations: Sequence["Quantization"]
) -> list[Form]:
    """What of the model fits in the memory that is free now, for each of `quantizations`."""
    reserve, insists = int(free_bytes * RESERVED_SHARE), wish.blocks is not None
    forms: list[Form] = []
    for kind in quantizations:
        sizes = sizes_of(facts, kind, wish.blocks)
        forms.append(Form(kind, fit_blocks(free_bytes, sizes, KV_TOKENS, reserve, blocks_first=insists)))
    return forms


def sizes_of(facts: "ModelFacts", quantization: "Quantization", within: Span | None = None) -> ModelSizes:
    """The sizes of the model's blocks, or of those in a span that is insisted on, if it has those."""
    insisted = within is not None and within.end <= facts.block_count
    chosen = slice(within.start, within.end) if within is not None and insisted else slice(None)
    return ModelSizes(
        block_bytes=facts.block_bytes_in[quantization][chosen],
        head_bytes=facts.head_bytes,
        kv_bytes_per_token=facts.kv_bytes_per_token[chosen],
        span_bytes=facts.span_bytes,
    )


def choose_form(forms: Sequence[Form], wanted: int, quantizing_is_slow: bool) -> Form:
    """The first of `forms` that holds `wanted` blocks: they come by quality, best first.

    Where none does, the swarm has to split the model anyway. Then what counts is how many blocks are held,
    or, where quantized blocks are slow, that the held ones are fast.
    """
    for form in forms:
        if form.fit.max_blocks >= wanted:
            return form
    if quantizing_is_slow:
        return next((form for form in forms if form.fit.max_blocks), forms[0])
    return max(forms, key=lambda form: form.fit.max_blocks)


def fit_blocks(
    free_bytes: int, sizes: ModelSizes, kv_tokens: int, reserve: int, *, blocks_first: bool = False
) -> Fit:
    """How many blocks fit in `free_bytes` less `reserve`, each with `kv_tokens` tokens of KV cache.

    The head is held where that leaves at least half of the blocks: a swarm without a head answers
    nobody, but blocks are what it is short of. With `blocks_first` it is held where it costs none.
    """
    room = max(0, free_bytes - reserve - sizes.span_bytes)
    pairs = zip(sizes.block_bytes, sizes.kv_bytes_per_token, strict=True)
    costs = [weights + kv_tokens * per_token for weights, per_token in pairs]
    alone = _most_in_a_row(costs, room)
    beside_head = _most_in_a_row(costs, room - sizes.head_bytes)
    least = alone if blocks_first else alone / 2
    head = room >= sizes.head_bytes and beside_head >= least
    blocks = beside_head if head else alone
    return Fit(blocks, head, kv_budget(room, sizes, blocks, head))


def kv_budget(room: int, sizes: ModelSizes, blocks: int, head: bool) -> int:
    """Bytes that any `blocks` blocks, and the head if it is held, leave of `room` for KV caches."""
    weights = _heaviest_in_a_row(sizes.block_bytes, blocks)
    return max(0, room - weights - (sizes.head_bytes if head else 0))


def _most_in_a_row(costs: Sequence[int], room: int) -> int:
    """The largest n for which any n blocks in a row fit: where the span will be is the relay's to say."""
    numbers = range(len(costs), 0, -1)
    return next((n for n in numbers if _heaviest_in_a_row(costs, n) <= room), 0)


def _heaviest_in_a_row(costs: Sequence[int], count: int) -> int:
    total = heaviest = sum(costs[:count])
    for leaving, entering in zip(costs, costs[count:], strict=False):
        total += entering - leaving
        heaviest = max(heaviest, total)
    return heaviest
