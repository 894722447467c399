"""corolla/models/random_weights.py: a config alone makes a model, the same one everywhere, and no other."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, LlamaConfig, MixtralConfig, PreTrainedConfig

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel, describe
from corolla.models.random_weights import RandomWeights
from tests.corolla.models.checkpoints import TINY, llama, mistral, save

BLOOM = BloomConfig(vocab_size=97, hidden_size=64, n_layer=4, n_head=4)
MIXTRAL = MixtralConfig(**{**TINY, "num_local_experts": 4, "num_experts_per_tok": 2})
CONFIGS = [llama(), llama(tie_word_embeddings=True), mistral(), BLOOM, MIXTRAL]


def config_alone(config: PreTrainedConfig, folder: Path) -> str:
    config.save_pretrained(folder)
    return str(folder)


def logits(folder: str, cuts: tuple[int, ...]) -> torch.Tensor:
    """Of a prompt and one more token, through spans of a source of its own."""
    source = RandomWeights.open(folder)
    head = HeadModel.load(source)
    spans = [SpanModel.load(source, *span) for span in pairwise((*cuts, source.block_count))]
    caches = [span.new_cache() for span in spans]
    for ids, position in ((torch.arange(1, 9)[None], 0), (torch.tensor([[5]]), 8)):
        hidden = head.embed(ids, position=position)
        for span, cache in zip(spans, caches, strict=True):
            hidden = span.forward(hidden, cache)
    return head.logits(hidden)


@pytest.mark.parametrize("config", CONFIGS, ids=["llama", "tied", "mistral", "bloom", "mixtral"])
def test_a_config_alone_is_the_same_model_in_every_process(config: PreTrainedConfig, tmp_path: Path) -> None:
    folder = config_alone(config, tmp_path)
    whole = logits(folder, (0,))
    assert whole.isfinite().all()
    assert whole.std() > 0
    assert torch.equal(logits(folder, (0, 1, 3)), whole)


@pytest.mark.parametrize("config", [llama(tie_word_embeddings=True), BLOOM], ids=["llama", "bloom"])
def test_tied_weights_are_one_tensor_and_take_its_memory_once(
    config: PreTrainedConfig, tmp_path: Path
) -> None:
    source = RandomWeights.open(config_alone(config, tmp_path))
    assert "lm_head.weight" not in source.tensor_names()
    assert HeadModel.load(source).weights.nbytes == describe(source, torch.float32).head_bytes


def test_blocks_are_not_all_alike(tmp_path: Path) -> None:
    source = RandomWeights.open(config_alone(llama(), tmp_path))
    names = [f"model.layers.{block}.mlp.up_proj.weight" for block in (0, 1)]
    one, other = source.read(names).values()
    assert not torch.equal(one, other)


def test_noise_is_never_taken_for_the_model_itself(tmp_path: Path) -> None:
    folder = save(llama(), tmp_path)
    real, noise = ModelSource.open(folder), RandomWeights.open(folder)
    assert describe(real, torch.float32).digest != describe(noise, torch.float32).digest
    assert noise.digest == RandomWeights.open(folder).digest


def test_weights_come_in_the_dtype_of_the_config(tmp_path: Path) -> None:
    source = RandomWeights.open(config_alone(llama(dtype=torch.bfloat16), tmp_path))
    (weight,) = source.read(["model.layers.0.mlp.up_proj.weight"]).values()
    assert weight.dtype is torch.bfloat16
    assert weight.float().std().item() == pytest.approx(0.02, rel=0.1)


def test_what_is_read_is_counted(tmp_path: Path) -> None:
    source = RandomWeights.open(config_alone(llama(), tmp_path))
    told: list[tuple[int, int]] = []
    span = SpanModel.load(source, 0, 2, progress=lambda done, total: told.append((done, total)))
    done, total = told[-1]
    assert done == total == 4 * sum(span.weights.parameters.values())


def test_quantization_goes_the_usual_way(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    config = LlamaConfig(**{**TINY, "hidden_size": 64, "intermediate_size": 128})
    source = RandomWeights.open(config_alone(config, tmp_path))
    span = SpanModel.load(source, 0, 1, LoadOptions(quantization="nf4"))
    assert span.weights.quantized_share > 0.9
