"""The generation loop says what the whole model says, ends when it should, and takes no garbage for text."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from corolla import generation as generation_module
from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.models.source import ModelSource
from corolla.reply import TextDelta
from corolla.tensors import to_wire
from schema.errors import (
    ContextTooLong,
    CorollaError,
    GenerationFailed,
    InvalidRequest,
    KVCacheFull,
    ModelUnavailable,
    NotFinite,
    ShapeMismatch,
)
from schema.frames import Frame, FrameType
from schema.generation import GenerationRequest, Message, Sampling, Stopping, Usage
from schema.ids import PeerId
from schema.tensors import DType, WireTensor, encode_tensors
from tests.corolla.fakes import ANEMONE, BELLIS, HIDDEN, ME, Hops, failure, returned, until
from tests.corolla.models.checkpoints import save
from tests.corolla.tiny_text import END, SHAPE, StageHops, TinyLlama, byte_codec, inline, scripted_head
from volunteer.stage import Stage

GREEDY = Sampling(temperature=0)
WILD = Sampling(temperature=1.5, seed=7)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def llama_head(llama: TinyLlama) -> Head:
    return llama.head()


@pytest.fixture(scope="module")
def stages(llama: TinyLlama) -> list[Stage]:
    """Two spans that make the model."""
    return [llama.stage(0, 2), llama.stage(2, SHAPE.blocks)]


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def hops(exchange: Exchange) -> Hops:
    """For scripted heads, which do not mind what comes back."""
    return Hops(exchange)


@pytest.fixture
def swarm(exchange: Exchange, stages: list[Stage]) -> StageHops:
    """The tiny model on two volunteers."""
    return StageHops(exchange, {ANEMONE: stages[0], BELLIS: stages[1]})


def completion(
    prompt: list[int] | str = PROMPT,
    sampling: Sampling = GREEDY,
    max_tokens: int | None = 16,
    stop: list[str] | None = None,
    stop_token_ids: list[int] | None = None,
) -> GenerationRequest:
    return GenerationRequest(
        model="tiny",
        prompt=prompt,
        sampling=sampling,
        stopping=Stopping(max_tokens=max_tokens, stop=stop or [], stop_token_ids=stop_token_ids or []),
    )


def ids(letters: str) -> list[int]:
    """What a scripted head says for these."""
    return byte_codec().encode_prompt(letters)


async def answer(head: Head, exchange: Exchange, request: GenerationRequest) -> tuple[list[str], Completed]:
    """A whole reply: its pieces of text, and its end."""
    events = [event async for event in generate(head, exchange, request)]
    *deltas, end = events
    assert isinstance(end, Completed)
    return [delta.text for delta in deltas if isinstance(delta, TextDelta)], end


async def said(head: Head, exchange: Exchange, request: GenerationRequest) -> str:
    pieces, _ = await answer(head, exchange, request)
    return "".join(pieces)


async def broken(head: Head, exchange: Exchange, request: GenerationRequest) -> CorollaError:
    """The error that a reply ends with, and nothing that looks like an end."""

    async def read() -> None:
        async for event in generate(head, exchange, request):
            assert not isinstance(event, Completed)

    with pytest.raises(CorollaError) as caught:
        await read()
    return caught.value


@pytest.mark.parametrize("first", [ANEMONE, ME], ids=["elsewhere", "in the head's own process"])
async def test_a_token_is_embedded_at_its_own_position(
    tmp_path: Path, exchange: Exchange, first: PeerId
) -> None:
    """In a model whose embeddings know positions, wherever its first blocks are."""
    config = GPT2Config(
        vocab_size=SHAPE.vocabulary,
        n_embd=SHAPE.hidden,
        n_layer=SHAPE.blocks,
        n_head=4,
        n_positions=256,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    gpt2 = TinyLlama(tmp_path / "tokenizer", ModelSource.open(save(config, tmp_path / "gpt2")))
    StageHops(exchange, {first: gpt2.stage(0, 2), BELLIS: gpt2.stage(2, SHAPE.blocks)})
    model: Any = GPT2LMHeadModel.from_pretrained(gpt2.source.name)
    output = model.eval().generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    expected = "".join(f"{token} " for token in output[0, len(PROMPT) :].tolist())
    assert await said(gpt2.head(256), exchange, completion(max_tokens=24)) == expected


def whole_model(llama: TinyLlama, prompt: list[int], tokens: int) -> str:
    """What transformers' own greedy loop says with all blocks in one process."""
    model: Any = LlamaForCausalLM.from_pretrained(llama.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=tokens)
    return "".join(f"{token} " for token in output[0, len(prompt) :].tolist())


class TestTokens:
    async def test_greedy_is_what_the_whole_model_says(
        self, llama: TinyLlama, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        assert await said(llama_head, exchange, completion(max_tokens=24)) == whole_model(llama, PROMPT, 24)

    async def test_greedy_is_the_same_with_the_first_blocks_in_the_drivers_process(
        self, llama: TinyLlama, llama_head: Head, exchange: Exchange, stages: list[Stage]
    ) -> None:
        swarm = StageHops(exchange, {ME: stages[0], BELLIS: stages[1]})
        assert await said(llama_head, exchange, completion(max_tokens=24)) == whole_model(llama, PROMPT, 24)
        assert {frame.hop for frame in swarm.frames if frame.type != FrameType.CLOSE} == {1}

    @pytest.mark.parametrize("chunked", [True, False])
    async def test_greedy_is_the_same_however_the_prompt_is_cut(
        self,
        llama: TinyLlama,
        llama_head: Head,
        exchange: Exchange,
        swarm: StageHops,
        chunked: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(generation_module, "PREFILL_TOKENS", 3)
        prompt = PROMPT * 4
        head = replace(llama_head, can_chunk_prefill=chunked)
        assert await said(head, exchange, completion(prompt)) == whole_model(llama, prompt, 16)
        slices = [frame for frame in swarm.frames if frame.type == FrameType.PREFILL]
        assert len(slices) == (12 if chunked else 1)

    async def test_a_seed_makes_sampling_repeatable(
        self, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        first = await said(llama_head, exchange, completion(sampling=WILD))
        assert await said(llama_head, exchange, completion(sampling=WILD)) == first

    async def test_another_seed_or_none_draws_otherwise(
        self, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        seeds = [Sampling(temperature=1.5, seed=seed) for seed in (1, 2, None, None)]
        texts = {await said(llama_head, exchange, completion(sampling=seed)) for seed in seeds}
        assert len(texts) == len(seeds)

    async def test_a_seed_draws_the_same_on_one_volunteer_as_on_two(
        self, llama: TinyLlama, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        on_two = await said(llama_head, exchange, completion(sampling=WILD))
        alone = Exchange()
        StageHops(alone, {ANEMONE: llama.stage(0, SHAPE.blocks)})
        assert await said(llama_head, alone, completion(sampling=WILD)) == on_two

    async def test_replies_at_once_do_not_disturb_each_other(
        self, llama: TinyLlama, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        prompts = [PROMPT[index:] for index in range(5)]
        texts = await asyncio.gather(*(said(llama_head, exchange, completion(one)) for one in prompts))
        assert texts == [whole_model(llama, one, 16) for one in prompts]


class TestEnd:
    async def test_at_the_token_limit(self, exchange: Exchange, hops: Hops) -> None:
        pieces, end = await answer(scripted_head("abcdef"), exchange, completion(max_tokens=4))
        assert ("".join(pieces), end.reason) == ("abcd", "length")

    async def test_where_the_context_is_full(
        self, llama: TinyLlama, exchange: Exchange, swarm: StageHops
    ) -> None:
        _, end = await answer(llama.head(context=20), exchange, completion(max_tokens=None))
        assert (end.reason, end.usage.total_tokens) == ("length", 20)

    async def test_after_one_token_when_there_is_room_for_one(
        self, llama: TinyLlama, exchange: Exchange, swarm: StageHops
    ) -> None:
        _, end = await answer(llama.head(context=len(PROMPT) + 1), exchange, completion())
        assert (end.reason, end.usage.completion_tokens) == ("length", 1)

    async def test_with_the_end_token_which_is_no_text(self, exchange: Exchange, hops: Hops) -> None:
        pieces, end = await answer(scripted_head("Good day."), exchange, completion())
        assert ("".join(pieces), end.reason) == ("Good day.", "stop")

    async def test_with_the_end_token_alone(self, exchange: Exchange, hops: Hops) -> None:
        pieces, end = await answer(scripted_head(""), exchange, completion())
        assert (pieces, end.reason, end.usage.completion_tokens) == ([], "stop", 1)

    async def test_at_a_stop_string_across_tokens(self, exchange: Exchange, hops: Hops) -> None:
        head = scripted_head("one two three")
        pieces, end = await answer(head, exchange, completion(stop=["o thr"]))
        assert ("".join(pieces), end.reason) == ("one tw", "stop")

    async def test_at_the_stop_string_that_is_complete_first(self, exchange: Exchange, hops: Hops) -> None:
        head = scripted_head("one two three")
        assert await said(head, exchange, completion(stop=["three", "two"])) == "one "

    async def test_gives_out_what_only_looked_like_a_stop_string(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        pieces, end = await answer(scripted_head("one two"), exchange, completion(stop=["two three"]))
        assert ("".join(pieces), end.reason) == ("one two", "stop")

    async def test_at_a_stop_string_leaves_no_step_behind(self, exchange: Exchange, hops: Hops) -> None:
        heard: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
        hops.replies[3] = lambda frame: failure(frame, KVCacheFull("of a step that nobody waits for"))
        _, end = await answer(scripted_head("abcdef"), exchange, completion(stop=["bc"]))
        gc.collect()
        assert (end.reason, hops.closed, heard) == ("stop", True, [])

    async def test_with_a_stop_token_which_is_counted_and_is_no_text(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        pieces, end = await answer(scripted_head("abcdef"), exchange, completion(stop_token_ids=ids("xd")))
        assert ("".join(pieces), end.reason, end.usage.completion_tokens) == ("abc", "stop", 4)

    async def test_with_a_stop_token_at_the_limit_is_a_stop(self, exchange: Exchange, hops: Hops) -> None:
        request = completion(max_tokens=4, stop_token_ids=ids("d"))
        pieces, end = await answer(scripted_head("abcdef"), exchange, request)
        assert ("".join(pieces), end.reason) == ("abc", "stop")

    async def test_with_the_models_own_end_token_where_there_are_others(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        pieces, end = await answer(scripted_head("abc"), exchange, completion(stop_token_ids=ids("x")))
        assert ("".join(pieces), end.reason) == ("abc", "stop")

    async def test_with_a_stop_token_gives_out_what_only_looked_like_a_stop_string(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        request = completion(stop=["bcde"], stop_token_ids=ids("d"))
        assert await said(scripted_head("abcdef"), exchange, request) == "abc"

    async def test_with_a_stop_token_frees_the_session_on_every_hop(
        self, llama: TinyLlama, llama_head: Head, exchange: Exchange, stages: list[Stage]
    ) -> None:
        swarm = StageHops(exchange, {ME: stages[0], BELLIS: stages[1]})
        words = whole_model(llama, PROMPT, 16).split()
        before = words[: words.index(words[9])]
        request = completion(stop_token_ids=[int(words[9])])
        assert (await said(llama_head, exchange, request)).split() == before
        assert (swarm.closed, swarm.sessions) == (True, 0)

    async def test_counts_every_token(self, exchange: Exchange, hops: Hops) -> None:
        _, end = await answer(scripted_head("äöü"), exchange, completion("seven b"))
        assert end.usage == Usage(prompt_tokens=7, completion_tokens=7, total_tokens=14)

    async def test_says_which_way_it_came(self, exchange: Exchange, hops: Hops) -> None:
        _, end = await answer(scripted_head("abc"), exchange, completion())
        assert [(hop.name, hop.start, hop.end) for hop in end.timing.route] == [
            ("anemone", 0, 2),
            ("bellis", 2, 4),
        ]
        assert 0 < end.timing.first_token <= end.timing.total


class TestText:
    async def test_never_comes_as_half_a_character(self, exchange: Exchange, hops: Hops) -> None:
        text = "Zwölf 🌸 Blüten, 花冠 — ça va?"
        pieces, _ = await answer(scripted_head(text), exchange, completion(max_tokens=200))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)

    async def test_comes_while_the_next_step_travels(self, exchange: Exchange, hops: Hops) -> None:
        hops.held = True
        async with aclosing(generate(scripted_head("abc"), exchange, completion())) as events:
            first = asyncio.create_task(anext(events))
            await until(lambda: hops.waiting)
            hops.release()
            assert await first == TextDelta("a", 1, (64,))
            assert len(hops.waiting) == 1

    async def test_of_a_chat_follows_its_template(self, exchange: Exchange, hops: Hops) -> None:
        request = GenerationRequest(
            model="tiny", messages=[Message("user", "Hi"), Message("assistant", "Yes?")], sampling=GREEDY
        )
        _, end = await answer(scripted_head("ok"), exchange, request)
        assert end.usage.prompt_tokens == len("Hi\nYes?\n")


class TestRequests:
    @pytest.mark.parametrize("prompt", ["", []])
    async def test_without_a_prompt_are_refused(
        self, exchange: Exchange, hops: Hops, prompt: str | list[int]
    ) -> None:
        error = await broken(scripted_head("a"), exchange, completion(prompt))
        assert (type(error), error.message) == (InvalidRequest, "the prompt is empty")

    @pytest.mark.parametrize("tokens", [10, 11, 80])
    async def test_that_leave_no_room_are_refused_with_the_numbers(
        self, exchange: Exchange, hops: Hops, tokens: int
    ) -> None:
        error = await broken(scripted_head("a", context=10), exchange, completion("x" * tokens))
        assert isinstance(error, ContextTooLong)
        assert f"{tokens} tokens" in error.message
        assert "10 positions" in error.message
        assert error.param == "prompt"

    async def test_are_encoded_where_no_token_waits_for_it(self, exchange: Exchange, hops: Hops) -> None:
        """A device's thread draws everybody's tokens."""
        drawing: list[str] = []

        def on_the_device(work: Callable[[], Any]) -> Awaitable[Any]:
            drawing.append("work")
            return inline(work)

        head = replace(scripted_head("a", context=10), run=on_the_device)
        assert isinstance(await broken(head, exchange, completion("x" * 100_000)), ContextTooLong)
        assert drawing == []

    async def test_with_a_token_that_the_model_does_not_have_are_refused(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        error = await broken(scripted_head("a"), exchange, completion([5, 9999]))
        assert isinstance(error, InvalidRequest)
        assert "9999" in error.message

    async def test_with_a_stop_token_that_the_model_does_not_have_are_refused_by_name(
        self, exchange: Exchange, hops: Hops
    ) -> None:
        error = await broken(scripted_head("a"), exchange, completion(stop_token_ids=[5, 9999]))
        assert isinstance(error, InvalidRequest)
        assert "9999 of 'stop_token_ids'" in error.message
        assert hops.messages == []

    @pytest.mark.parametrize(
        ("messages", "prompt"), [(None, None), ([Message("user", "Hi")], "Hi")], ids=["neither", "both"]
    )
    async def test_are_either_a_chat_or_a_completion(
        self, exchange: Exchange, hops: Hops, messages: list[Message] | None, prompt: str | None
    ) -> None:
        request = GenerationRequest(model="tiny", messages=messages, prompt=prompt)
        assert isinstance(await broken(scripted_head("a"), exchange, request), InvalidRequest)

    async def test_that_are_refused_ask_for_no_route(self, exchange: Exchange, hops: Hops) -> None:
        await broken(scripted_head("a"), exchange, completion(""))
        assert hops.messages == []

    async def test_without_a_route_are_refused_by_name(self, exchange: Exchange, hops: Hops) -> None:
        hops.no_route = ModelUnavailable("blocks 2-3 have no volunteer")
        error = await broken(scripted_head("a"), exchange, completion())
        assert (type(error), error.message) == (ModelUnavailable, "blocks 2-3 have no volunteer")


class TestAReplyThatAnotherHeadBegan:
    @pytest.mark.parametrize("wrong", [END + 1, 2**31 - 1, -1])
    async def test_with_a_token_that_the_model_does_not_have_fails_before_anything_is_computed(
        self, exchange: Exchange, hops: Hops, wrong: int
    ) -> None:
        begun = [*ids("ab"), wrong]
        with pytest.raises(GenerationFailed, match=f"token {wrong}, .* from 0 to {END}"):
            [event async for event in generate(scripted_head("c"), exchange, completion(), "", begun)]
        assert (hops.messages, hops.frames) == ([], [])

    async def test_is_taken_over_while_others_go_on(
        self, exchange: Exchange, hops: Hops, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(generation_module, "AT_ONCE", 1)
        turns = 0

        async def go_on() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(go_on())
        begun = ids("x" * 1000)
        events = generate(scripted_head(""), exchange, completion(max_tokens=1100), "", begun)
        *_, end = [event async for event in events]
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
        assert isinstance(end, Completed)
        assert (end.reason, end.usage.completion_tokens) == ("stop", 1001)
        assert turns > 1000


class TestLeaving:
    async def test_early_frees_the_session_on_every_hop(
        self, llama_head: Head, exchange: Exchange, stages: list[Stage]
    ) -> None:
        swarm = StageHops(exchange, {ME: stages[0], BELLIS: stages[1]})
        async with aclosing(generate(llama_head, exchange, completion())) as events:
            await anext(events)
            assert swarm.sessions == 2
        assert swarm.sessions == 0
        assert [stage.kv_used for stage in stages] == [0, 0]

    async def test_at_the_end_frees_the_session_on_every_hop(
        self, llama_head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        await answer(llama_head, exchange, completion())
        assert (swarm.closed, swarm.sessions) == (True, 0)

    async def test_while_a_step_travels_frees_the_session(self, exchange: Exchange, hops: Hops) -> None:
        hops.held = True
        reading = asyncio.create_task(said(scripted_head("abc"), exchange, completion()))
        await until(lambda: hops.waiting)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert hops.closed


def wrong(tensor: torch.Tensor | WireTensor) -> Callable[[Frame], Frame]:
    """A hop that answers with this, whatever it was asked."""
    wire = to_wire(tensor) if isinstance(tensor, torch.Tensor) else tensor
    return lambda frame: returned(frame, encode_tensors([wire]))


WRONG_ANSWERS = [
    pytest.param(wrong(torch.zeros(1, 1, HIDDEN + 1)), ShapeMismatch, id="another width"),
    pytest.param(wrong(torch.zeros(2, 1, HIDDEN)), ShapeMismatch, id="another batch"),
    pytest.param(wrong(torch.zeros(1, 0, HIDDEN)), ShapeMismatch, id="no position"),
    pytest.param(wrong(torch.zeros(1, 5, HIDDEN)), ShapeMismatch, id="too many positions"),
    pytest.param(wrong(torch.zeros(HIDDEN)), ShapeMismatch, id="another rank"),
    pytest.param(wrong(torch.zeros(1, 1, HIDDEN, dtype=torch.int64)), ShapeMismatch, id="integers"),
    pytest.param(
        wrong(WireTensor(DType.FLOAT32, (1, 1, HIDDEN), b"\xff" * 4 * HIDDEN)), NotFinite, id="not a number"
    ),
    pytest.param(wrong(torch.full((1, 1, HIDDEN), torch.inf)), NotFinite, id="infinity"),
    pytest.param(lambda frame: returned(frame, b""), GenerationFailed, id="nothing"),
]


class TestAHop:
    @pytest.mark.parametrize("step", [0, 2], ids=["at once", "in the middle"])
    @pytest.mark.parametrize(("reply", "kind"), WRONG_ANSWERS)
    async def test_that_answers_wrongly_breaks_the_reply_by_name(
        self,
        exchange: Exchange,
        hops: Hops,
        step: int,
        reply: Callable[[Frame], Frame],
        kind: type[CorollaError],
    ) -> None:
        hops.replies[step] = reply
        error = await broken(scripted_head("abcdef"), exchange, completion())
        assert type(error) is kind
        assert hops.closed

    @pytest.mark.parametrize("step", [0, 1, 5])
    async def test_that_fails_breaks_the_reply_with_its_reason(
        self, exchange: Exchange, hops: Hops, step: int
    ) -> None:
        hops.replies[step] = lambda frame: failure(frame, KVCacheFull("no memory for more tokens"))
        error = await broken(scripted_head("abcdefghij"), exchange, completion())
        assert (type(error), error.message) == (KVCacheFull, "no memory for more tokens")
        assert hops.closed

    async def test_that_leaves_breaks_the_reply_with_its_name_if_nobody_comes(
        self, exchange: Exchange, hops: Hops, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corolla.repair.WAIT_SECONDS", 0.0)
        hops.held = True
        reading = asyncio.create_task(broken(scripted_head("abc"), exchange, completion()))
        await until(lambda: hops.waiting)
        hops.lose(BELLIS)
        error = await reading
        assert isinstance(error, GenerationFailed)
        assert "'bellis'" in error.message

    async def test_that_fails_one_reply_does_not_touch_another(self, exchange: Exchange, hops: Hops) -> None:
        hops.held = True
        first = asyncio.create_task(broken(scripted_head("abc"), exchange, completion()))
        await until(lambda: len(hops.waiting) == 1)
        second = asyncio.create_task(said(scripted_head("xyz"), exchange, completion()))
        await until(lambda: len(hops.waiting) == 2)
        hops.replies[0] = lambda frame: failure(frame, KVCacheFull("no memory"))
        hops.release(1)
        assert isinstance(await first, KVCacheFull)
        hops.replies.clear()
        hops.held = False
        hops.release()
        assert await second == "xyz"


@pytest.fixture(autouse=True)
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    """Every reply ends its tasks."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
