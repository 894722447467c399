"""Every family that is served: its spans in a chain are the whole model, bit for bit.

The whole model is the library's own, run by its own `generate`, in fp32 on one CPU thread, with frozen
weights (some mixers take another kernel when weights require gradients). Weights are random and rough, so
that no norm, bias or scale can be left out unnoticed; checkpoints are in several safetensors shards.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

from corolla.models import (
    FAMILIES,
    ChunkRefused,
    FamilyRefused,
    HeadModel,
    LoadOptions,
    ModelSource,
    RollbackRefused,
    SpanModel,
    SpanRefused,
    describe,
)
from corolla.models.batching import Chunk
from corolla.models.cache import layer_tensors
from corolla.models.families import REFUSED, WITH_TEXT_MODEL, Batching
from corolla.models.partial import find_decoder
from tests.volunteer.family_cases import BLOCKS, CASES, WRAPPERS, Case, wrapper_config

PROMPT = 13
NEW_TOKENS = 17
"""The prompt's own next token, and sixteen decode steps after it."""
CUTS = {"two spans": (0, 3, BLOCKS), "three spans": (0, 1, 4, BLOCKS)}
"""Spans that begin and end within every layer pattern."""
CLOSE = 1e-4
"""How far chunks may be from the whole prompt, relative to the largest value: sums in another order."""


@dataclass
class Whole:
    """A checkpoint, the library's whole model of it, and its parts, each loaded when first used."""

    source: ModelSource
    model: PreTrainedModel
    dtype: torch.dtype

    @cached_property
    def head(self) -> HeadModel:
        return HeadModel.load(self.source, LoadOptions(dtype=self.dtype))

    @cached_property
    def spans(self) -> dict[str, list[SpanModel]]:
        options = LoadOptions(dtype=self.dtype)
        return {
            name: [SpanModel.load(self.source, a, b, options) for a, b in pairwise(cuts)]
            for name, cuts in CUTS.items()
        }

    @cached_property
    def run(self) -> "Run":
        return whole_run(self.model, prompts(1))


@dataclass
class Run:
    """What a greedy generation gave at every step."""

    tokens: Tensor
    hidden: list[Tensor]
    """What left the last block."""
    logits: list[Tensor]
    """For the last position."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split over threads, so bits depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def roughen(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


def save(
    auto: Any, config: PreTrainedConfig, folder: Path, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Saves a model of random weights in shards, and loads it again as a user would."""
    torch.manual_seed(0)
    model = auto.from_config(config)
    roughen(model)
    model.save_pretrained(folder, max_shard_size="40KB")
    return auto.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)


def open_whole(
    auto: Any, config: PreTrainedConfig, folder: Path, dtype: torch.dtype = torch.float32
) -> Whole:
    model = save(auto, config, folder, dtype)
    return Whole(ModelSource.open(str(folder)), model, dtype)


@pytest.fixture(scope="module", params=CASES, ids=str)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    case: Case = request.param
    return open_whole(AutoModelForCausalLM, case.config(), tmp_path_factory.mktemp(str(case)))


def prompts(batch: int) -> Tensor:
    return torch.randint(3, 90, (batch, PROMPT), generator=torch.Generator().manual_seed(2))


def left_padding() -> Tensor:
    """For two sequences, the second of which is four tokens shorter."""
    mask = torch.ones(2, PROMPT, dtype=torch.long)
    mask[1, :4] = 0
    return mask


def whole_run(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Run:
    """The library's own greedy generation, with all logits computed in each step."""
    hidden: list[Tensor] = []
    path, name = find_decoder(model, BLOCKS)
    last = cast(nn.ModuleList, getattr(model.get_submodule(path), name))[-1]
    hook = last.register_forward_hook(lambda module, inputs, output: hidden.append(_tensor(output)))
    extra = {"logits_to_keep": 0} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    try:
        output = cast(Any, model).generate(
            ids,
            attention_mask=torch.ones_like(ids) if mask is None else mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
            **extra,
        )
    finally:
        hook.remove()
    return Run(output.sequences[:, ids.shape[1] :], hidden, list(output.logits))


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def chain_run(
    head: HeadModel,
    spans: list[SpanModel],
    ids: Tensor,
    mask: Tensor | None = None,
    blocks: Sequence[tuple[int, int] | None] = (None, None, None),
) -> Run:
    """The same generation over spans in a chain, with the head's embedding and logits.

    `blocks`: which of its blocks each span runs; None for all.
    """
    caches = [span.new_cache(ids.shape[0], part) for span, part in zip(spans, blocks, strict=False)]
    run = Run(ids[:, :0], [], [])
    for _ in range(NEW_TOKENS):
        hidden = head.embed(ids, caches[0].position, mask)
        for span, cache in zip(spans, caches, strict=True):
            hidden = span.forward(hidden, cache, mask)
        run.hidden.append(hidden)
        run.logits.append(head.logits(hidden)[:, -1].float())
        ids = run.logits[-1].argmax(-1, keepdim=True)
        run.tokens = torch.cat([run.tokens, ids], dim=1)
        mask = None if mask is None else torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
    return run


def assert_same(run: Run, expected: Run) -> None:
    assert run.tokens.tolist() == expected.tokens.tolist()
    for step, (ours, theirs) in enumerate(zip(run.hidden, expected.hidden, strict=True)):
        assert torch.equal(ours, theirs), f"hidden states differ at step {step}"
    for step, (ours, theirs) in enumerate(zip(run.logits, expected.logits, strict=True)):
        assert torch.equal(ours, theirs), f"logits differ at step {step}"


def step(spans: list[SpanModel], caches: list[Any], hidden: Tensor) -> Tensor:
    for span, cache in zip(spans, caches, strict=True):
        hidden = span.forward(hidden, cache)
    return hidden


def step_together(
    spans: list[SpanModel], caches: list[list[Any]], chunks: Sequence[Tensor]
) -> Sequence[Tensor]:
    """As `step` of each chunk, as one batch; `caches` by chunk and span."""
    for span, of_span in zip(spans, zip(*caches, strict=True), strict=True):
        chunks = span.forward_batch([Chunk(*pair) for pair in zip(chunks, of_span, strict=True)])
    return chunks


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_spans_that_overlap_are_the_whole_model_when_one_is_used_in_part(whole: Whole) -> None:
    first, (_, middle, last) = whole.spans["two spans"][0], whole.spans["three spans"]
    run = chain_run(
        whole.head, [first, middle, last], prompts(1), blocks=[None, (first.end, last.start), None]
    )
    assert_same(run, whole.run)


@pytest.mark.parametrize("cuts", CUTS)
def test_a_chain_of_spans_is_the_whole_model(whole: Whole, cuts: str) -> None:
    assert_same(chain_run(whole.head, whole.spans[cuts], prompts(1)), whole.run)


def test_what_is_projected_is_the_whole_models(whole: Whole) -> None:
    """But for its scale: vectors of texts are made of it, and of length 1."""
    projected: list[Tensor] = []
    projection = cast(nn.Module, whole.model.get_output_embeddings())
    hook = projection.register_forward_pre_hook(lambda module, inputs: projected.append(inputs[0]))
    try:
        cast(Any, whole.model)(prompts(1))
    finally:
        hook.remove()
    ours, theirs = whole.head.normed(whole.run.hidden[0]), projected[0]
    assert relative_error(ours / ours.norm(), theirs / theirs.norm()) < CLOSE


def test_a_left_padded_batch_is_the_whole_models(whole: Whole) -> None:
    ids, mask = prompts(2), left_padding()
    spans = whole.spans["three spans"]
    assert_same(chain_run(whole.head, spans, ids, mask), whole_run(whole.model, ids, mask))


def test_a_prompt_in_chunks_is_close_or_refused(whole: Whole) -> None:
    """Chunks of 6, 6 and 1 tokens; longer than the state-space models' own chunks of 4."""
    spans = whole.spans["two spans"]
    hidden = whole.head.embed(prompts(1))
    at_once = step(spans, [span.new_cache() for span in spans], hidden)
    caches = [span.new_cache() for span in spans]
    first = step(spans, caches, hidden[:, :6])
    if not whole.source.family.can_chunk_prefill:
        with pytest.raises(ChunkRefused):
            step(spans, caches, hidden[:, 6:12])
        return
    chunks = [first, step(spans, caches, hidden[:, 6:12]), step(spans, caches, hidden[:, 12:])]
    assert relative_error(torch.cat(chunks, dim=1), at_once) < CLOSE


def test_a_cache_rolled_back_goes_on_exactly_or_refuses(whole: Whole) -> None:
    """Back by five tokens, past the end of every sliding window of eight."""
    spans = whole.spans["two spans"]
    hidden = whole.head.embed(prompts(1))
    wrong = whole.head.embed(prompts(2)[1:])
    straight, rolled_back = ([span.new_cache() for span in spans] for _ in range(2))
    for caches in (straight, rolled_back):
        step(spans, caches, hidden[:, :10])
    for at in range(5):
        step(spans, rolled_back, wrong[:, at : at + 1])
    if not whole.source.family.can_roll_back:
        with pytest.raises(RollbackRefused):
            rolled_back[0].truncate(10)
        return
    for cache in rolled_back:
        cache.truncate(10)
    for at in range(10, PROMPT):
        token = hidden[:, at : at + 1]
        assert torch.equal(step(spans, rolled_back, token), step(spans, straight, token))


def test_a_fork_goes_on_exactly_beside_its_source(whole: Whole) -> None:
    """From its end, past every sliding window of eight; and from before its end, or that is refused."""
    spans = whole.spans["two spans"]
    hidden = whole.head.embed(prompts(1))
    wrong = whole.head.embed(prompts(2)[1:])
    source, straight = ([span.new_cache() for span in spans] for _ in range(2))
    for caches in (source, straight):
        step(spans, caches, hidden[:, :10])
    fork = [cache.fork(10) for cache in source]
    for at in range(10, PROMPT):
        step(spans, source, wrong[:, at : at + 1])
    forks = [fork]
    if whole.source.family.can_roll_back:
        forks.append([cache.fork(10) for cache in source])
    else:
        with pytest.raises(RollbackRefused):
            source[0].fork(10)
    for at in range(10, PROMPT):
        token = hidden[:, at : at + 1]
        expected = step(spans, straight, token)
        assert all(torch.equal(step(spans, caches, token), expected) for caches in forks)


def test_sequences_decode_together_as_they_do_alone(whole: Whole) -> None:
    """Of different lengths, in an order that changes, and past the length of every window."""
    group = Group(whole, lengths=(PROMPT, 1, 7))
    if group.spans[0].family.batching is Batching.ONE_BY_ONE:
        with pytest.raises(SpanRefused, match="one sequence at a time"):
            group.step([(0, 1)])
        return
    for turn in range(NEW_TOKENS):
        group.step([((turn + shift) % 3, 1) for shift in range(3 - turn % 2)])


def test_a_prompt_goes_in_chunks_beside_the_tokens_of_others(whole: Whole) -> None:
    group = Group(whole, lengths=(PROMPT, 1, 7))
    family = group.spans[0].family
    if family.batching is not Batching.RAGGED or not family.can_chunk_prefill:
        with pytest.raises((SpanRefused, ChunkRefused)):
            group.step([(0, 1), (1, 3)])
        return
    for chunk in (3, 4, 9):
        group.step([(0, 1), (1, chunk), (2, 1)])
    group.step([(0, 5), (2, 2)])


def test_prompts_in_one_pool_go_in_chunks_beside_one_another(whole: Whole) -> None:
    """Of different lengths, past the length of every window, and beside the tokens of others."""
    spans, family = whole.spans["two spans"], whole.spans["two spans"][0].family
    if family.batching is not Batching.RAGGED or not family.can_chunk_prefill:
        return
    alone = [[span.new_cache() for span in spans] for _ in range(3)]
    for span in spans:
        assert span.use_pool(tokens=2048, rows=3, longest=512)
    try:
        group = Group(whole, lengths=(PROMPT, 1, 7), alone=alone)
        for chunks in ((4, 3, 1), (2, 9, 2), (1, 1, 8), (2, 3, 2)):
            group.step(list(enumerate(chunks)))
        group.close()
    finally:
        for span in spans:
            span.use_no_pool()


@pytest.mark.parametrize("pooled", [False, True])
def test_even_chunks_go_together_as_they_do_alone(whole: Whole, pooled: bool) -> None:
    """Equally long prompts, in equal slices, past the length of every window; of one or more sequences."""
    spans, family = whole.spans["two spans"], whole.spans["two spans"][0].family
    batches = (1, 1, 1) if pooled else (1, 3, 2)
    alone = [[span.new_cache(batch) for span in spans] for batch in batches]
    try:
        if pooled and None in [span.use_pool(tokens=2048, rows=3, longest=512) for span in spans]:
            return
        together = [[span.new_cache(batch) for span in spans] for batch in batches]
        slices = (PROMPT, 9, 4, 4) if family.can_chunk_prefill else (PROMPT,)
        generator = torch.Generator().manual_seed(4)
        ids = [torch.randint(3, 90, (batch, sum(slices)), generator=generator) for batch in batches]
        parts = zip(*(whole.head.embed(one).split(slices, dim=1) for one in ids), strict=True)
        if family.batching is Batching.ONE_BY_ONE:
            with pytest.raises(SpanRefused, match="one sequence at a time"):
                step_together(spans, together, next(parts))
            return
        for chunks in parts:
            for hidden, own, output in zip(
                chunks, alone, step_together(spans, together, chunks), strict=True
            ):
                expected = step(spans, own, hidden)
                assert output.shape == expected.shape
                assert (output - expected).abs().max() <= CLOSE * expected.abs().max()
    finally:
        for span in spans:
            span.use_no_pool()


def test_uneven_chunks_of_several_sequences_are_refused(whole: Whole) -> None:
    span = whole.spans["two spans"][0]
    hidden = whole.head.embed(prompts(2))
    caches = [span.new_cache(2) for _ in range(2)]
    with pytest.raises(SpanRefused):
        span.forward_batch([Chunk(hidden, caches[0]), Chunk(hidden[:, 1:], caches[1])])
    assert [cache.position for cache in caches] == [0, 0]


def test_pooled_sequences_decode_together_as_they_do_alone(whole: Whole) -> None:
    """What a CUDA graph captures where there is a GPU, here called without one."""
    spans = whole.spans["two spans"]
    alone = [[span.new_cache() for span in spans] for _ in range(3)]
    decoders = [span.use_pool(tokens=2048, rows=3, longest=512) for span in spans]
    try:
        if spans[0].family.batching is Batching.ONE_BY_ONE or not spans[0].family.takes_views:
            assert decoders == [None, None]
            return
        group = Group(whole, lengths=(PROMPT, 1, 7), alone=alone)
        for turn in range(NEW_TOKENS):
            group.step([((turn + shift) % 3, 1) for shift in range(3 - turn % 2)])
        group.close()
        assert [(one.pool.free_pages, one.pool.free_rows) for one in decoders if one] == [(32, 3)] * 2
    finally:
        for span in spans:
            span.use_no_pool()


class Group:
    """Sequences of `lengths` tokens, each once on caches of its own and once on caches that are batched."""

    def __init__(self, whole: Whole, lengths: Sequence[int], alone: list[list[Any]] | None = None) -> None:
        self.spans = whole.spans["two spans"]
        generator = torch.Generator().manual_seed(3)
        ids = torch.randint(3, 90, (len(lengths), PROMPT + NEW_TOKENS), generator=generator)
        self._hidden = [whole.head.embed(row.unsqueeze(0)) for row in ids]
        self._together = [[span.new_cache() for span in self.spans] for _ in lengths]
        self._alone = alone or [[span.new_cache() for span in self.spans] for _ in lengths]
        for caches in (self._alone, self._together):
            for row, length, own in zip(self._hidden, lengths, caches, strict=True):
                step(self.spans, own, row[:, :length])

    def close(self) -> None:
        for caches in self._together:
            for cache in caches:
                cache.close()

    def step(self, chunks: Sequence[tuple[int, int]]) -> None:
        """Both ways `chunks`, sequence and tokens, give the same."""
        held = {row: self._together[row][0].position for row, _ in chunks}
        entering = [self._hidden[row][:, held[row] : held[row] + tokens] for row, tokens in chunks]
        batch = step_together(self.spans, [self._together[row] for row, _ in chunks], entering)
        for (row, _), hidden, output in zip(chunks, entering, batch, strict=True):
            expected = step(self.spans, self._alone[row], hidden)
            assert output.shape == expected.shape
            assert (output - expected).abs().max() <= CLOSE * expected.abs().max()


def test_the_facts_are_what_is_loaded(whole: Whole) -> None:
    facts = describe(whole.source, torch.float32)
    spans = whole.spans["two spans"]
    caches = [span.new_cache() for span in spans]
    step(spans, caches, whole.head.embed(prompts(1)))
    assert sum(facts.block_parameters) == sum(sum(span.weights.parameters.values()) for span in spans)
    assert facts.head_parameters == sum(whole.head.weights.parameters.values())
    assert facts.head_bytes == whole.head.weights.nbytes
    held = [
        layer_tensors(layer) for cache in caches for layer in cache.layers.layers[cache.start : cache.end]
    ]
    assert [sum(tensor.nbytes for tensor in tensors) for tensors in held] == [
        size * PROMPT + state for size, state in zip(facts.kv_bytes_per_token, facts.state_bytes, strict=True)
    ]


@pytest.mark.parametrize("model_type", WRAPPERS)
def test_the_text_model_of_a_multi_modal_one_is_exact(model_type: str, tmp_path: Path) -> None:
    whole = open_whole(AutoModelForImageTextToText, wrapper_config(model_type), tmp_path)
    ids, mask = prompts(2), left_padding()
    run = chain_run(whole.head, whole.spans["two spans"], ids, mask)
    assert_same(run, whole_run(whole.model, ids, mask))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gemma2", "bloom", "qwen3_next"])
def test_a_chain_in_half_precision_is_the_whole_model_in_it(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    whole = open_whole(AutoModelForCausalLM, config_of(model_type), tmp_path, dtype)
    assert_same(chain_run(whole.head, whole.spans["three spans"], prompts(1)), whole.run)


@pytest.mark.parametrize(
    "model_type", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3", "falcon", "qwen3_next"]
)
def test_gradients_through_a_chain_are_the_whole_models(model_type: str, tmp_path: Path) -> None:
    whole = open_whole(AutoModelForCausalLM, config_of(model_type), tmp_path)
    weights = torch.randn(
        1, PROMPT, whole.source.config.vocab_size, generator=torch.Generator().manual_seed(3)
    )
    embedded = cast(nn.Module, whole.model.get_input_embeddings())(prompts(1))
    theirs = embedded.clone().requires_grad_()
    (whole.model(inputs_embeds=theirs, use_cache=False).logits * weights).sum().backward()
    ours = whole.head.embed(prompts(1)).clone().requires_grad_()
    hidden = ours
    for span in whole.spans["three spans"]:
        hidden = span.forward(hidden)
    (whole.head.logits(hidden) * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


def config_of(model_type: str) -> PreTrainedConfig:
    return next(case for case in CASES if case.model_type == model_type).config()


def test_every_family_of_the_table_is_tested() -> None:
    assert {case.model_type for case in CASES} == set(FAMILIES)
    assert set(WRAPPERS) == WITH_TEXT_MODEL


def saved_config(config: PreTrainedConfig, folder: Path) -> str:
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_family_that_fails_is_refused_by_name(model_type: str, tmp_path: Path) -> None:
    name = saved_config(CONFIG_MAPPING[model_type](), tmp_path)
    with pytest.raises(FamilyRefused, match=f"type {model_type}.* are not served: {REFUSED[model_type]}"):
        ModelSource.open(name)


@pytest.mark.parametrize("model_type", ["t5", "bart", "whisper"])
def test_an_encoder_decoder_is_refused(model_type: str, tmp_path: Path) -> None:
    name = saved_config(CONFIG_MAPPING[model_type](), tmp_path)
    with pytest.raises(FamilyRefused, match="encoder-decoder"):
        ModelSource.open(name)


def test_an_untested_family_is_refused_with_the_way_to_add_it(tmp_path: Path) -> None:
    name = saved_config(CONFIG_MAPPING["biogpt"](), tmp_path)
    with pytest.raises(FamilyRefused, match=r"biogpt.*no test.*families.py"):
        ModelSource.open(name)


@pytest.mark.parametrize("attribute", ["hidden_size_per_layer_input", "num_kv_shared_layers"])
def test_gemma_4_is_refused_where_blocks_are_not_independent(attribute: str, tmp_path: Path) -> None:
    config = config_of("gemma4_text")
    setattr(config, attribute, 2)
    with pytest.raises(FamilyRefused, match=attribute):
        ModelSource.open(saved_config(config, tmp_path))
