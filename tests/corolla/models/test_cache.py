"""The KV cache of a span: what it holds, how large it is, and how far back it can go."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from corolla.models import ModelSource, RollbackRefused, SpanModel, describe
from corolla.models.cache import ROLLBACK_TOKENS, layer_tensors
from corolla.models.growing import LEAST_ROOM, room_for
from tests.corolla.models.checkpoints import llama, mistral, save

WINDOW = 8
TOKEN_BYTES = 2 * 2 * 8 * 4
"""Keys and values of two heads of eight fp32 numbers."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> SpanModel:
    return SpanModel.load(ModelSource.open(save(llama(), tmp_path_factory.mktemp("llama"))), 1, 4)


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> SpanModel:
    name = save(mistral(sliding_window=WINDOW), tmp_path_factory.mktemp("mistral"))
    return SpanModel.load(ModelSource.open(name), 1, 4)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randn(1, count, 32, generator=torch.Generator().manual_seed(seed))


def one_by_one(span: SpanModel, cache: object, hidden: Tensor) -> list[Tensor]:
    return [span.forward(hidden[:, at : at + 1], cache) for at in range(hidden.shape[1])]  # type: ignore[arg-type]


def test_a_new_cache_is_empty(full: SpanModel) -> None:
    cache = full.new_cache()
    assert (cache.position, cache.nbytes) == (0, 0)


def test_the_bytes_are_those_of_the_room_for_the_tokens_held(full: SpanModel) -> None:
    cache = full.new_cache(batch=2)
    full.forward(torch.zeros(2, LEAST_ROOM, 32), cache)
    assert cache.nbytes == 3 * 2 * LEAST_ROOM * TOKEN_BYTES
    full.forward(torch.zeros(2, 1, 32), cache)
    assert cache.nbytes == 3 * 2 * room_for(LEAST_ROOM + 1) * TOKEN_BYTES


def test_a_token_is_written_behind_those_held_and_moves_none(full: SpanModel) -> None:
    cache = full.new_cache()
    full.forward(tokens(5), cache)
    before, _ = layer_tensors(cache.layers.layers[1])
    full.forward(tokens(1), cache)
    after, _ = layer_tensors(cache.layers.layers[1])
    assert before.data_ptr() == after.data_ptr()
    assert (before.shape[-2], after.shape[-2]) == (5, 6)


@given(st.integers(1, 1 << 20))
def test_the_room_holds_the_tokens_and_an_eighth_more_at_most(length: int) -> None:
    assert length <= room_for(length) <= length + max(LEAST_ROOM - 1, length // 8)
    assert room_for(room_for(length)) == room_for(length)


def test_truncating_to_the_same_position_changes_nothing(full: SpanModel) -> None:
    cache = full.new_cache()
    full.forward(tokens(5), cache)
    cache.truncate(5)
    assert cache.position == 5


def test_truncating_to_nothing_starts_again(full: SpanModel) -> None:
    cache = full.new_cache()
    first = full.forward(tokens(5), cache)
    cache.truncate(0)
    assert torch.equal(full.forward(tokens(5), cache), first)


@pytest.mark.parametrize("position", [6, -1])
def test_positions_that_are_not_held_are_refused(full: SpanModel, position: int) -> None:
    cache = full.new_cache()
    full.forward(tokens(5), cache)
    with pytest.raises(RollbackRefused, match="holds 5 tokens"):
        cache.truncate(position)


@pytest.mark.parametrize("drop", [1, WINDOW, ROLLBACK_TOKENS])
def test_a_full_window_gives_back_the_promised_tokens(sliding: SpanModel, drop: int) -> None:
    """Long after the window is full and old tokens were dropped, more than once."""
    history, future = tokens(200), tokens(3, seed=1)
    straight, rolled_back = sliding.new_cache(), sliding.new_cache()
    for cache in (straight, rolled_back):
        one_by_one(sliding, cache, history)
    one_by_one(sliding, rolled_back, tokens(drop, seed=2))
    rolled_back.truncate(200)
    assert rolled_back.position == 200
    ours, theirs = one_by_one(sliding, rolled_back, future), one_by_one(sliding, straight, future)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_window_can_be_rolled_back_twice(sliding: SpanModel) -> None:
    history, future = tokens(40), tokens(2, seed=1)
    straight, rolled_back = sliding.new_cache(), sliding.new_cache()
    one_by_one(sliding, straight, history[:, :30])
    one_by_one(sliding, rolled_back, history)
    rolled_back.truncate(35)
    rolled_back.truncate(30)
    ours, theirs = one_by_one(sliding, rolled_back, future), one_by_one(sliding, straight, future)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_window_refuses_what_it_has_dropped(sliding: SpanModel) -> None:
    cache = sliding.new_cache()
    one_by_one(sliding, cache, tokens(300))
    with pytest.raises(RollbackRefused, match="sliding window has dropped"):
        cache.truncate(20)
    assert cache.position == 300


def test_a_window_does_not_grow_beyond_the_facts(
    sliding: SpanModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = save(mistral(sliding_window=WINDOW), tmp_path_factory.mktemp("mistral"))
    facts = describe(ModelSource.open(name), torch.float32)
    limit = facts.kv_tokens_at_most[1]
    assert limit is not None
    cache = sliding.new_cache()
    largest = 0
    for at in range(300):
        sliding.forward(tokens(1, seed=at), cache)
        largest = max(largest, cache.nbytes)
    assert largest <= 3 * limit * facts.kv_bytes_per_token[1]


def test_a_window_drops_nothing_that_the_whole_model_would_see(sliding: SpanModel) -> None:
    """Token by token with dropping, and in one pass without: the same up to rounding."""
    history = tokens(250)
    stepped = torch.cat(one_by_one(sliding, sliding.new_cache(), history), dim=1)
    assert torch.allclose(stepped, sliding.forward(history, sliding.new_cache()), atol=1e-5)
