"""A Llama with random weights, small enough for a test, as files on disk and as a loaded span."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corolla.models.facts import ModelFacts, describe
from corolla.models.loading import LoadOptions
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel

BLOCKS = 3
HIDDEN = 32
CONTEXT = 128
KV_BYTES_PER_TOKEN = 2 * 2 * 8 * 4
"""Of one block: keys and values of two heads with eight float32 numbers each."""


def tiny_source(folder: Path) -> ModelSource:
    """Writes the model into `folder` and opens it."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return ModelSource.open(str(folder))


def tiny_span(source: ModelSource, start: int = 0, end: int = BLOCKS) -> SpanModel:
    return SpanModel.load(source, start, end, LoadOptions(dtype=torch.float32))


def tiny_facts(source: ModelSource) -> ModelFacts:
    return describe(source, torch.float32)
