"""A head's steps by graphs are those of the head; where there is no GPU its work is run as it is."""

import math

import pytest
import torch
from torch import Tensor

from corolla.models import HeadModel, ModelSource
from corolla.models.capture import Run
from corolla.models.graphed_head import GraphedHead, Scored
from tests.corolla.models.checkpoints import llama, save

HIDDEN = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    return HeadModel.load(ModelSource.open(save(llama(), tmp_path_factory.mktemp("head"))))


@pytest.fixture
def graphed(model: HeadModel) -> GraphedHead:
    return GraphedHead(model, record=lambda work: work)


def hidden(count: int) -> Tensor:
    return torch.randn(count, 1, HIDDEN, generator=torch.Generator().manual_seed(count))


def scored(graphed: GraphedHead, states: Tensor, positions: list[int]) -> Scored:
    with torch.inference_mode():
        found = graphed.score([row.numpy().tobytes() for row in states], positions)
    assert found is not None
    return found


def tensors_of(rows: list[memoryview]) -> Tensor:
    return torch.stack([torch.frombuffer(bytearray(row), dtype=torch.float32) for row in rows]).unsqueeze(1)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_tokens_and_what_they_embed_as_are_the_heads(
    model: HeadModel, graphed: GraphedHead, count: int
) -> None:
    states, positions = hidden(count), list(range(7, 7 + count))
    found = scored(graphed, states, positions)
    logits = model.logits(states)[:, -1]
    tokens = logits.argmax(-1).tolist()
    assert torch.allclose(found.logits, logits, atol=1e-6)
    assert found.likeliest == tokens
    assert torch.equal(tensors_of(found.embedded), model.embed_tokens(tokens, positions))


def test_other_tokens_than_the_likeliest_can_be_embedded(model: HeadModel, graphed: GraphedHead) -> None:
    scored(graphed, hidden(3), [5, 6, 7])
    with torch.inference_mode():
        rows = graphed.embed([11, 0, 13], [5, 6, 7])
    assert torch.equal(tensors_of(rows), model.embed_tokens([11, 0, 13], [5, 6, 7]))


def test_what_is_not_finite_is_seen_and_spoils_no_other_row(model: HeadModel, graphed: GraphedHead) -> None:
    states = hidden(3)
    expected = scored(graphed, states, [5, 6, 7]).likeliest
    states[1, 0, 4] = math.inf
    found = scored(graphed, states, [5, 6, 7])
    assert [math.isfinite(norm) for norm in found.norms] == [True, False, True]
    assert (found.likeliest[0], found.likeliest[2]) == (expected[0], expected[2])


def test_a_row_that_was_not_finite_is_nobodys_token_in_the_next_step(graphed: GraphedHead) -> None:
    """Of four rows the last is broken; then there are three, and the graph for four embeds another token."""
    states = hidden(4)
    states[3, 0, 0] = math.nan
    assert scored(graphed, states, [5, 6, 7, 8]).likeliest[3] == -1
    found = scored(graphed, states[:3], [6, 7, 8])
    rows = graphed.embed([1 + token % 90 for token in found.likeliest], [6, 7, 8])
    assert len(rows) == 3


def test_a_head_that_cannot_be_recorded_says_so_once(
    model: HeadModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Run] = []

    def refuse(work: Run) -> Run:
        asked.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    graphed = GraphedHead(model, record=refuse)
    for _ in range(2):
        assert graphed.score([bytes(4 * HIDDEN)], [5]) is None
    assert len(asked) == 1
    assert graphed.eager_because is not None
    assert [record.getMessage() for record in caplog.records] == [
        f"The head runs without CUDA graphs: {graphed.eager_because}"
    ]
