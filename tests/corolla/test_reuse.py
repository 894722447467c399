"""A reply whose prompt begins like an earlier one says what it says without that, and computes the rest."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch

from corolla.exchange import Exchange
from corolla.generation import Completed, Head, TextDelta, generate
from corolla.prefixes import LEAST_TOKENS, PrefixIndex
from schema.errors import GenerationFailed, KVCacheFull
from schema.frames import Flags, FrameType
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.ids import PeerId
from schema.messages import RouteRequest
from tests.corolla.fakes import ANEMONE, BELLIS, CROCUS, ME, failure, until
from tests.corolla.tiny_text import SHAPE, StageHops, TinyLlama

ROUTES: dict[str, Mapping[PeerId, tuple[int, int]]] = {
    "one volunteer": {ANEMONE: (0, 4)},
    "the driver's own": {ME: (0, 4)},
    "three volunteers": {ANEMONE: (0, 1), BELLIS: (1, 3), CROCUS: (3, 4)},
    "the driver's own and two": {ME: (0, 1), BELLIS: (1, 3), CROCUS: (3, 4)},
}
SYSTEM = [(7 * number) % SHAPE.vocabulary for number in range(LEAST_TOKENS + 8)]
QUESTIONS = [[11, 12, 13], [21, 22], [31, 32, 33, 34]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


class Reader:
    """A driver and the hops of its route."""

    def __init__(self, llama: TinyLlama, route: str = "three volunteers") -> None:
        self.head = replace(llama.head(), prefixes=PrefixIndex(lambda held: held))
        self.exchange = Exchange()
        self.stages = {peer: llama.stage(*span) for peer, span in ROUTES[route].items()}
        self.hops = StageHops(self.exchange, self.stages)

    @property
    def prefixes(self) -> PrefixIndex:
        assert self.head.prefixes is not None
        return self.head.prefixes

    @property
    def kept(self) -> list[int]:
        """Sessions that each hop keeps."""
        return [stage.kept for stage in self.stages.values()]

    async def ask(self, prompt: list[int], head: Head | None = None, asker: str | None = "") -> Completed:
        """The end of a reply; its tokens are in `words`."""
        self.words: list[int] = []
        reply = generate(head or self.head, self.exchange, completion(prompt), asker)
        async with aclosing(reply) as events:
            async for event in events:
                if isinstance(event, Completed):
                    return event
                self.words += map(int, event.text.split())
        raise AssertionError("the reply has no end")

    async def ask_cold(self, prompt: list[int]) -> list[int]:
        await self.ask(prompt, replace(self.head, prefixes=None))
        return self.words

    def steps(self, kind: FrameType) -> int:
        return sum(frame.type == kind for frame in self.hops.frames)


def completion(prompt: list[int], stop: Sequence[str] = ()) -> GenerationRequest:
    return GenerationRequest(
        model="tiny",
        prompt=prompt,
        sampling=Sampling(temperature=0),
        stopping=Stopping(max_tokens=8, stop=list(stop)),
    )


def cached(end: Completed) -> int:
    return end.usage.prompt_tokens_details.cached_tokens


@pytest.mark.parametrize("route", ROUTES)
async def test_the_turns_of_a_chat_compute_only_what_is_new(llama: TinyLlama, route: str) -> None:
    reader = Reader(llama, route)
    prompt: list[int] = list(SYSTEM)
    before = 0
    for question in QUESTIONS:
        prompt = prompt + question
        expected = await reader.ask_cold(prompt)
        end = await reader.ask(prompt)
        assert reader.words == expected
        assert cached(end) == before
        before = len(prompt) + len(expected) - 1  # the last token was never fed
        prompt = prompt + expected
        assert reader.kept == [1] * len(reader.stages)  # the longest holds what earlier turns held
    assert len(reader.prefixes) == 1


@pytest.mark.parametrize("route", ROUTES)
async def test_chats_share_their_system_prompt(llama: TinyLlama, route: str) -> None:
    reader = Reader(llama, route)
    for number, question in enumerate(QUESTIONS):
        expected = await reader.ask_cold(SYSTEM + question)
        end = await reader.ask(SYSTEM + question)
        assert (reader.words, cached(end)) == (expected, len(SYSTEM) if number else 0)
    assert reader.kept == [len(QUESTIONS)] * len(reader.stages)


async def test_the_same_prompt_again_computes_its_last_token(llama: TinyLlama) -> None:
    reader = Reader(llama)
    await reader.ask(SYSTEM)
    first = reader.words
    assert cached(await reader.ask(SYSTEM)) == len(SYSTEM) - 1
    assert reader.words == first


async def test_what_another_has_asked_is_computed_again(llama: TinyLlama) -> None:
    """Else a reply's usage, or its time, would tell how others' prompts begin."""
    reader = Reader(llama)
    await reader.ask(SYSTEM, asker="ada")
    assert cached(await reader.ask(SYSTEM, asker="bob")) == 0
    assert cached(await reader.ask(SYSTEM, asker=None)) == 0
    assert cached(await reader.ask(SYSTEM, asker="ada")) == len(SYSTEM) - 1


async def test_a_short_prefix_is_computed(llama: TinyLlama) -> None:
    reader = Reader(llama)
    await reader.ask(SYSTEM)
    assert cached(await reader.ask([*SYSTEM[: LEAST_TOKENS - 1], 99, 98, 97])) == 0


async def test_a_session_too_short_to_be_forked_is_not_kept(llama: TinyLlama) -> None:
    reader = Reader(llama)
    await reader.ask([1, 2, 3])
    assert (reader.kept, len(reader.prefixes)) == ([0, 0, 0], 0)


async def test_forks_of_one_session_at_once_do_not_disturb_each_other(llama: TinyLlama) -> None:
    reader = Reader(llama)
    prompts = [SYSTEM + question for question in QUESTIONS]
    expected = [await reader.ask_cold(prompt) for prompt in prompts]
    await reader.ask(SYSTEM)

    async def said(prompt: list[int]) -> list[int]:
        events = generate(reader.head, reader.exchange, completion(prompt))
        texts = [event.text async for event in events if isinstance(event, TextDelta)]
        return [int(word) for word in "".join(texts).split()]

    assert await asyncio.gather(*map(said, prompts)) == expected
    assert reader.steps(FrameType.FORK) == len(prompts)
    assert [stage.sessions for stage in reader.stages.values()] == [0, 0, 0]


async def test_a_reply_that_is_left_early_is_not_kept(llama: TinyLlama) -> None:
    reader = Reader(llama)
    async with aclosing(generate(reader.head, reader.exchange, completion(SYSTEM))) as events:
        await anext(events)
    assert [stage.kv_used for stage in reader.stages.values()] == [0, 0, 0]
    assert (reader.kept, len(reader.prefixes)) == ([0, 0, 0], 0)
    assert not reader.hops.frames[-1].flags & Flags.KEEP


async def test_a_reply_that_breaks_is_not_kept(llama: TinyLlama) -> None:
    reader = Reader(llama)
    reader.hops.replies[2] = lambda frame: failure(frame, KVCacheFull("no memory"))
    with pytest.raises(KVCacheFull):
        await reader.ask(SYSTEM)
    assert (reader.kept, len(reader.prefixes)) == ([0, 0, 0], 0)


async def test_a_reply_that_ends_with_a_step_under_way_is_kept_up_to_there(llama: TinyLlama) -> None:
    reader = Reader(llama)
    words = await reader.ask_cold(SYSTEM)
    async for event in generate(reader.head, reader.exchange, completion(SYSTEM, stop=[f"{words[3]} "])):
        reader.hops.held = isinstance(event, TextDelta) and event.tokens == 3
    assert [stage.sessions for stage in reader.stages.values()] == [0, 0, 0]
    assert cached(await reader.ask(SYSTEM + words)) == len(SYSTEM) + 3


async def test_where_nothing_can_be_cut_off_such_a_reply_is_not_kept(llama: TinyLlama) -> None:
    reader = Reader(llama)
    words = await reader.ask_cold(SYSTEM)
    head = replace(reader.head, prefixes=PrefixIndex(lambda _: 0))
    async for event in generate(head, reader.exchange, completion(SYSTEM, stop=[f"{words[3]} "])):
        reader.hops.held = isinstance(event, TextDelta) and event.tokens == 3
    assert reader.kept == [0, 0, 0]
    await reader.ask(SYSTEM, head)
    assert reader.kept == [1, 1, 1]
    assert cached(await reader.ask(SYSTEM + QUESTIONS[0], head)) == 0
    assert cached(await reader.ask(SYSTEM + words, head)) == len(SYSTEM) + len(words) - 1


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_where_a_hop_has_begun_anew_everything_is_computed_again(llama: TinyLlama, which: int) -> None:
    reader = Reader(llama)
    prompt = SYSTEM + QUESTIONS[0]
    expected = await reader.ask_cold(prompt)
    await reader.ask(SYSTEM)
    list(reader.stages.values())[which].close_all()
    end = await reader.ask(prompt)
    assert (reader.words, cached(end)) == (expected, 0)
    assert reader.steps(FrameType.FORK) == 1
    assert [stage.sessions for stage in reader.stages.values()] == [0, 0, 0]
    assert cached(await reader.ask([*prompt, 5])) >= len(prompt)  # it was kept anew


async def test_a_hop_that_knows_no_forks_costs_time_alone(llama: TinyLlama) -> None:
    """One that skips a frame of a type that it does not know, and then gets a step in the middle."""
    reader = Reader(llama, "one volunteer")
    prompt = SYSTEM + QUESTIONS[0]
    expected = await reader.ask_cold(prompt)
    await reader.ask(SYSTEM)
    send = reader.hops.send_frame

    def without_forks(frame: bytes, urgency: object) -> None:
        if frame[3] != FrameType.FORK:
            send(frame, urgency)  # type: ignore[arg-type]

    reader.hops.send_frame = without_forks  # type: ignore[method-assign]
    end = await reader.ask(prompt)
    assert (reader.words, cached(end)) == (expected, 0)


async def test_the_relay_is_asked_for_the_hops_that_hold_the_prefix(llama: TinyLlama) -> None:
    reader = Reader(llama)
    await reader.ask(SYSTEM)
    await reader.ask(SYSTEM + QUESTIONS[0])
    asked = [message.prefer for message in reader.hops.messages if isinstance(message, RouteRequest)]
    assert [bool(one) for one in asked] == [False, True]
    assert asked[1] == [ANEMONE, BELLIS, CROCUS]


async def test_over_another_route_everything_is_computed(llama: TinyLlama) -> None:
    reader = Reader(llama)
    await reader.ask(SYSTEM)
    other = StageHops(reader.exchange, {ANEMONE: llama.stage(0, SHAPE.blocks)})
    assert cached(await reader.ask(SYSTEM + QUESTIONS[0])) == 0
    assert not any(frame.type == FrameType.FORK for frame in other.frames)


async def test_a_hop_that_leaves_takes_its_prefixes_along(
    llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corolla.repair.WAIT_SECONDS", 0.0)
    reader = Reader(llama)
    await reader.ask(SYSTEM)
    async with aclosing(generate(reader.head, reader.exchange, completion([9] * 40))) as events:
        reader.hops.held = True
        first = asyncio.create_task(anext(events))
        await until(lambda: reader.hops.waiting)
        reader.hops.release()
        await first
        await until(lambda: reader.hops.waiting)
        reader.hops.lose(BELLIS)
        with pytest.raises(GenerationFailed, match="bellis"):
            await anext(events)
    assert len(reader.prefixes) == 0


@pytest.fixture(autouse=True)
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    """Every reply ends its tasks."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
