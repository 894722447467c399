"""Tiny checkpoints on disk, made as `save_pretrained` makes them."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def llama(**options: Any) -> LlamaConfig:
    return LlamaConfig(**{**TINY, **options})


def mistral(sliding_window: int = 8) -> MistralConfig:
    return MistralConfig(**{**TINY, "sliding_window": sliding_window})


def gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=97, n_embd=32, n_layer=6, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    )


def save(
    config: PreTrainedConfig, folder: Path, shard: str = "40KB", dtype: torch.dtype = torch.float32
) -> str:
    """Random weights in shards of at most `shard`; returns the folder's name."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    return str(folder)
