"""The shipped model, loaded once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from examples.demo_model.evaluate import SHIPPED, load


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The folder of the shipped model."""
    return SHIPPED


@pytest.fixture(scope="session")
def demo(shipped: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    """The shipped model in fp32 on the CPU, and its tokenizer."""
    torch.set_num_threads(1)
    return load(shipped, "cpu")
