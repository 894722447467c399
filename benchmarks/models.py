"""Random Llamas to measure with, made on the spot: config, weights, and a tokenizer that shows token ids.

The tokenizer's token `i` reads `i `, so that two runs' texts are equal just when their tokens are.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corolla.models.random_weights import number_tokenizer

SEED = 7


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama."""

    hidden: int
    blocks: int
    intermediate: int
    heads: int
    vocabulary: int
    context: int = 2048
    kv_heads: int | None = None
    """None: as many as heads."""


TINY = Shape(hidden=64, blocks=12, intermediate=172, heads=4, vocabulary=512)
SMALL = Shape(hidden=512, blocks=16, intermediate=1376, heads=8, vocabulary=32_000)
"""83 million parameters."""


def make_llama(folder: Path, shape: Shape) -> Path:
    """A random Llama in fp32 with its tokenizer; it never ends a reply by itself."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    number_tokenizer(shape.vocabulary).save_pretrained(folder)
    return folder


def prompt_ids(length: int, vocabulary: int) -> list[int]:
    """A prompt of random tokens, the same every time."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(vocabulary, (length,), generator=generator).tolist()
