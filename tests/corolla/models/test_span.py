"""A span as its callers see it: shapes, caches, gradients, and what it refuses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, MambaConfig

from corolla.models import ChunkRefused, ModelSource, SpanModel, SpanRefused
from schema.errors import PositionMismatch, ShapeMismatch
from tests.corolla.models.checkpoints import llama, save


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return ModelSource.open(save(llama(), tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def span(source: ModelSource) -> SpanModel:
    return SpanModel.load(source, 2, 5)


def hidden_states(batch: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, 32, generator=torch.Generator().manual_seed(seed))


def test_a_span_knows_what_it_is(span: SpanModel) -> None:
    assert (span.start, span.end) == (2, 5)
    assert span.family.model_type == "llama"


def test_a_forward_keeps_the_shape_and_moves_the_cache_on(span: SpanModel) -> None:
    cache = span.new_cache(batch=2)
    assert span.forward(hidden_states(2, 5), cache).shape == (2, 5, 32)
    assert span.forward(hidden_states(2, 1), cache).shape == (2, 1, 32)
    assert cache.position == 6


def test_sessions_on_one_span_do_not_touch_each_other(span: SpanModel) -> None:
    """The same two sessions, one after the other and step by step in turn."""
    inputs = [[hidden_states(1, 5, s), *(hidden_states(1, 1, 10 * s + i) for i in range(3))] for s in (1, 2)]
    alone = []
    for steps in inputs:
        cache = span.new_cache()
        alone.append([span.forward(step, cache) for step in steps])
    caches = [span.new_cache(), span.new_cache()]
    in_turn: list[list[Tensor]] = [[], []]
    for step in range(4):
        for session in (0, 1):
            in_turn[session].append(span.forward(inputs[session][step], caches[session]))
    assert all(torch.equal(a, b) for s in (0, 1) for a, b in zip(alone[s], in_turn[s], strict=True))


def test_without_a_cache_gradients_flow_to_the_input(span: SpanModel) -> None:
    hidden = hidden_states(1, 4).requires_grad_()
    span.forward(hidden).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_with_a_cache_there_are_no_gradients(span: SpanModel) -> None:
    hidden = hidden_states(1, 4).requires_grad_()
    assert not span.forward(hidden, span.new_cache()).requires_grad


def test_without_a_cache_the_result_is_the_same(span: SpanModel) -> None:
    hidden = hidden_states(1, 4)
    assert torch.equal(span.forward(hidden), span.forward(hidden, span.new_cache()))


def test_a_right_padded_training_batch_is_the_whole_models(source: ModelSource) -> None:
    whole = AutoModelForCausalLM.from_pretrained(source.name).eval().requires_grad_(False)
    hidden, mask = hidden_states(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    ours = hidden
    for start, end in ((0, 2), (2, 6)):
        ours = SpanModel.load(source, start, end).forward(ours, attention_mask=mask)
    theirs = whole(inputs_embeds=hidden, attention_mask=mask, output_hidden_states=True, use_cache=False)
    normed = whole.model.norm(ours)
    assert torch.equal(normed[0], theirs.hidden_states[-1][0])
    assert torch.equal(normed[1, :4], theirs.hidden_states[-1][1, :4])


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 3), (4, 2), (5, 7)])
def test_blocks_that_are_not_there_are_refused(source: ModelSource, start: int, end: int) -> None:
    with pytest.raises(SpanRefused, match="has blocks 0 to 6"):
        SpanModel.load(source, start, end)


@pytest.mark.parametrize(
    "hidden",
    [
        torch.zeros(1, 2, 31),
        torch.zeros(2, 32),
        torch.zeros(1, 0, 32),
        torch.zeros(1, 2, 32, dtype=torch.float16),
    ],
    ids=["width", "rank", "no tokens", "dtype"],
)
def test_hidden_states_of_another_shape_are_refused(span: SpanModel, hidden: Tensor) -> None:
    with pytest.raises(ShapeMismatch, match="Hidden states are"):
        span.forward(hidden, span.new_cache())


def test_a_cache_for_another_batch_is_refused(span: SpanModel) -> None:
    with pytest.raises(ShapeMismatch, match="for 3 sequences, not for 1"):
        span.forward(hidden_states(1, 2), span.new_cache(batch=3))


def test_a_mask_that_does_not_reach_back_to_the_start_is_refused(span: SpanModel) -> None:
    cache = span.new_cache()
    span.forward(hidden_states(1, 4), cache)
    with pytest.raises(PositionMismatch, match=r"\[1, 1\].*4 tokens held.*\[1, 5\]"):
        span.forward(hidden_states(1, 1), cache, torch.ones(1, 1))


def test_a_refused_step_leaves_the_cache_as_it_was(span: SpanModel) -> None:
    cache, untouched = span.new_cache(), span.new_cache()
    for each in (cache, untouched):
        span.forward(hidden_states(1, 4), each)
    with pytest.raises(ShapeMismatch):
        span.forward(torch.zeros(1, 1, 5), cache)
    step = hidden_states(1, 1)
    assert torch.equal(span.forward(step, cache), span.forward(step, untouched))


def test_a_family_that_cannot_continue_in_chunks_says_so(tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=3, state_size=8, time_step_rank=4)
    span = SpanModel.load(ModelSource.open(save(config, tmp_path)), 0, 3)
    cache = span.new_cache()
    span.forward(hidden_states(1, 4), cache)
    with pytest.raises(ChunkRefused, match="mamba"):
        span.forward(hidden_states(1, 2), cache)


def test_a_part_of_a_span_is_the_span_of_these_blocks(source: ModelSource, span: SpanModel) -> None:
    alone = SpanModel.load(source, 3, 4)
    theirs, ours = alone.new_cache(), span.new_cache(blocks=(3, 4))
    for tokens in (5, 1, 1):
        hidden = hidden_states(1, tokens)
        assert torch.equal(span.forward(hidden, ours), alone.forward(hidden, theirs))
    assert ours.nbytes == theirs.nbytes
    assert torch.equal(span.forward(hidden, blocks=(3, 4)), alone.forward(hidden))


@pytest.mark.parametrize("blocks", [(1, 4), (3, 6), (4, 4)])
def test_a_part_that_is_not_in_the_span_is_refused(span: SpanModel, blocks: tuple[int, int]) -> None:
    with pytest.raises(SpanRefused, match="not in the span"):
        span.new_cache(blocks=blocks)
