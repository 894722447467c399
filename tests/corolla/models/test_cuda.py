"""On a GPU a chain of spans is the whole model too. CI has none: run this where there is one."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel
from corolla.models.batching import Chunk
from corolla.models.pool import PAGE_TOKENS
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


def test_graphs_give_each_of_several_sequences_its_own_tokens(tmp_path: Path) -> None:
    """Of lengths that need graphs of two sizes, some of them leaving in the middle."""
    source = ModelSource.open(save(llama(), tmp_path))
    options = LoadOptions(device="cuda", dtype=torch.float32)
    span, head = SpanModel.load(source, 0, 6, options), HeadModel.load(source, options)
    prompts = [
        torch.tensor([[5, 6, 7][: 1 + index % 3] * (1 + 9 * index)], device="cuda") for index in range(5)
    ]
    expected = [chain_tokens(head, [span], prompt) for prompt in prompts]
    decoder = span.use_pool(tokens=4096, rows=5, longest=512)
    assert decoder is not None
    caches = [span.new_cache() for _ in prompts]
    last = [
        span.forward(head.embed(prompt), cache)[:, -1:] for prompt, cache in zip(prompts, caches, strict=True)
    ]
    found: list[list[int]] = [[] for _ in prompts]
    for turn in range(NEW_TOKENS):
        rows = range(len(prompts) if turn < NEW_TOKENS // 2 else 3)
        for row in rows:
            found[row].append(int(head.logits(last[row])[0, -1].argmax()))
        positions = [caches[row].position for row in rows]
        hidden = head.embed_tokens([found[row][-1] for row in rows], positions).cpu()
        chunks = [Chunk(one, caches[row]) for one, row in zip(hidden.split(1), rows, strict=True)]
        for row, output in zip(rows, span.forward_batch(chunks), strict=True):
            last[row] = output.to("cuda")
    for cache in caches:
        cache.close()
    assert decoder.eager_because is None
    assert (decoder.pool.free_pages, decoder.pool.free_rows) == (4096 // PAGE_TOKENS, 5)
    assert [tokens == full[: len(tokens)] for tokens, full in zip(found, expected, strict=True)] == [True] * 5
