"""corolla/models/linear.py: another way to compute is close to torch's own, and touches what it may only."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel, linear
from corolla.models.linear import FEW_ROWS, Choice, ChosenLinear, choose_kernels, measured_choice
from tests.corolla.models.checkpoints import llama, mistral, save
from volunteer.config import KERNELS

pytestmark = pytest.mark.skipif(not linear.is_available(), reason="this build of torch has no oneDNN")
CHOICES = [Choice(*flags) for flags in product((False, True), repeat=4)]
EVERYTHING = Choice(by_columns=True, decode=True, batch=True, prefill=True)


SAME = [1.0, 1.0, 1.0, 1.0]
"""Seconds of four ways between which nothing is to choose."""


def layer(inputs: int = 24, outputs: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def choosing(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> list[bool]:
    """Have everything measured as `choice`; whether each shape's weights could be turned."""
    could_turn: list[bool] = []

    def chosen(_: Sequence[Tensor], may_turn: bool) -> Choice:
        could_turn.append(may_turn)
        return choice

    monkeypatch.setattr(linear, "measured_choice", chosen)
    return could_turn


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 5, 7), (1, FEW_ROWS + 1)], ids=str)
def test_every_choice_computes_the_same(choice: Choice, bias: bool, shape: tuple[int, ...]) -> None:
    own = layer(bias=bias)
    hidden = torch.randn(*shape, 24)
    expected = own(hidden)
    with torch.inference_mode():
        torch.testing.assert_close(ChosenLinear.sharing(own, choice)(hidden), expected)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_hidden_states_need_not_be_contiguous(choice: Choice) -> None:
    own = layer()
    hidden = torch.randn(2, 24, 3).transpose(1, 2)
    expected = own(hidden)
    with torch.inference_mode():
        torch.testing.assert_close(ChosenLinear.sharing(own, choice)(hidden), expected)


def test_gradients_flow_to_the_hidden_states() -> None:
    own = layer()
    expected = own.weight.sum(0)
    hidden = torch.randn(1, 1, 24, requires_grad=True)
    ChosenLinear.sharing(own, EVERYTHING)(hidden).sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad[0, 0], expected)


def test_weights_are_shared_and_keep_their_names_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, EVERYTHING)
    model = nn.Sequential(layer(), layer(40, 24))
    weights = dict(model.named_parameters())
    before = {name: weight.clone() for name, weight in weights.items()}
    assert choose_kernels(model) == {(40, 24): EVERYTHING, (24, 40): EVERYTHING}
    assert all(isinstance(one, ChosenLinear) for one in model)
    for name, weight in model.named_parameters():
        assert weight is weights[name]
        assert torch.equal(weight, before[name])


def test_an_embedding_that_is_also_the_output_projection_stays_as_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(40, 24), "output": layer(bias=False)})
    model["output"].weight = model["embedding"].weight
    could_turn = choosing(monkeypatch, Choice(decode=True))
    choose_kernels(model)
    assert could_turn == [False]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: layer().to(torch.bfloat16), id="another dtype"),
        pytest.param(lambda: layer().to("meta"), id="another device"),
        pytest.param(lambda: type("Quantized", (nn.Linear,), {})(24, 40), id="a kind of its own"),
    ],
)
def test_other_layers_are_left_alone(make: Callable[[], nn.Linear]) -> None:
    other = make()
    model = nn.Sequential(other)
    assert choose_kernels(model) == {}
    assert model[0] is other


def test_nothing_changes_where_torch_is_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, Choice())
    own = layer()
    model = nn.Sequential(own)
    choose_kernels(model)
    assert model[0] is own


def test_what_takes_least_time_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    seconds = {False: 5, True: 3}

    def compute(by_onednn: bool) -> Tensor:
        for _ in range(seconds[by_onednn]):
            next(clock)
        return torch.zeros(1)

    monkeypatch.setattr(linear.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(linear, "_onednn", lambda *_: compute(by_onednn=True))
    monkeypatch.setattr(linear.nn.functional, "linear", lambda *_: compute(by_onednn=False))
    assert measured_choice([torch.ones(2, 2)]) == Choice(
        by_columns=False, decode=True, batch=True, prefill=True
    )


def test_a_real_measurement_chooses_what_computes_the_same() -> None:
    own = layer(128, 256)
    expected = own(torch.ones(1, 1, 128))
    choice = measured_choice([own.weight.data])
    with torch.inference_mode():
        torch.testing.assert_close(ChosenLinear.sharing(own, choice)(torch.ones(1, 1, 128)), expected)


@pytest.mark.parametrize(
    ("decode", "batch", "prefill", "choice"),
    [
        pytest.param([1, 1, 1, 1], SAME, SAME, Choice(), id="all the same"),
        pytest.param([1, 0.97, 0.96, 1], SAME, [1, 0.97, 1, 1], Choice(), id="hardly faster"),
        pytest.param([1, 1, 0.5, 0.6], SAME, SAME, Choice(by_columns=True), id="turned"),
        pytest.param(
            [1, 1, 0.6, 0.5], SAME, [1, 1, 1, 0.5], Choice(True, True, False, True), id="turned, by oneDNN"
        ),
        pytest.param(
            [1, 0.7, 0.5, 0.6], SAME, [1, 1, 2, 2], Choice(decode=True), id="turned, and slow in prefill"
        ),
        pytest.param(
            [1, 1, 0.9, 1], [1, 0.5, 2, 2], SAME, Choice(batch=True), id="turned, and slow in batches"
        ),
        pytest.param([1, 1], [1, 1], [1, 0.5], Choice(prefill=True), id="may not be turned"),
    ],
)
def test_the_choice_is_the_fastest_that_is_worth_it(
    decode: list[float], batch: list[float], prefill: list[float], choice: Choice
) -> None:
    ways = [
        linear._Way(by_columns, by_onednn, ()) for by_columns in (False, True) for by_onednn in (False, True)
    ]
    assert linear._decide(ways[: len(decode)], decode, batch, prefill) == choice


def test_huge_weights_are_not_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAX_TURNED_BYTES", 100)
    monkeypatch.setattr(linear, "_by_columns", lambda _: pytest.fail("a copy was made"))
    measured_choice([torch.ones(8, 8)])


@pytest.mark.parametrize(
    "config", [llama(), llama(tie_word_embeddings=True), mistral()], ids=["llama", "tied", "mistral"]
)
@pytest.mark.parametrize("choice", [EVERYTHING, Choice(decode=True)], ids=str)
def test_a_model_computes_the_same_whatever_was_chosen(
    config: PreTrainedConfig, choice: Choice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing(monkeypatch, choice)
    source = ModelSource.open(save(config, tmp_path))
    ids = torch.arange(1, 9)[None]
    logits: list[Tensor] = []
    for kernels in KERNELS:
        options = LoadOptions(kernels=kernels)
        head = HeadModel.load(source, options)
        span = SpanModel.load(source, 0, source.block_count, options)
        cache = span.new_cache()
        span.forward(head.embed(ids), cache)
        logits.append(head.logits(span.forward(head.embed(ids[:, :1], position=8), cache)))
        chosen = [one for one in span._decoder.modules() if isinstance(one, ChosenLinear)]
        assert len(chosen) == (7 * source.block_count if kernels == "fastest" else 0)
    torch.testing.assert_close(*logits)
