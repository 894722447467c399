"""The head as its callers see it: embeddings with positions, logits with gradients, and what it refuses."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from corolla.models import HeadModel, ModelSource
from schema.errors import PositionMismatch, ShapeMismatch
from tests.corolla.models.checkpoints import gpt2, llama, save


@pytest.fixture(scope="module")
def llama_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(llama(), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def whole(llama_name: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(llama_name).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def head(llama_name: str) -> HeadModel:
    return HeadModel.load(ModelSource.open(llama_name))


@pytest.fixture(scope="module")
def gpt2_head(tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    return HeadModel.load(ModelSource.open(save(gpt2(), tmp_path_factory.mktemp("gpt2"))))


def hidden_states(batch: int, tokens: int) -> Tensor:
    return torch.randn(batch, tokens, 32, generator=torch.Generator().manual_seed(0))


def test_embeddings_are_the_whole_models(head: HeadModel, whole: PreTrainedModel) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    assert torch.equal(head.embed(ids), whole.get_input_embeddings()(ids))


def test_logits_are_the_whole_models(head: HeadModel, whole: PreTrainedModel) -> None:
    hidden = hidden_states(2, 3)
    assert torch.equal(head.logits(hidden), whole.lm_head(whole.model.norm(hidden)))


def test_what_is_projected_can_be_had_without_that(head: HeadModel, whole: PreTrainedModel) -> None:
    hidden = hidden_states(2, 3)
    assert torch.equal(head.normed(hidden), whole.model.norm(hidden))
    with pytest.raises(ShapeMismatch):
        head.normed(hidden[:, :, 1:])


def test_learned_positions_count_from_the_position_given(gpt2_head: HeadModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    in_two = [gpt2_head.embed(ids[:, :3]), gpt2_head.embed(ids[:, 3:], position=3)]
    assert torch.equal(torch.cat(in_two, dim=1), gpt2_head.embed(ids))
    assert not torch.equal(gpt2_head.embed(ids[:, 3:]), in_two[1])


def test_learned_positions_of_a_padded_row_count_from_its_first_token(gpt2_head: HeadModel) -> None:
    mask = torch.tensor([[0, 0, 1, 1]])
    padded = gpt2_head.embed(torch.tensor([[0, 0, 5, 6]]), attention_mask=mask)
    assert torch.equal(padded[:, 2:], gpt2_head.embed(torch.tensor([[5, 6]])))
    following = gpt2_head.embed(torch.tensor([[7]]), 4, torch.tensor([[0, 0, 1, 1, 1]]))
    assert torch.equal(following, gpt2_head.embed(torch.tensor([[7]]), 2))


def test_a_long_prompt_can_be_embedded_and_projected(head: HeadModel) -> None:
    ids = torch.zeros(1, 500, dtype=torch.long)
    assert head.logits(head.embed(ids)).shape == (1, 500, 97)


def test_gradients_flow_from_logits_to_hidden_states(head: HeadModel) -> None:
    hidden = hidden_states(1, 3).requires_grad_()
    head.logits(hidden).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_embeddings_can_be_trained_on(head: HeadModel) -> None:
    """They are ordinary tensors, which autograd may keep."""
    prompt = torch.zeros(1, 2, 32, requires_grad=True)
    hidden = torch.cat([prompt, head.embed(torch.tensor([[5, 6]]))], dim=1)
    head.logits(hidden * hidden).sum().backward()
    assert prompt.grad is not None


def test_a_mask_of_another_length_is_refused(head: HeadModel) -> None:
    with pytest.raises(PositionMismatch, match=r"\[1, 2\].*position 3.*\[1, 5\]"):
        head.embed(torch.tensor([[5, 6]]), 3, torch.ones(1, 2))


@pytest.mark.parametrize("hidden", [torch.zeros(1, 2, 31), torch.zeros(2, 32)], ids=["width", "rank"])
def test_hidden_states_of_another_shape_are_refused(head: HeadModel, hidden: Tensor) -> None:
    with pytest.raises(ShapeMismatch, match="Hidden states are"):
        head.logits(hidden)


def test_the_head_is_usable_after_a_refusal(head: HeadModel) -> None:
    with pytest.raises(IndexError):
        head.embed(torch.tensor([[1000]]))
    assert head.embed(torch.tensor([[5]])).shape == (1, 1, 32)
