"""A tiny configuration for every family that is served: six blocks, so that layer patterns show.

A row of `corolla.models.families.FAMILIES` without a case fails a test, and so does a case without a row.
"""

from dataclasses import dataclass, field
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 97
BLOCKS = 6

BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
"""Set in every config that has the attribute, where the case does not say otherwise."""


@dataclass(frozen=True)
class Case:
    """One configuration of one family."""

    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    without: tuple[str, ...] = ()
    """Attributes of `BASE` that this config does not take."""

    def __str__(self) -> str:
        return f"{self.model_type}-{self.variant}" if self.variant else self.model_type

    def config(self) -> PreTrainedConfig:
        config_class = CONFIG_MAPPING[self.model_type]
        known = config_class()
        base = {k: v for k, v in BASE.items() if k not in self.without and hasattr(known, k)}
        return config_class(**{**base, **self.options})


def case(model_type: str, *groups: dict[str, Any], variant: str = "", **options: Any) -> Case:
    merged: dict[str, Any] = {}
    for group in (*groups, options):
        merged.update(group)
    return Case(model_type, merged, variant)


def layers(*pattern: str) -> dict[str, Any]:
    return {"layer_types": [*pattern] * (BLOCKS // len(pattern))}


SLIDING = {"sliding_window": 8}
TWO_SLIDING_ONE_FULL = SLIDING | layers("sliding_attention", "sliding_attention", "full_attention")
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED_EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
}
GROUPED_EXPERTS = ROUTED_EXPERTS | {"n_group": 2, "first_k_dense_replace": 1}
LATENT_ATTENTION = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
DELTA_NET = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MAMBA_HEADS = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
}
SHORT_CONV = layers("conv", "full_attention", "conv")
OLD_FALCON = {"new_decoder_architecture": False, "multi_query": True}

ATTENTION_CASES = [
    case("afmoe", TWO_SLIDING_ONE_FULL, EXPERTS, num_shared_experts=1, num_dense_layers=1),
    case("apertus"),
    case("arcee"),
    case("cohere"),
    case("cohere2", TWO_SLIDING_ONE_FULL),
    case("cohere2_moe", TWO_SLIDING_ONE_FULL, num_experts=4, num_experts_per_tok=2),
    case("cwm", TWO_SLIDING_ONE_FULL),
    case("deepseek_v2", LATENT_ATTENTION, ROUTED_EXPERTS, first_k_dense_replace=1, topk_method="greedy"),
    case("deepseek_v3", LATENT_ATTENTION, GROUPED_EXPERTS),
    case("deepseek_v32", LATENT_ATTENTION, GROUPED_EXPERTS, index_n_heads=2, index_head_dim=8, index_topk=8),
    case("diffllama"),
    case("doge"),
    case("dots1", GROUPED_EXPERTS),
    case("ernie4_5"),
    case(
        "ernie4_5_moe",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
    ),
    case("exaone4", TWO_SLIDING_ONE_FULL),
    case(
        "exaone_moe",
        TWO_SLIDING_ONE_FULL,
        EXPERTS,
        {"num_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    ),
    case("flex_olmo", num_experts=4, num_experts_per_tok=2),
    case("gemma"),
    case("gemma2", SLIDING),
    case("gemma3_text", TWO_SLIDING_ONE_FULL),
    Case(
        "gemma4_text",
        TWO_SLIDING_ONE_FULL
        | {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "global_head_dim": 16}
        | {"head_dim": 8},
        without=("head_dim",),
    ),
    case("glm"),
    case("glm4"),
    case("glm4_moe", ROUTED_EXPERTS, first_k_dense_replace=1),
    case("glm4_moe_lite", LATENT_ATTENTION, ROUTED_EXPERTS),
    case("gpt2", n_positions=256),
    case("gpt_bigcode", n_positions=256),
    case("gpt_neox"),
    case("gpt_oss", SLIDING, LOCAL_EXPERTS),
    case("granite", embedding_multiplier=2.0, logits_scaling=3.0, residual_multiplier=0.5),
    case("granite_swa", SLIDING),
    case("granitemoe", LOCAL_EXPERTS),
    case("granitemoeshared", LOCAL_EXPERTS, shared_intermediate_size=24),
    case("helium"),
    case("hunyuan_v1_dense"),
    case("hunyuan_v1_moe", num_experts=4, moe_topk=2),
    case("hy_v3", EXPERTS),
    case("hyperclovax"),
    case("jais2"),
    case("llama"),
    case("llama", variant="tied", tie_word_embeddings=True),
    case(
        "llama4_text",
        {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48},
        attention_chunk_size=8,
        interleave_moe_layer_step=2,
    ),
    case(
        "mimo_v2_flash",
        SLIDING,
        ROUTED_EXPERTS,
        {"v_head_dim": 8, "swa_head_dim": 8, "swa_v_head_dim": 8},
        swa_num_attention_heads=4,
        swa_num_key_value_heads=2,
    ),
    case("minicpm3", LATENT_ATTENTION),
    case("minimax_m2", LOCAL_EXPERTS),
    case("ministral", SLIDING),
    case("ministral3"),
    case("mistral", SLIDING),
    case("mixtral", LOCAL_EXPERTS),
    case("nanochat"),
    case("nemotron"),
    case("olmo"),
    case("olmo2"),
    case("olmo3", TWO_SLIDING_ONE_FULL),
    case("olmoe", num_experts=4, num_experts_per_tok=2),
    case("opt", ffn_dim=48, word_embed_proj_dim=32),
    case("opt", variant="narrow", ffn_dim=48, word_embed_proj_dim=24, do_layer_norm_before=False),
    case("persimmon"),
    case("phi"),
    case("phi3"),
    case("phimoe", LOCAL_EXPERTS),
    case("qwen2"),
    case("qwen2", variant="sliding", use_sliding_window=True, sliding_window=8, max_window_layers=2),
    case("qwen2_moe", EXPERTS, shared_expert_intermediate_size=24),
    case("qwen3"),
    case("qwen3_moe", EXPERTS),
    case("seed_oss"),
    case("smollm3"),
    case("solar_open", ROUTED_EXPERTS),
    case("stablelm"),
    case("starcoder2"),
    case("vaultgemma", SLIDING),
    case("xglm", d_model=32, ffn_dim=48, num_layers=BLOCKS, attention_heads=4),
    case("youtu", LATENT_ATTENTION),
]

OLDER_ATTENTION_CASES = [
    case("bloom"),
    case("codegen", rotary_dim=4, n_positions=256, n_ctx=256),
    Case("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, "rotary", ("head_dim",)),
    Case("falcon", OLD_FALCON | {"alibi": True}, "alibi", ("head_dim",)),
    Case("falcon", OLD_FALCON | {"alibi": False}, "multi-query", ("head_dim",)),
    case("gpt_neo", attention_types=[[["global", "local"], 3]], window_size=8),
    case("gpt_neox_japanese"),
    case("gptj", rotary_dim=4, n_positions=256),
    case("mpt", d_model=32, n_heads=4, n_layers=BLOCKS, max_seq_len=256),
]

RECURRENT_CASES = [
    case("bamba", MAMBA_HEADS, attn_layer_indices=[1, 4], num_logits_to_keep=0),
    case("falcon_mamba", state_size=8, time_step_rank=4),
    case(
        "granitemoehybrid",
        LOCAL_EXPERTS,
        MAMBA_HEADS,
        layers("mamba", "attention", "mamba"),
        shared_intermediate_size=24,
    ),
    case(
        "jamba",
        {
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        {"num_experts": 4, "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1},
        attn_layer_period=3,
        attn_layer_offset=1,
    ),
    case(
        "kimi_linear",
        LATENT_ATTENTION | {"q_lora_rank": None},
        LOCAL_EXPERTS,
        layers("linear_attention", "linear_attention", "full_attention"),
        moe_intermediate_size=16,
        linear_head_dim=8,
        linear_num_heads=4,
    ),
    case("lfm2", SHORT_CONV, block_ff_dim=48, block_multiple_of=8),
    case("lfm2_moe", SHORT_CONV, EXPERTS, num_dense_layers=1),
    case("mamba", state_size=8, time_step_rank=4),
    case("mamba2", num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=4, expand=2),
    case(
        "nemotron_h",
        {
            "layers_block_type": ["mamba", "attention", "moe"] * 2,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
        },
        {"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8, "chunk_size": 4},
        moe_intermediate_size=16,
        moe_shared_expert_intermediate_size=16,
        num_logits_to_keep=0,
    ),
    case("olmo_hybrid", DELTA_NET, layers("linear_attention", "linear_attention", "full_attention")),
    case("qwen3_5_moe_text", DELTA_NET, EXPERTS, shared_expert_intermediate_size=24),
    case("qwen3_5_text", DELTA_NET),
    case("qwen3_next", DELTA_NET, EXPERTS, shared_expert_intermediate_size=24),
]

CASES = [*ATTENTION_CASES, *OLDER_ATTENTION_CASES, *RECURRENT_CASES]

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
QWEN_TOKENS = {
    "image_token_id": 1090,
    "video_token_id": 1091,
    "vision_start_token_id": 1092,
    "vision_end_token_id": 1093,
}

WRAPPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": (
        "gemma3_text",
        {
            "vision_config": VISION | {"model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "image_token_index": 1090,
            "boi_token_index": 1091,
            "eoi_token_index": 1092,
        },
    ),
    "gemma4": (
        "gemma4_text",
        {
            "vision_config": VISION | {"num_key_value_heads": 4, "head_dim": 8},
            "image_token_id": 1090,
            "audio_token_id": 1091,
            "video_token_id": 1092,
        },
    ),
    "llama4": (
        "llama4_text",
        {
            "vision_config": VISION
            | {"model_type": "llama4_vision_model", "vision_output_dim": 32}
            | {"projector_input_dim": 32, "projector_output_dim": 32},
            "image_token_index": 1090,
        },
    ),
    "mistral3": ("mistral", {"vision_config": VISION | {"model_type": "pixtral"}, "image_token_index": 1090}),
    "qwen3_5": ("qwen3_5_text", {"vision_config": QWEN_VISION, **QWEN_TOKENS}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {"vision_config": QWEN_VISION, **QWEN_TOKENS}),
}
"""Multi-modal models: the type of their text model, and the rest of their config.

The special tokens are outside the vocabulary, so that no reply of random weights contains one.
"""


def wrapper_config(model_type: str) -> PreTrainedConfig:
    text_type, options = WRAPPERS[model_type]
    text = next(case for case in CASES if case.model_type == text_type).config()
    config = CONFIG_MAPPING[model_type](**{"text_config": text.to_dict(), **options})
    config.pad_token_id = 0
    return config
