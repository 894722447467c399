"""Scores are the model's own log-probabilities, whatever slices they are computed in."""

import pytest
import torch

from corolla import scoring
from corolla.models import HeadModel, ModelSource
from corolla.scoring import PromptScorer, TokenScore, score_tokens
from corolla.tensors import from_wire, to_wire
from schema.errors import NotFinite, ShapeMismatch
from schema.generation import LEAST_LOGPROB
from schema.tensors import WireTensor
from tests.corolla.models.checkpoints import llama, save

HIDDEN = 32
TOKENS = [5, 9, 2, 5, 11, 30, 7, 8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    return HeadModel.load(ModelSource.open(save(llama(), tmp_path_factory.mktemp("head"))))


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(1, len(TOKENS), HIDDEN, generator=torch.Generator().manual_seed(3))


def take(scorer: PromptScorer, position: int, states: WireTensor) -> None:
    for piece in scorer.pieces(position, states):
        piece()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_score_is_the_tokens_log_probability_and_the_likeliest_beside_it(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = torch.log_softmax(logits.double(), dim=-1)
    for row, score in enumerate(score_tokens(logits, [4, 0, 39], 5)):
        order = sorted(range(40), key=lambda token: (-expected[row, token].item(), token))[:5]
        assert [token for token, _ in score.top] == order
        assert score.logprob == pytest.approx(expected[row, score.token].item(), abs=1e-5)
        assert [value for _, value in score.top] == pytest.approx(expected[row, order].tolist(), abs=1e-5)


def test_of_tokens_that_tie_the_first_is_told_first() -> None:
    (score,) = score_tokens(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), [4], 2)
    assert [token for token, _ in score.top] == [1, 3]


def test_more_alternatives_than_there_are_tokens_are_all_of_them() -> None:
    (score,) = score_tokens(torch.tensor([[1.0, 3.0]]), [0], 20)
    assert [token for token, _ in score.top] == [1, 0]


def test_without_alternatives_there_are_none() -> None:
    assert score_tokens(torch.zeros(1, 4), [2], 0)[0].top == ()


def test_what_cannot_come_has_the_least_that_there_is() -> None:
    (score,) = score_tokens(torch.tensor([[0.0, -torch.inf]]), [1], 2)
    assert score == TokenScore(1, LEAST_LOGPROB, ((0, 0.0), (1, LEAST_LOGPROB)))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(NotFinite):
        score_tokens(torch.tensor([[0.0, wrong]]), [0], 1)


class TestAPrompt:
    @pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 4, 1]])
    @pytest.mark.parametrize("rows", [1, 3, 100])
    def test_is_scored_the_same_however_it_is_cut(
        self,
        model: HeadModel,
        states: torch.Tensor,
        cuts: list[int],
        rows: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", rows * model.vocabulary)
        expected = score_tokens(model.logits(states)[0, :-1], TOKENS[1:], 3)
        scorer = PromptScorer(model, TOKENS, 1, 3)
        position = 0
        for piece in states.split(cuts, dim=1):
            take(scorer, position, to_wire(piece))
            position += piece.shape[1]
        found = scorer.between(0, len(TOKENS))
        assert found[0] == TokenScore(TOKENS[0], 0.0, is_first=True)
        for one, other in zip(found[1:], expected, strict=True):
            assert one.token == other.token
            assert [token for token, _ in one.top] == [token for token, _ in other.top]
            assert one.logprob == pytest.approx(other.logprob, abs=1e-5)

    def test_is_scored_from_where_it_is_asked_for(self, model: HeadModel, states: torch.Tensor) -> None:
        scorer = PromptScorer(model, TOKENS, 5, 0)
        take(scorer, 0, to_wire(states))
        assert [score.token for score in scorer.between(5, 8)] == TOKENS[5:]

    def test_that_comes_again_is_scored_by_what_came_last(
        self, model: HeadModel, states: torch.Tensor
    ) -> None:
        scorer = PromptScorer(model, TOKENS, 1, 0)
        take(scorer, 0, to_wire(states.flip(1)))
        take(scorer, 0, to_wire(states))
        expected = score_tokens(model.logits(states)[0, :-1], TOKENS[1:], 0)
        assert [one.logprob for one in scorer.between(1, 8)] == [one.logprob for one in expected]

    @pytest.mark.parametrize(
        ("wrong", "kind"),
        [(torch.zeros(1, 8, HIDDEN + 1), ShapeMismatch), (torch.full((1, 8, HIDDEN), torch.nan), NotFinite)],
    )
    def test_of_states_that_are_none_is_refused(
        self, model: HeadModel, wrong: torch.Tensor, kind: type[Exception]
    ) -> None:
        with pytest.raises(kind):
            take(PromptScorer(model, TOKENS, 1, 0), 0, to_wire(wrong))


def test_states_are_not_changed(model: HeadModel, states: torch.Tensor) -> None:
    wire = to_wire(states.clone())
    take(PromptScorer(model, TOKENS, 1, 2), 0, wire)
    assert torch.equal(from_wire(wire), states)
