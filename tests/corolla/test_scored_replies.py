"""Log-probabilities of replies and prompts: those of the whole model in one process, one for each token."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from corolla import generation as generation_module
from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.prefixes import PrefixIndex
from corolla.reply import MOST_UNTOLD, TextDelta
from schema.errors import ContextTooLong, InvalidRequest, PeerGone
from schema.frames import Flags, FrameType
from schema.generation import GenerationRequest, Message, Sampling, ScoredToken, Stopping
from tests.corolla.fakes import ANEMONE, BELLIS, CROCUS, Hops, failure
from tests.corolla.tiny_text import END, SHAPE, StageHops, TinyLlama, scripted_head
from volunteer.stage import Stage

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
GREEDY = Sampling(temperature=0)
WILD = Sampling(temperature=1.5, seed=7, repetition_penalty=1.3, logit_bias={5: 2.0})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def head(llama: TinyLlama) -> Head:
    return llama.head()


@pytest.fixture(scope="module")
def stages(llama: TinyLlama) -> list[Stage]:
    return [llama.stage(0, 2), llama.stage(2, SHAPE.blocks)]


@pytest.fixture(scope="module")
def whole(llama: TinyLlama) -> Any:
    return LlamaForCausalLM.from_pretrained(llama.folder, dtype=torch.float32).eval()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def swarm(exchange: Exchange, stages: list[Stage]) -> StageHops:
    return StageHops(exchange, {ANEMONE: stages[0], BELLIS: stages[1]})


def asked(
    sampling: Sampling = GREEDY,
    max_tokens: int | None = 12,
    echo: bool = False,
    logprobs: int | None = 4,
    prompt: Sequence[int] | str = PROMPT,
) -> GenerationRequest:
    return GenerationRequest(
        model="tiny",
        prompt=prompt if isinstance(prompt, str) else list(prompt),
        sampling=sampling,
        stopping=Stopping(max_tokens=max_tokens),
        logprobs=logprobs,
        echo=echo,
    )


async def told(
    head: Head, exchange: Exchange, request: GenerationRequest, generated: Sequence[int] = ()
) -> tuple[list[TextDelta], Completed]:
    *deltas, end = [event async for event in generate(head, exchange, request, "ada", generated)]
    assert isinstance(end, Completed)
    return [delta for delta in deltas if isinstance(delta, TextDelta)], end


def ids_of(deltas: list[TextDelta]) -> list[int]:
    return [token for delta in deltas for token in delta.ids]


def scores_of(deltas: list[TextDelta]) -> list[ScoredToken]:
    return [score for delta in deltas for score in delta.scored]


def prompt_scores(deltas: list[TextDelta]) -> list[ScoredToken]:
    return [score for delta in deltas if delta.prompt for score in delta.prompt.scored]


def assert_scores(whole: Any, before: Sequence[int], tokens: Sequence[int], found: list[ScoredToken]) -> None:
    """That these are transformers' own scores of tokens behind others, of the number tokenizer's texts."""
    with torch.no_grad():
        logits = whole(torch.tensor([[*before, *tokens]])).logits[0, len(before) - 1 : -1]
    expected = torch.log_softmax(logits.float(), dim=-1)
    assert [int(one.text) for one in found] == list(tokens)
    for row, (token, one) in enumerate(zip(tokens, found, strict=True)):
        assert one.logprob == pytest.approx(expected[row, token].item(), abs=1e-5)
        top = expected[row].topk(len(one.top))
        assert [int(other.text) for other in one.top] == top.indices.tolist()
        assert [other.logprob for other in one.top] == pytest.approx(top.values.tolist(), abs=1e-5)


class TestAReply:
    @pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "drawn"])
    async def test_is_scored_by_the_models_own_logits(
        self, head: Head, exchange: Exchange, swarm: StageHops, whole: Any, sampling: Sampling
    ) -> None:
        deltas, _ = await told(head, exchange, asked(sampling))
        assert_scores(whole, PROMPT, ids_of(deltas), scores_of(deltas))

    async def test_is_the_same_as_without_scores(
        self, head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        scored, _ = await told(head, exchange, asked(WILD))
        plain, _ = await told(head, exchange, asked(WILD, logprobs=None))
        assert ids_of(scored) == ids_of(plain)
        assert scores_of(plain) == []

    async def test_without_alternatives_has_none(
        self, head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        deltas, _ = await told(head, exchange, asked(logprobs=0))
        assert [one.top for one in scores_of(deltas)] == [[]] * 12

    async def test_has_a_score_for_each_token_of_each_delta(self, exchange: Exchange) -> None:
        Hops(exchange)
        request = replace_stop(asked(prompt="Hi", max_tokens=100), ["three"])
        deltas, end = await told(scripted_head("Zwölf 🌸, one two threads"), exchange, request)
        assert [len(delta.scored) for delta in deltas] == [len(delta.ids) for delta in deltas]
        text = "".join(delta.text for delta in deltas)
        assert b"".join(one.raw for one in scores_of(deltas)).decode() == text == "Zwölf 🌸, one two threads"
        assert end.usage.completion_tokens == len(ids_of(deltas))
        assert (scores_of(deltas)[-1].text, scores_of(deltas)[-1].raw) == ("<end>", b"")

    async def test_that_ends_at_a_stop_string_tells_the_tokens_of_it(self, exchange: Exchange) -> None:
        Hops(exchange)
        request = replace_stop(asked(prompt="Hi", max_tokens=100), ["two"])
        deltas, end = await told(scripted_head("one two three"), exchange, request)
        assert "".join(delta.text for delta in deltas) == "one "
        assert b"".join(one.raw for one in scores_of(deltas)) == b"one two"
        assert end.usage.completion_tokens == len(scores_of(deltas)) == 7

    async def test_of_many_tokens_without_text_is_told_in_pieces(self, exchange: Exchange) -> None:
        Hops(exchange)
        request = replace_stop(asked(prompt="Hi", max_tokens=3 * MOST_UNTOLD), ["x" * 250])
        deltas, _ = await told(scripted_head("x" * 200, ends=False), exchange, request)
        assert [len(delta.scored) for delta in deltas] == [MOST_UNTOLD] * 3 + [0]
        assert [delta.text for delta in deltas[:-1]] == [""] * 3


class TestAReplyThatAnotherHeadBegan:
    async def test_has_the_scores_that_it_would_have_had(
        self, head: Head, exchange: Exchange, swarm: StageHops, whole: Any
    ) -> None:
        first, _ = await told(head, exchange, asked(WILD))
        ids = ids_of(first)
        deltas, _ = await told(head, exchange, asked(WILD), ids[:5])
        assert ids_of(deltas) == ids
        assert [len(delta.scored) for delta in deltas] == [len(delta.ids) for delta in deltas]
        assert_scores(whole, PROMPT, ids, scores_of(deltas))

    async def test_and_had_ended_is_scored_all_the_same(
        self, head: Head, exchange: Exchange, swarm: StageHops, whole: Any
    ) -> None:
        first, _ = await told(head, exchange, asked())
        deltas, end = await told(head, exchange, asked(), ids_of(first))
        assert_scores(whole, PROMPT, ids_of(first), scores_of(deltas))
        assert (end.reason, swarm.closed, swarm.sessions) == ("length", True, 0)

    async def test_ended_by_its_end_token_tells_that_too(self, exchange: Exchange) -> None:
        """Scores come with what `Hops` sends back; the scripted head says what it must once more."""
        hops = Hops(exchange)
        request = asked(prompt="Hi", logprobs=None)
        ended = [*scripted_head("").codec.encode_prompt("ab"), END]
        deltas, end = await told(scripted_head("ab"), exchange, request, ended)
        assert ("".join(delta.text for delta in deltas), end.reason) == ("ab", "stop")
        assert hops.frames == []


class TestAPrompt:
    @pytest.mark.parametrize("slices", [512, 3])
    async def test_is_told_first_with_the_scores_of_the_whole_model(
        self,
        head: Head,
        exchange: Exchange,
        swarm: StageHops,
        whole: Any,
        slices: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(generation_module, "PREFILL_TOKENS", slices)
        deltas, _ = await told(head, exchange, asked(echo=True))
        assert deltas[0].prompt is not None
        assert deltas[0].prompt.text == "".join(f"{token} " for token in PROMPT)
        scores = prompt_scores(deltas)
        assert (scores[0].is_first, scores[0].text.strip(), scores[0].top) == (True, "3", [])
        assert_scores(whole, PROMPT[:1], PROMPT[1:], scores[1:])
        assert_scores(whole, PROMPT, ids_of(deltas), scores_of(deltas))

    async def test_alone_is_told_without_a_token(
        self, head: Head, exchange: Exchange, swarm: StageHops, whole: Any
    ) -> None:
        deltas, end = await told(head, exchange, asked(echo=True, max_tokens=0))
        assert_scores(whole, PROMPT[:1], PROMPT[1:], prompt_scores(deltas)[1:])
        assert (end.reason, end.usage.completion_tokens, ids_of(deltas)) == ("length", 0, [])
        assert {frame.type for frame in swarm.frames} == {FrameType.PREFILL, FrameType.CLOSE}

    async def test_may_fill_the_context_when_nothing_follows(
        self, llama: TinyLlama, exchange: Exchange, swarm: StageHops
    ) -> None:
        full = llama.head(context=len(PROMPT))
        deltas, _ = await told(full, exchange, asked(echo=True, max_tokens=0))
        assert len(prompt_scores(deltas)) == len(PROMPT)
        with pytest.raises(ContextTooLong):
            await told(full, exchange, asked(echo=True, max_tokens=1))

    @pytest.mark.parametrize("echo", [True, False])
    async def test_without_scores_travels_only_for_a_reply(
        self, head: Head, exchange: Exchange, swarm: StageHops, echo: bool
    ) -> None:
        deltas, end = await told(head, exchange, asked(echo=echo, max_tokens=0, logprobs=None))
        text = "".join(delta.prompt.text for delta in deltas if delta.prompt)
        assert text == ("".join(f"{token} " for token in PROMPT) if echo else "")
        assert (end.reason, swarm.messages, swarm.frames) == ("length", [], [])

    async def test_of_one_token_has_no_score(self, head: Head, exchange: Exchange, swarm: StageHops) -> None:
        deltas, _ = await told(head, exchange, asked(echo=True, max_tokens=0, prompt=[7]))
        assert [one.is_first for one in prompt_scores(deltas)] == [True]
        assert swarm.frames == []

    async def test_that_is_text_comes_as_it_was_given(self, exchange: Exchange) -> None:
        Hops(exchange)
        deltas, _ = await told(scripted_head("ok"), exchange, asked(echo=True, logprobs=None, prompt="  Hé "))
        assert "".join(delta.prompt.text for delta in deltas if delta.prompt) == "  Hé "
        assert "".join(delta.text for delta in deltas) == "ok"

    async def test_is_computed_as_a_whole_where_hops_hold_its_beginning(
        self, head: Head, exchange: Exchange, swarm: StageHops, whole: Any
    ) -> None:
        reusing = replace(head, prefixes=PrefixIndex(lambda held: held))
        prompt = PROMPT * 20
        await told(reusing, exchange, asked(prompt=prompt))
        swarm.frames.clear()
        deltas, end = await told(reusing, exchange, asked(prompt=prompt, echo=True, max_tokens=2))
        assert FrameType.FORK not in {frame.type for frame in swarm.frames}
        assert end.usage.prompt_tokens_details.cached_tokens == 0
        assert_scores(whole, prompt[:1], prompt[1:], prompt_scores(deltas)[1:])

    async def test_whose_hop_leaves_meanwhile_is_computed_anew(
        self,
        llama: TinyLlama,
        head: Head,
        exchange: Exchange,
        swarm: StageHops,
        whole: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(generation_module, "PREFILL_TOKENS", 3)
        swarm.spares = [CROCUS]
        swarm.replies[1] = lambda frame: failure(frame._replace(hop=1), PeerGone("bellis left"))
        breaking = swarm.send_frame

        def once(frame: bytes, urgency: Any) -> None:
            breaking(frame, urgency)
            if len(swarm.frames) == 2:
                swarm.replies.clear()

        monkeypatch.setattr(swarm, "send_frame", once)
        deltas, _ = await told(head, exchange, asked(echo=True))
        assert_scores(whole, PROMPT[:1], PROMPT[1:], prompt_scores(deltas)[1:])
        assert_scores(whole, PROMPT, ids_of(deltas), scores_of(deltas))
        prefills = [frame for frame in swarm.frames if frame.type == FrameType.PREFILL]
        assert {frame.flags for frame in prefills} == {Flags.TIMED}
        assert [a.session != b.session for a, b in pairwise(prefills)].count(True) == 1
        assert FrameType.RESUME not in {frame.type for frame in swarm.frames}

    async def test_of_a_chat_is_told_as_its_template_writes_it(self, exchange: Exchange) -> None:
        Hops(exchange)
        request = GenerationRequest(
            model="tiny", messages=[Message("user", "Hi")], sampling=GREEDY, echo=True, logprobs=None
        )
        deltas, _ = await told(scripted_head("ok"), exchange, request)
        assert deltas[0].prompt is not None
        assert deltas[0].prompt.text == "Hi\n"


class TestHowManyThereMayBe:
    @pytest.fixture(autouse=True)
    def most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(generation_module, "MAX_SCORES", 100)

    @pytest.mark.parametrize(
        "request_",
        [
            asked(max_tokens=21),
            asked(max_tokens=100, logprobs=0, echo=True),
            asked(max_tokens=0, echo=True, logprobs=12),
            asked(max_tokens=None, echo=True, logprobs=11),
        ],
        ids=["of a reply", "of both", "of a prompt", "of a prompt and one token"],
    )
    async def test_more_are_refused_before_anything_is_sent(
        self, head: Head, exchange: Exchange, swarm: StageHops, request_: GenerationRequest
    ) -> None:
        with pytest.raises(InvalidRequest, match="a reply may have 100: ask for fewer") as caught:
            await told(head, exchange, request_)
        assert (caught.value.param, swarm.messages) == ("logprobs", [])

    async def test_as_many_are_told(self, head: Head, exchange: Exchange, swarm: StageHops) -> None:
        deltas, _ = await told(head, exchange, asked(max_tokens=12, echo=True))
        assert sum(1 + len(one.top) for one in prompt_scores(deltas) + scores_of(deltas)) == 96

    async def test_a_reply_that_may_have_any_length_ends_there(
        self, head: Head, exchange: Exchange, swarm: StageHops
    ) -> None:
        _, end = await told(head, exchange, asked(max_tokens=None))
        assert (end.reason, end.usage.completion_tokens) == ("length", 20)


async def test_many_scores_are_told_while_others_go_on(
    head: Head, exchange: Exchange, swarm: StageHops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_module, "AT_ONCE", 1)
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(go_on())
    deltas, _ = await told(head, exchange, asked(prompt=PROMPT * 50, echo=True, max_tokens=0))
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)
    assert turns > len(prompt_scores(deltas)) == 400


class TestABias:
    async def test_makes_a_token_come_or_never(self, exchange: Exchange) -> None:
        Hops(exchange)
        letter = scripted_head("").codec.encode_prompt("z")[0]
        request = asked(Sampling(temperature=0, logit_bias={letter: 5.0}), 4, logprobs=None)
        deltas, _ = await told(scripted_head("abcdef"), exchange, request)
        assert "".join(delta.text for delta in deltas) == "zzzz"

    async def test_of_a_token_that_the_model_does_not_have_is_refused_by_name(
        self, exchange: Exchange
    ) -> None:
        hops = Hops(exchange)
        with pytest.raises(InvalidRequest, match="9999 of 'logit_bias'") as caught:
            await told(scripted_head("a"), exchange, asked(Sampling(logit_bias={9999: 1.0})))
        assert caught.value.param == "logit_bias"
        assert hops.messages == []


def replace_stop(request: GenerationRequest, stop: list[str]) -> GenerationRequest:
    stopping = Stopping(max_tokens=request.stopping.max_tokens, stop=stop)
    return GenerationRequest(
        model=request.model,
        prompt=request.prompt,
        sampling=request.sampling,
        stopping=stopping,
        logprobs=request.logprobs,
    )
