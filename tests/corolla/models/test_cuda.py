"""On a GPU a chain of spans is the whole model too. CI has none: run this where there is one."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel
from tests.corolla.models.checkpoints import llama, save

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

PROMPT = [[5, 6, 7, 8, 9]]
NEW_TOKENS = 16


def chain_tokens(head: HeadModel, spans: list[SpanModel], ids: Tensor) -> list[int]:
    """A greedy reply over spans in a chain."""
    caches = [span.new_cache() for span in spans]
    tokens: list[int] = []
    while len(tokens) < NEW_TOKENS:
        hidden = head.embed(ids, caches[0].position)
        for span, cache in zip(spans, caches, strict=True):
            hidden = span.forward(hidden, cache)
        ids = head.logits(hidden)[:, -1].argmax(-1, keepdim=True)
        tokens.append(int(ids))
    return tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_two_spans_on_cuda_give_the_whole_models_greedy_tokens(tmp_path: Path, dtype: torch.dtype) -> None:
    source = ModelSource.open(save(llama(), tmp_path))
    options = LoadOptions(device="cuda", dtype=dtype)
    spans = [SpanModel.load(source, start, end, options) for start, end in pairwise((0, 2, 6))]
    whole = cast(Any, AutoModelForCausalLM.from_pretrained(source.name, dtype=dtype)).eval().to("cuda")
    ids = torch.tensor(PROMPT, device="cuda")
    expected = whole.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :]
    assert chain_tokens(HeadModel.load(source, options), spans, ids) == expected.tolist()
