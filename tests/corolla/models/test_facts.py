"""What a model costs, from its config and tensor names alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import DeepseekV3Config, GPT2Config, LlamaConfig, PreTrainedConfig, Qwen3NextConfig

from corolla.models import CheckpointBroken, ModelSource, describe
from corolla.models.cache import ROLLBACK_TOKENS
from corolla.models.source import INDEX
from tests.corolla.models.checkpoints import gpt2, llama, mistral, save


def without_weights(config: PreTrainedConfig, folder: Path) -> str:
    """A checkpoint of which only the config and an index are there."""
    config.save_pretrained(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": "model-1.safetensors"}}))
    return str(folder)


def test_no_weights_are_read(tmp_path: Path) -> None:
    whole = Path(save(llama(), tmp_path / "whole"))
    bare = tmp_path / "bare"
    shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    theirs, ours = (describe(ModelSource.open(str(f)), torch.float32) for f in (whole, bare))
    assert theirs.digest == ours.digest
    assert theirs.block_bytes == ours.block_bytes


def test_a_large_model_is_described_by_its_published_sizes(tmp_path: Path) -> None:
    """Llama 3.1 405B: 405.85 billion parameters, 126 blocks, eight KV heads of 128 in 16 bits."""
    config = LlamaConfig(
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
    )
    facts = describe(ModelSource.open(without_weights(config, tmp_path)), torch.bfloat16)
    assert sum(facts.block_parameters) + facts.head_parameters == 405_853_388_800
    assert facts.block_bytes == (2 * facts.block_parameters[0],) * 126
    assert facts.kv_bytes_per_token == (2 * 8 * 128 * 2,) * 126
    assert facts.state_bytes == (0,) * 126
    assert facts.max_position == 131072
    assert (facts.hidden_size, facts.vocab_size, facts.dtype) == (16384, 128256, "bfloat16")


def test_latent_attention_is_described_as_it_is_cached(tmp_path: Path) -> None:
    """DeepSeek V3: a latent of 512 numbers for all heads, and 64 with the positions."""
    facts = describe(ModelSource.open(without_weights(DeepseekV3Config(), tmp_path)), torch.bfloat16)
    assert sum(facts.block_parameters) + facts.head_parameters == pytest.approx(671e9, rel=1e-3)
    assert facts.kv_bytes_per_token == ((512 + 64) * 2,) * 61
    assert facts.block_bytes[0] < facts.block_bytes[3]


def test_a_sliding_window_has_a_limit(tmp_path: Path) -> None:
    facts = describe(ModelSource.open(without_weights(mistral(sliding_window=8), tmp_path)), torch.float32)
    assert facts.kv_tokens_at_most == (7 + 2 * ROLLBACK_TOKENS,) * 6


def test_full_attention_has_no_limit(tmp_path: Path) -> None:
    facts = describe(ModelSource.open(without_weights(llama(), tmp_path)), torch.float32)
    assert facts.kv_tokens_at_most == (None,) * 6


def test_recurrent_blocks_have_a_state_and_no_growth(tmp_path: Path) -> None:
    config = Qwen3NextConfig(hidden_size=64, num_hidden_layers=4, vocab_size=97, num_experts=16)
    facts = describe(ModelSource.open(without_weights(config, tmp_path)), torch.bfloat16)
    assert [size > 0 for size in facts.state_bytes] == [True, True, True, False]
    assert [size > 0 for size in facts.kv_bytes_per_token] == [False, False, False, True]
    assert (facts.can_roll_back, facts.can_chunk_prefill) == (False, True)


def test_tied_embeddings_count_once(tmp_path: Path) -> None:
    tied, untied = (
        describe(ModelSource.open(without_weights(llama(tie_word_embeddings=t), tmp_path)), torch.float32)
        for t in (True, False)
    )
    assert untied.head_parameters - tied.head_parameters == 97 * 32


def test_a_config_whose_numbers_do_not_go_together_is_refused(tmp_path: Path) -> None:
    config = Qwen3NextConfig(hidden_size=64, num_hidden_layers=4, vocab_size=97, num_experts=2)
    with pytest.raises(CheckpointBroken, match="makes no model"):
        describe(ModelSource.open(without_weights(config, tmp_path)), torch.bfloat16)


def test_learned_positions_belong_to_the_head(tmp_path: Path) -> None:
    config: GPT2Config = gpt2()
    facts = describe(ModelSource.open(without_weights(config, tmp_path)), torch.float32)
    assert facts.head_parameters == 97 * 32 + 64 * 32 + 2 * 32
    assert facts.max_position == 64
