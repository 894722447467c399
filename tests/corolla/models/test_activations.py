"""Which activations become one kernel, and that they give what they gave."""

import pytest
import torch
from torch import Tensor, nn
from transformers import BloomConfig, GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import BloomGelu

from corolla.models.activations import fuse_activations


class HiddenState(nn.Module):
    """Named as one, and with a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.gelu(input, approximate="tanh") * self.scale


HiddenState.__name__ = "ScaledGELU"


@pytest.mark.parametrize("activation", [BloomGelu(), ACT2FN["gelu_new"], ACT2FN["gelu_fast"]])
def test_a_tangents_gelu_becomes_one_kernel(activation: nn.Module) -> None:
    model = nn.Sequential(activation)
    entering = torch.randn(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = model(entering)
    (slope_before,) = torch.autograd.grad(before.sum(), entering)
    assert fuse_activations(model) == 1
    after = model(entering)
    (slope_after,) = torch.autograd.grad(after.sum(), entering)
    assert type(model[0]) is nn.GELU
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.allclose(slope_before, slope_after, atol=1e-5)


@pytest.mark.parametrize(
    "activation",
    [ACT2FN["gelu"], ACT2FN["quick_gelu"], ACT2FN["gelu_python"], ACT2FN["silu"], HiddenState()],
    ids=lambda module: type(module).__name__,
)
def test_other_activations_stay(activation: nn.Module) -> None:
    model = nn.Sequential(activation)
    assert fuse_activations(model) == 0
    assert model[0] is activation


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2), 2),
        (GPT2Config(vocab_size=64, n_embd=16, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=2), 3),
        (LlamaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2), 0),
    ],
    ids=lambda one: one.model_type if isinstance(one, PreTrainedConfig) else str(one),
)
def test_a_models_blocks_have_them(config: PreTrainedConfig, count: int) -> None:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert fuse_activations(model) == count
