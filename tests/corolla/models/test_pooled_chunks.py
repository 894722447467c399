"""Chunks of several sequences of one pool: what attends at once, and that no sequence meets another."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from corolla.models import ModelSource, SpanModel, pooled_chunks
from corolla.models.batching import Chunk
from corolla.models.pool import PooledCache
from corolla.models.pooled_chunks import Extent, groups
from tests.corolla.models.checkpoints import llama, save

WIDTH = 32


@pytest.fixture(scope="module")
def span(tmp_path_factory: pytest.TempPathFactory) -> SpanModel:
    return SpanModel.load(ModelSource.open(save(llama(), tmp_path_factory.mktemp("llama"))), 2, 5)


@pytest.fixture
def pooled(span: SpanModel) -> Iterator[SpanModel]:
    assert span.use_pool(tokens=4096, rows=8, longest=1024)
    yield span
    span.use_no_pool()


def hidden_states(tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(1, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("extents", "expected"),
    [
        ([(0, 128), (0, 113), (0, 120)], [[0, 2, 1]]),
        ([(0, 30), (500, 30)], [[1, 0]]),
        ([(0, 30), (0, 2000), (0, 40), (0, 1900)], [[1, 3], [2, 0]]),
        ([(15_000, 1), *[(0, 1)] * 15], [[0, 1, 2, 3, 4], [*range(5, 16)]]),
        ([(28_000, 128)] * 4, [[0, 1], [2, 3]]),
        ([(0, 40), (30_000, 40), (0, 40), (0, 40), (0, 40), (0, 40)], [[1], [0, 2, 3, 4, 5]]),
    ],
    ids=[
        "alike",
        "at other positions",
        "short and long",
        "single tokens beside a long context",
        "too many scores",
        "beside a long context",
    ],
)
def test_what_is_about_equally_long_attends_at_once(
    extents: list[tuple[int, int]], expected: list[list[int]]
) -> None:
    assert groups([Extent(row, held, tokens) for row, (held, tokens) in enumerate(extents)]) == expected


def test_prompts_of_one_pool_attend_in_one_launch_for_each_block(
    pooled: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    attend = nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, *args: Any, **arguments: Any) -> Tensor:
        calls.append(tuple(query.shape))
        return attend(query, *args, **arguments)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
    caches = [pooled.new_cache() for _ in range(5)]
    pooled.forward_batch([Chunk(hidden_states(20 + index), cache) for index, cache in enumerate(caches)])
    assert [shape[0] for shape in calls] == [5] * 3
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("few_scores", [0, pooled_chunks.FEW_SCORES], ids=["four batches", "one batch"])
def test_each_of_several_sequences_gets_what_it_gets_alone(
    pooled: SpanModel, monkeypatch: pytest.MonkeyPatch, few_scores: int
) -> None:
    """Of other lengths and at other positions, whichever attend at once."""
    monkeypatch.setattr(pooled_chunks, "FEW_SCORES", few_scores)
    held, tokens = (3, 40, 2, 50, 9), (4, 30, 1, 20, 9)
    expected: list[Tensor] = []
    caches: list[PooledCache] = []
    for seed, (before, after) in enumerate(zip(held, tokens, strict=True)):
        alone, cache = (cast(PooledCache, pooled.new_cache()) for _ in range(2))
        prompt, rest = hidden_states(before + after, seed).split((before, after), 1)
        for one in (alone, cache):
            pooled.forward(prompt, one)
        expected.append(pooled.forward(rest, alone))
        alone.close()
        caches.append(cache)
    chunks = [
        Chunk(hidden_states(before + after, seed)[:, before:], cache)
        for seed, (before, after, cache) in enumerate(zip(held, tokens, caches, strict=True))
    ]
    for found, one in zip(pooled.forward_batch(chunks), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)
    for cache in caches:
        cache.close()


def test_a_sequence_that_is_not_finite_harms_no_other(pooled: SpanModel) -> None:
    lengths = (20, 5, 12)
    caches = [pooled.new_cache() for _ in lengths]
    expected = [pooled.forward(hidden_states(tokens, seed)) for seed, tokens in enumerate(lengths)]
    chunks = [hidden_states(tokens, seed) for seed, tokens in enumerate(lengths)]
    chunks[1][:] = float("nan")
    found = pooled.forward_batch([Chunk(*pair) for pair in zip(chunks, caches, strict=True)])
    assert not found[1].isfinite().any()
    for index in (0, 2):
        torch.testing.assert_close(found[index], expected[index], rtol=1e-4, atol=1e-5)
    for cache in caches:
        cast(PooledCache, cache).close()
