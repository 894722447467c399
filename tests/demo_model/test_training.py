"""The training code: the model is transformers' Llama, rows are packed as promised, the optimizer is Muon."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from examples.demo_model.attention import attend_densely, dense_mask
from examples.demo_model.chart import draw_loss
from examples.demo_model.model import DemoModel, demo_config
from examples.demo_model.muon import Muon, orthogonal
from examples.demo_model.packing import IGNORED, Packer, Rows
from examples.demo_model.tokenizer import CONTEXT
from examples.demo_model.train import Plan, batches, export


@pytest.fixture(scope="module")
def rows(shipped: Path) -> Rows:
    return Packer(shipped, "test", 4).chunk(0)


def test_the_training_model_is_the_transformers_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = demo_config(num_hidden_layers=2)
    ours = DemoModel(config, attend_densely)
    for parameter in ours.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    export(ours, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, config.vocab_size, (2, 24))
    with torch.no_grad():
        expected = theirs(tokens).logits
        found = ours.half().float().logits(tokens, dense_mask(torch.ones_like(tokens)))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_attention_stays_within_a_document() -> None:
    torch.manual_seed(0)
    model = DemoModel(demo_config(num_hidden_layers=2), attend_densely)
    tokens = torch.randint(0, 3072, (1, 12))
    documents = torch.tensor([[1] * 5 + [2] * 7])
    changed = tokens.clone()
    changed[0, :5] = torch.randint(0, 3072, (5,))
    with torch.no_grad():
        first, second = (model.logits(ids, dense_mask(documents)) for ids in (tokens, changed))
    torch.testing.assert_close(first[0, 5:], second[0, 5:])


def test_rows_are_full_and_repeatable(shipped: Path, rows: Rows) -> None:
    assert rows.tokens.shape == (4, CONTEXT)
    assert (rows.documents != 0).mean() > 0.9
    again = Packer(shipped, "test", 4).chunk(0)
    assert np.array_equal(rows.tokens, again.tokens)
    assert np.array_equal(rows.labels, again.labels)


def test_a_label_is_the_next_token_of_the_same_document(rows: Rows) -> None:
    row, at = np.nonzero(rows.labels != IGNORED)
    assert np.array_equal(rows.labels[row, at], rows.tokens[row, at + 1])
    assert np.array_equal(rows.documents[row, at], rows.documents[row, at + 1])


def test_rows_come_in_order_from_other_processes(shipped: Path) -> None:
    plan = Plan(shipped, steps=3, rows=1, workers=2, device="cpu")
    with batches(plan) as ready:
        found = [chunk.tokens for chunk in ready]
    packer = Packer(shipped, "corolla 1", 1)
    assert all(np.array_equal(tokens, packer.chunk(n).tokens) for n, tokens in enumerate(found))


def test_rates_rise_and_then_fall_to_zero(tmp_path: Path) -> None:
    plan = Plan(tmp_path, steps=1000, rows=1, workers=1, device="cpu")
    assert plan.share_of_rate(0, 0.0) < 0.05
    assert plan.share_of_rate(200, 0.2) == 1
    assert plan.share_of_rate(999, 1.0) == 0


def test_the_update_is_nearly_orthogonal() -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(2, 32, 64)))
    assert 0.5 < singular.min() <= singular.max() < 1.5


def test_muon_lowers_a_loss() -> None:
    torch.manual_seed(0)
    weight, target = torch.nn.Parameter(torch.zeros(8, 8)), torch.randn(8, 8)
    muon = Muon([weight], rate=0.05)
    losses: list[float] = []
    for _ in range(40):
        loss = (weight - target).square().mean()
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("step,tokens,loss\n50,1000,5.0\n100,2000,0.5\n")
    draw_loss(tmp_path / "loss.csv", tmp_path / "loss.svg")
    assert "<polyline" in (tmp_path / "loss.svg").read_text()
