"""Which model families are served, and what each can do: one table, and nothing else knows family names.

A family is served only if it has a row here, and it may have a row only if `tests/volunteer/test_families.py`
has a configuration for it and passes: spans in a chain must give what the whole model gives, bit for bit.
To add one: add its row, add a tiny configuration there, run that test, and set the capabilities
to what it shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedConfig

from corolla.models.errors import FamilyRefused


@dataclass(frozen=True)
class Requirement:
    """A config attribute that must be absent, None or zero."""

    attribute: str
    reason: str


class Batching(Enum):
    """How one token of each of several sequences is computed at once; see `corolla/models/batching.py`."""

    RAGGED = "ragged"
    PADDED = "padded"
    ONE_BY_ONE = "one by one"
    """Not at once: a recurrent state, or attention that is only right for a sequence alone."""


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    model_type: str
    can_roll_back: bool = True
    """Whether a cache can forget its last tokens: not where a recurrent state keeps no history."""
    can_chunk_prefill: bool = True
    """Whether several tokens may be appended to a cache that is not empty."""
    blocks_return_tuples: bool = False
    """Whether the decoder takes the first element of what a block returns."""
    masks_first_pass_only: bool = False
    """Whether the padding mask is for the prompt alone, and would be misread beside a single token."""
    batching: Batching = Batching.RAGGED
    takes_views: bool = True
    """Whether attention takes keys and values that are not contiguous, as a pool gives them."""
    requires_none: tuple[Requirement, ...] = ()


# fmt: off
ATTENTION = (
    "afmoe", "apertus", "arcee", "cohere", "cohere2", "cohere2_moe", "cwm", "dots1", "ernie4_5",
    "ernie4_5_moe", "exaone4", "exaone_moe", "flex_olmo", "gemma", "gemma2", "gemma3_text", "glm",
    "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "granite", "granite_swa",
    "granitemoe", "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3",
    "hyperclovax", "jais2", "llama", "mimo_v2_flash", "minimax_m2", "ministral", "ministral3",
    "mistral", "mixtral", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon",
    "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3",
    "solar_open", "stablelm", "starcoder2", "vaultgemma",
)
# fmt: on
"""Attention in every block, with nothing special."""

OWN_ATTENTION = (
    *("deepseek_v2", "deepseek_v3", "diffllama", "doge", "glm4_moe_lite", "llama4_text", "minicpm3"),
    *("xglm", "youtu"),
)
"""The same, in code that works on keys and values, or masks, itself."""

OLDER_ATTENTION = ("bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt")
"""The same, in code whose blocks return tuples."""

RECURRENT = (
    *("granitemoehybrid", "kimi_linear", "lfm2", "lfm2_moe", "mamba2", "nemotron_h", "olmo_hybrid"),
    *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"),
)
"""Blocks with a recurrent or convolutional state, which can be continued with any number of tokens."""

_PER_LAYER_EMBEDDINGS = Requirement(
    "hidden_size_per_layer_input",
    "its blocks take embeddings of the tokens themselves, which a span does not see",
)
_SHARED_KV = Requirement("num_kv_shared_layers", "its last blocks read the keys and values of earlier ones")

_ROWS = (
    *(Family(name) for name in ATTENTION),
    *(Family(name, batching=Batching.PADDED) for name in OWN_ATTENTION),
    *(Family(name, blocks_return_tuples=True, batching=Batching.PADDED) for name in OLDER_ATTENTION),
    Family("gpt_neox_japanese", blocks_return_tuples=True, batching=Batching.PADDED, takes_views=False),
    *(Family(name, can_roll_back=False, batching=Batching.ONE_BY_ONE) for name in RECURRENT),
    Family("bamba", can_roll_back=False, blocks_return_tuples=True, batching=Batching.ONE_BY_ONE),
    # With more than one token these start from an empty state, whatever the cache holds.
    *(
        Family(
            name,
            can_roll_back=False,
            can_chunk_prefill=False,
            masks_first_pass_only=True,
            batching=Batching.ONE_BY_ONE,
        )
        for name in ("falcon_mamba", "mamba")
    ),
    Family("jamba", can_roll_back=False, can_chunk_prefill=False, batching=Batching.ONE_BY_ONE),
    # Its sparse attention picks tokens by a score, and ties fall out differently in chunks of another length.
    Family("deepseek_v32", can_chunk_prefill=False, batching=Batching.ONE_BY_ONE),
    Family("gemma4_text", requires_none=(_PER_LAYER_EMBEDDINGS, _SHARED_KV)),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({row.model_type: row for row in _ROWS})
"""Every family that is served, by the `model_type` of its config."""

WITH_TEXT_MODEL = frozenset({"gemma3", "gemma4", "llama4", "mistral3", "qwen3_5", "qwen3_5_moe"})
"""Multi-modal wrappers whose text model is served alone; what it is, its own config says."""

TEXT_MODEL_PREFIXES = (
    (r"^(model\.)?language_model\.model\.", "model."),
    (r"^(model\.)?language_model\.lm_head\.", "lm_head."),
    (r"^model\.language_model\.", "model."),
)
"""How wrappers name the tensors of their text model, and its own names for them."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "deepseek_v4": "its blocks hand on several streams of hidden states",
        "falcon_h1": "its decoder changes buffers inside the blocks in every pass",
        "gemma3n": "its blocks take embeddings of the tokens themselves, which a span does not see",
        "gemma3n_text": "its blocks take embeddings of the tokens themselves, which a span does not see",
        "glm_moe_dsa": "its blocks hand their choice of tokens to the next block",
        "longcat_flash": "its blocks have two attention layers each, and the cache counts layers",
        "minimax": "it has a cache of its own kind",
        "mllama": "its blocks attend to an image that a span does not see",
        "recurrent_gemma": "it keeps its recurrent state in the weights, not in a cache of the session",
        "rwkv": "it has a cache of its own kind",
        "xlstm": "it has a cache of its own kind",
        "zamba": "its blocks share weights and read the first embeddings",
        "zamba2": "its blocks share weights and read the first embeddings",
    }
)
"""Families that are known not to work in spans, and why."""

_REMEDY = "The table in corolla/models/families.py lists what is served, and says how to add a family."


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the text model: of a known wrapper its inner one, else `config` itself."""
    if config.model_type not in WITH_TEXT_MODEL:
        return config
    text = config.get_text_config(decoder=True)
    # Some wrappers own the output projection, and say only in their own config that it is tied.
    text.tie_word_embeddings = text.tie_word_embeddings or config.tie_word_embeddings
    text.dtype = text.dtype or config.dtype
    return text


def family_of(config: PreTrainedConfig) -> Family:
    """The row for a text model's config; raises `FamilyRefused` with the reason if it has none."""
    model_type = config.model_type
    family = FAMILIES.get(model_type)
    if family is not None:
        _check_requirements(config, family)
        return family
    if model_type in REFUSED:
        reason = REFUSED[model_type]
    elif getattr(config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder, and only decoders are split into spans"
    else:
        reason = "no test shows that it is exact in spans"
    raise FamilyRefused(f"Models of type {model_type} are not served: {reason}. {_REMEDY}")


def _check_requirements(config: PreTrainedConfig, family: Family) -> None:
    for requirement in family.requires_none:
        value: Any = getattr(config, requirement.attribute, None)
        if value:
            raise FamilyRefused(
                f"Models of type {family.model_type} with {requirement.attribute}={value} are not served: "
                f"{requirement.reason}. {_REMEDY}"
            )
