"""The demonstration model for training: the Llama architecture in plain PyTorch.

Its parameters are named as transformers names them, so its state dict is a `LlamaForCausalLM` checkpoint. A
test checks that both give the same logits.

Why not train the transformers class itself: here attention takes the packed rows' document mask through flex
attention, and each block compiles once for all twelve.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
"""Attention of query [batch, heads, length, head_dim] over key and value [batch, kv_heads, …] under a mask
of its own kind.
"""


def demo_config(**changes: Any) -> LlamaConfig:
    """The demonstration model's configuration: 12 blocks, 7.9 million parameters."""
    values: dict[str, Any] = {
        "vocab_size": 3072,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaConfig(**(values | changes))


def rotary(length: int, head_dim: int, device: torch.device, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding (Su et al., 2021), each [length, head_dim], halves repeated."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] / base**steps
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, config: LlamaConfig, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        width = config.hidden_size
        self.head_dim = width // config.num_attention_heads
        key_width = self.head_dim * (config.num_key_value_heads or config.num_attention_heads)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, key_width, bias=False)
        self.v_proj = nn.Linear(width, key_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = self.attend(_rotated(q, cos, sin), _rotated(k, cos, sin), v, mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, config: LlamaConfig, attend: Attend) -> None:
        super().__init__()
        self.self_attn = Attention(config, attend)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, config: LlamaConfig, attend: Attend) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, attend) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class DemoModel(nn.Module):
    """The whole model; the output projection is the embedding. `attend` says how attention is computed."""

    def __init__(self, config: LlamaConfig, attend: Attend) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config, attend)
        deep = 1 / (2 * config.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(
                    parameter,
                    std=0.02 * (deep if name.endswith(("o_proj.weight", "down_proj.weight")) else 1),
                )

    def forward(self, tokens: Tensor, labels: Tensor, mask: Any) -> Tensor:
        """Mean cross-entropy over the positions whose label is not negative. `tokens`, `labels`: [batch,
        length].
        """
        return F.cross_entropy(
            self.logits(tokens, mask).flatten(0, 1).float(), labels.flatten(), ignore_index=-100
        )

    def logits(self, tokens: Tensor, mask: Any) -> Tensor:
        """Scores of the next token, [batch, length, vocabulary]."""
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        cos, sin = rotary(tokens.shape[1], head_dim, tokens.device)
        x = self.model.embed_tokens(tokens)
        for block in self.model.layers:
            x = block(x, cos, sin, mask)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
