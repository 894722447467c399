"""On a GPU a chain of spans is the whole model too. CI has none: run this where there is one."""

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from corolla.models import HeadModel, LoadOptions, ModelSource, SpanModel
from corolla.models.batching import Chunk
from corolla.models.pool import PAGE_TOKENS
from corolla.models.quantization import Quantization
from tests.corolla.models.checkpoints import llama, save

modules = pytest.importorskip("bitsandbytes.nn.modules", reason="bitsandbytes is not there")
int8 = pytest.importorskip("corolla.models.int8")
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_slices_of_several_sequences_give_what_each_gives_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    """In a pool, of several lengths and at several positions."""
    source = ModelSource.open(save(llama(), tmp_path))
    span = SpanModel.load(source, 0, 6, LoadOptions(device="cuda", dtype=dtype))
    torch.manual_seed(0)
    width, near = source.config.hidden_size, 1e-4 if dtype is torch.float32 else 2e-2
    slices = [
        [torch.randn(1, tokens, width, device="cuda", dtype=dtype) for tokens in lengths]
        for lengths in ((40, 9), (3, 64), (17, 2))
    ]
    alone = [
        [span.forward(part, cache) for part in parts] for parts in slices for cache in [span.new_cache()]
    ]
    assert span.use_pool(tokens=4096, rows=3, longest=512) is not None
    caches = [span.new_cache() for _ in slices]
    for turn in range(2):
        chunks = [Chunk(parts[turn], cache) for parts, cache in zip(slices, caches, strict=True)]
        for found, expected in zip(span.forward_batch(chunks), alone, strict=True):
            torch.testing.assert_close(found, expected[turn], rtol=near, atol=near)


def test_a_step_that_is_started_gives_what_one_that_is_waited_for_gives(tmp_path: Path) -> None:
    source = ModelSource.open(save(llama(), tmp_path))
    span = SpanModel.load(source, 0, 6, LoadOptions(device="cuda", dtype=torch.float32))
    assert span.use_pool(tokens=4096, rows=6, longest=512) is not None
    assert span.starts_rows
    torch.manual_seed(0)
    for count in (1, 3):
        prompts = [torch.randn(1, 5 + index, source.config.hidden_size, device="cuda") for index in range(3)]
        rows = [bytes(torch.randn(source.config.hidden_size).numpy()) for _ in range(count)]
        found: list[list[bytes]] = []
        for _ in range(2):
            caches = [cast(Any, span.new_cache()) for _ in range(count)]
            for prompt, cache in zip(prompts, caches, strict=False):
                span.forward(prompt, cache)
            if not found:
                assert span.start_rows(rows, caches) is None  # nothing was recorded yet
                answers = span.decode_rows(rows, caches)
            else:
                started = span.start_rows(rows, caches)
                assert started is not None
                while not started.is_done():
                    pass
                answers = started.rows()
            found.append([bytes(row.hidden) for row in answers])
            assert [cache.position for cache in caches] == [6 + index for index in range(count)]
            for cache in caches:
                cache.close()
        assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 16, 32, 33, 200])
def test_8_bit_layers_compute_with_the_values_that_the_library_stores(dtype: torch.dtype, rows: int) -> None:
    layer = modules.Linear8bitLt(320, 144, has_fp16_weights=False, threshold=6.0).to("cuda")
    values, scales = layer.weight.data, cast(Any, layer.weight).SCB
    holder = nn.Sequential(layer)
    assert int8.use_fast_kernels(holder, dtype) == 1
    hidden = torch.randn(1, rows, 320, device="cuda", dtype=dtype)
    exact = hidden.double() @ (values.double() * scales.double()[:, None] / 127).t() + layer.bias.double()
    with torch.inference_mode():
        found = holder(hidden)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)


def test_8_bit_layers_leave_gradients_to_the_library() -> None:
    layer = modules.Linear8bitLt(64, 32, has_fp16_weights=False).to("cuda")
    holder = nn.Sequential(layer)
    assert int8.use_fast_kernels(holder, torch.float16) == 1
    hidden = torch.randn(3, 64, device="cuda", dtype=torch.float16, requires_grad=True)
    holder(hidden).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert hidden.grad.any()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here")
def test_a_span_on_the_second_gpu_gives_the_first_ones_tokens(tmp_path: Path) -> None:
    """Which is not the thread's current one: what is recorded, and waited for, must be its own."""
    source = ModelSource.open(save(llama(), tmp_path))
    found: list[list[Tensor]] = []
    for device in ("cuda:0", "cuda:1"):
        span = SpanModel.load(source, 0, 6, LoadOptions(device=device, dtype=torch.float32))
        decoder = span.use_pool(tokens=1024, rows=2, longest=512)
        assert decoder is not None
        torch.manual_seed(0)
        hidden = torch.randn(1, 20, source.config.hidden_size)
        with closing(span.new_cache()) as cache:
            span.forward_batch([Chunk(hidden[:, :4].to(device), cache)])
            steps = [span.forward_batch([Chunk(one, cache)])[0].clone() for one in hidden[:, 4:].split(1, 1)]
        assert decoder.eager_because is None
        found.append(steps)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_steps_of_a_quantized_span_are_recorded(tmp_path: Path, quantization: Quantization) -> None:
    source = ModelSource.open(save(llama(hidden_size=64, intermediate_size=128), tmp_path))
    options = LoadOptions("cuda", torch.bfloat16, quantization, kernels="fastest")
    span = SpanModel.load(source, 0, 6, options)
    decoder = span.use_pool(tokens=1024, rows=2, longest=512)
    assert decoder is not None
    with closing(span.new_cache()) as cache:
        hidden = torch.randn(1, 7, source.config.hidden_size, dtype=torch.bfloat16)
        span.forward_batch([Chunk(hidden.to("cuda"), cache)])
        span.forward_batch([Chunk(hidden[:, :1], cache)])
    assert decoder.eager_because is None
