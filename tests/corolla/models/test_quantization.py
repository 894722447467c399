"""What is quantized of which family, and that the sizes before loading are those after it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTBigCodeConfig,
    MixtralConfig,
    OlmoConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
)

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel, describe
from corolla.models.facts import FORMS
from corolla.models.quantization import Quantization
from tests.corolla.models.checkpoints import TINY, llama, save

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)

WIDE: dict[str, Any] = {
    **{name: value for name, value in TINY.items() if name != "pad_token_id"},
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
}
OPTIONS: dict[str, Any] = {"vocab_size": 97, "hidden_size": 128}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": llama(**WIDE),
    "llama with odd shapes": llama(**{**WIDE, "intermediate_size": 200}),
    "bloom": BloomConfig(**OPTIONS, n_layer=4, n_head=4),
    "falcon": FalconConfig(**OPTIONS, num_hidden_layers=4, num_attention_heads=4),
    "gpt2, whose weights lie the other way round": GPT2Config(
        vocab_size=97, n_embd=128, n_layer=4, n_head=4, n_inner=320
    ),
    "gpt_bigcode, with a mask in every span": GPTBigCodeConfig(
        vocab_size=97, n_embd=128, n_layer=4, n_head=4, n_positions=512
    ),
    "mixtral": MixtralConfig(**WIDE, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": Qwen2MoeConfig(
        **WIDE, num_experts=4, moe_intermediate_size=64, shared_expert_intermediate_size=128
    ),
}
SHARES: dict[str, tuple[float, float]] = {
    "llama": (0.998, 0.998),
    "llama with odd shapes": (0.998, 0.389),
    "bloom": (0.992, 0.992),
    "falcon": (0.0, 0.0),
    "gpt2, whose weights lie the other way round": (0.990, 0.990),
    "gpt_bigcode, with a mask in every span": (0.992, 0.992),
    "mixtral": (0.111, 0.111),
    "qwen2_moe": (0.498, 0.497),
}
"""Which part of the parameters is quantized, in int8 and in nf4: neither norms nor fused experts."""


@pytest.fixture(scope="module", params=CONFIGS)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ModelSource]:
    folder = tmp_path_factory.mktemp("family")
    return request.param, ModelSource.open(save(CONFIGS[request.param], folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("quantization", FORMS)
def test_a_span_takes_what_was_said_before(
    family: tuple[str, ModelSource], quantization: Quantization, dtype: torch.dtype
) -> None:
    _, source = family
    facts = describe(source, dtype)
    said = facts.span_bytes + sum(facts.block_bytes_in[quantization][1:3])
    span = SpanModel.load(source, 1, 3, LoadOptions(dtype=dtype, quantization=quantization))
    assert span.weights.nbytes == pytest.approx(said, rel=0.01)


def test_every_plain_linear_layer_is_quantized_and_nothing_else(family: tuple[str, ModelSource]) -> None:
    name, source = family
    plain = SpanModel.load(source, 0, 2).weights
    for quantization, share in zip(("int8", "nf4"), SHARES[name], strict=True):
        weights = SpanModel.load(source, 0, 2, LoadOptions(quantization=quantization)).weights
        assert sum(weights.parameters.values()) == sum(plain.parameters.values())
        assert weights.quantized_share == pytest.approx(share, abs=0.001)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_what_is_quantized_does_not_depend_on_where_a_span_ends(
    tmp_path: Path, quantization: Quantization
) -> None:
    """A block of OLMo ends with a linear layer, which the library leaves as it is at the end of a model."""
    source = ModelSource.open(save(OlmoConfig(**WIDE, pad_token_id=0), tmp_path))
    for end in (1, 2):
        span = SpanModel.load(source, 0, end, LoadOptions(quantization=quantization))
        assert span.weights.quantized_share == 1.0


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["llama", "llama with odd shapes"])
def test_a_head_is_never_quantized(tmp_path: Path, name: str, quantization: Quantization) -> None:
    source = ModelSource.open(save(CONFIGS[name], tmp_path))
    head = HeadModel.load(source, LoadOptions(quantization=quantization))
    assert set(head.weights.parameters) == {"float32"}
    assert head.weights.nbytes == pytest.approx(describe(source, torch.float32).head_bytes, rel=0.01)


def test_a_large_model_in_four_bits_is_a_quarter_of_it(tmp_path: Path) -> None:
    """Llama 3.1 8B, by its config alone: 4.5 bits a weight, scales included."""
    config = llama(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    facts = describe(ModelSource.open(str(tmp_path)), torch.bfloat16)
    plain, int8, nf4 = (facts.block_bytes_in[form][0] for form in FORMS)
    assert plain == facts.block_bytes[0] == 2 * facts.block_parameters[0]
    assert int8 / facts.block_parameters[0] == pytest.approx(1.0, rel=0.002)
    assert nf4 / facts.block_parameters[0] == pytest.approx(4.5 / 8, rel=0.002)
