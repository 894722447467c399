"""Loading holds what it has loaded and one block more, never the model twice."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig, PreTrainedConfig

from corolla.models.shards import PAGES_AT_MOST
from tests.corolla.models.checkpoints import llama, save

MB = 10**6
SLACK = 16 * MB
"""What Python, torch and bitsandbytes themselves take meanwhile."""
SHAPE: dict[str, Any] = {"vocab_size": 97, "num_attention_heads": 8, "eos_token_id": None, "hidden_size": 512}
DENSE = LlamaConfig(**SHAPE, num_hidden_layers=6, intermediate_size=2048)
"""Blocks of 16.8 MB in fp32, 101 MB together."""
EXPERTS = MixtralConfig(
    **SHAPE, num_hidden_layers=4, intermediate_size=512, num_local_experts=8, num_experts_per_tok=2
)
"""Blocks of 29 MB in fp32, 118 MB together, stored expert by expert and fused while loading."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc here"),
]
needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)


@pytest.fixture(scope="module")
def warm_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(llama(), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(DENSE, tmp_path_factory.mktemp("dense"), "1GB")


@pytest.fixture(scope="module")
def dense_in_16_bits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(DENSE, tmp_path_factory.mktemp("dense16"), "1GB", torch.bfloat16)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(EXPERTS, tmp_path_factory.mktemp("experts"), "1GB")


def loading(*arguments: str) -> dict[str, int]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.corolla.models.loading_peak", *arguments]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("checkpoint", "config", "quantization"),
    [
        pytest.param("dense", DENSE, "none", id="as stored"),
        pytest.param("dense_in_16_bits", DENSE, "int8", id="int8 from 16 bits", marks=needs_accelerate),
        pytest.param("dense_in_16_bits", DENSE, "nf4", id="nf4 from 16 bits", marks=needs_accelerate),
        pytest.param("experts", EXPERTS, "none", id="fused experts"),
        pytest.param("experts", EXPERTS, "nf4", id="fused experts and nf4", marks=needs_accelerate),
    ],
)
def test_at_its_peak_it_is_what_was_loaded_and_a_block(
    checkpoint: str, config: PreTrainedConfig, quantization: str, warm_up: str, request: pytest.FixtureRequest
) -> None:
    seen = loading(warm_up, request.getfixturevalue(checkpoint), "float32", quantization)
    block = block_bytes(config)
    assert seen["weights"] <= seen["own_peak"] + SLACK, "so the weights are in memory and not in the file"
    assert seen["own_peak"] <= seen["weights"] + block + SLACK
    assert seen["own_after"] <= seen["weights"] + SLACK
    assert seen["mapped_peak"] <= PAGES_AT_MOST + block + SLACK
    assert seen["mapped_after"] <= SLACK


def block_bytes(config: PreTrainedConfig) -> int:
    """In fp32, norms and router left out."""
    attention = 4 * config.hidden_size**2
    copies = getattr(config, "num_local_experts", 1)
    return 4 * (attention + 3 * copies * config.hidden_size * config.intermediate_size)
