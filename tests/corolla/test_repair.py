"""A reply goes on when its hops do not: the same tokens, none lost, none twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import torch

from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.prefixes import PrefixIndex
from corolla.repair import MOST_LOSSES, MOST_REPAIRS, POLL_SECONDS, WAIT_SECONDS, Break, Repairs
from corolla.reply import TextDelta
from schema.errors import (
    CorollaError,
    GenerationFailed,
    KVCacheFull,
    MalformedTensor,
    NotFinite,
    PeerGone,
    RouteExpired,
    ShapeMismatch,
    Unavailable,
)
from schema.frames import Frame
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.ids import PeerId
from schema.messages import HopLost, RouteRequest
from tests.corolla.fakes import (
    ANEMONE,
    BELLIS,
    CROCUS,
    DAHLIA,
    EVENING,
    ME,
    Hops,
    failure,
    until,
)
from tests.corolla.test_generation import WRONG_ANSWERS, byte_codec
from tests.corolla.tiny_text import StageHops, TinyLlama, scripted_head

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
TOKENS = 12
GREEDY = Sampling(temperature=0)
WILD = Sampling(temperature=1.5, seed=7, repetition_penalty=1.3, frequency_penalty=0.5)
GONE = Break(GenerationFailed("it left"), ANEMONE, is_gone=True)
FULL = Break(KVCacheFull("no memory"), BELLIS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


class Reader:
    """A driver over three hops, or over its own blocks and two hops."""

    def __init__(self, llama: TinyLlama, first: PeerId = ANEMONE) -> None:
        self.head = llama.head()
        self.exchange = Exchange()
        spans = {first: (0, 1), BELLIS: (1, 3), CROCUS: (3, 4)}
        self.hops = StageHops(self.exchange, {peer: llama.stage(*span) for peer, span in spans.items()})
        self.deltas: list[TextDelta] = []

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def ids(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.ids]

    @property
    def excluded(self) -> list[list[PeerId]]:
        """Of each route that was asked for."""
        asked = [message for message in self.hops.messages if isinstance(message, RouteRequest)]
        return [[PeerId(peer) for peer in message.exclude] for message in asked]

    async def read(
        self,
        sampling: Sampling = GREEDY,
        generated: list[int] | None = None,
        head: Head | None = None,
        stopping: Stopping | None = None,
    ) -> Completed:
        request = GenerationRequest(
            model="tiny",
            prompt=PROMPT,
            sampling=sampling,
            stopping=stopping or Stopping(max_tokens=TOKENS),
        )
        async for event in generate(head or self.head, self.exchange, request, "", generated or ()):
            if isinstance(event, Completed):
                return event
            self.deltas.append(event)
        raise AssertionError("the reply has no end")

    def at_step(self, step: int, answer: Callable[[Frame], Frame]) -> None:
        """Once, this comes instead of the answer to a step."""

        def once(frame: Frame) -> Frame:
            del self.hops.replies[step]
            return answer(frame)

        self.hops.replies[step] = once


async def undisturbed(llama: TinyLlama, sampling: Sampling = GREEDY) -> Reader:
    reader = Reader(llama)
    await reader.read(sampling)
    return reader


class TestAHopThatLeaves:
    @pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "drawn"])
    @pytest.mark.parametrize("first", [ANEMONE, ME], ids=["elsewhere", "the driver's own"])
    @pytest.mark.parametrize("lost", [ANEMONE, BELLIS, CROCUS])
    @pytest.mark.parametrize("after", [0, 1, 5, TOKENS - 1], ids="after {} tokens".format)
    async def test_is_replaced_and_the_reply_is_the_same(
        self, llama: TinyLlama, after: int, lost: PeerId, first: PeerId, sampling: Sampling
    ) -> None:
        reader = Reader(llama, first)
        reader.hops.spares = [DAHLIA]
        reader.hops.held = True
        reading = asyncio.create_task(reader.read(sampling))
        for _ in range(after):
            await until(lambda: reader.hops.waiting)
            reader.hops.release()
        await until(lambda: reader.hops.waiting)
        reader.hops.held = False
        reader.hops.lose(lost)
        end = await reading
        expected = await undisturbed(llama, sampling)
        assert (reader.text, reader.ids) == (expected.text, expected.ids)
        assert (end.reason, end.usage.completion_tokens) == ("length", TOKENS)
        assert reader.hops.sessions == 0

    async def test_between_two_steps_is_replaced_too(self, llama: TinyLlama) -> None:
        """All steps have come back, and the next one cannot be sent."""
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        request = GenerationRequest(
            model="tiny", prompt=PROMPT, sampling=GREEDY, stopping=Stopping(max_tokens=TOKENS)
        )
        async for event in generate(reader.head, reader.exchange, request):
            if isinstance(event, TextDelta):
                reader.deltas.append(event)
            if len(reader.deltas) == 3 and not reader.hops.gone:
                assert not reader.hops.waiting
                reader.hops.gone.add(BELLIS)
                session = reader.hops.frames[-1].session
                reader.exchange.on_message(HopLost(session=session.hex(), peer=BELLIS))
        assert (reader.text, len(reader.excluded)) == ((await undisturbed(llama)).text, 2)

    async def test_as_the_relay_says_is_replaced_too(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        reader.at_step(3, lambda frame: failure(frame, PeerGone("not connected")))
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text

    async def test_is_waited_for_until_somebody_takes_its_place(
        self, llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corolla.repair.POLL_SECONDS", 0.0)
        reader = Reader(llama)
        reader.hops.held = True
        reading = asyncio.create_task(reader.read())
        await until(lambda: reader.hops.waiting)
        reader.hops.held = False
        reader.hops.lose(BELLIS)
        await until(lambda: len(reader.excluded) > 3)
        reader.hops.gone.clear()  # it is back
        await reading
        assert reader.text == (await undisturbed(llama)).text

    async def test_is_replaced_where_prefixes_are_kept_too(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        head = replace(reader.head, prefixes=PrefixIndex(lambda held: held))
        reader.at_step(2, lambda frame: failure(frame, PeerGone("not connected")))
        await reader.read(head=head)
        assert reader.text == (await undisturbed(llama)).text


class TestAHopThatFails:
    @pytest.mark.parametrize(("answer", "kind"), WRONG_ANSWERS)
    @pytest.mark.parametrize("step", [0, 3], ids=["at once", "in the middle"])
    async def test_is_not_on_the_next_route(
        self, llama: TinyLlama, step: int, answer: Callable[[Frame], Frame], kind: type[CorollaError]
    ) -> None:
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        reader.at_step(step, answer)
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text
        assert reader.excluded == [[], [CROCUS]]  # who has sent it

    async def test_with_a_reason_is_not_on_the_next_route(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        reader.at_step(4, lambda frame: failure(frame._replace(hop=1), KVCacheFull("no memory")))
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text
        assert reader.excluded == [[], [BELLIS]]

    @pytest.mark.parametrize("error", [ShapeMismatch, NotFinite, MalformedTensor])
    async def test_is_on_no_route_with_whoever_sent_what_it_refuses(
        self, llama: TinyLlama, error: type[CorollaError]
    ) -> None:
        """Whose fault it was cannot be known: the one before may have sent garbage."""
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA, EVENING]
        reader.at_step(4, lambda frame: failure(frame._replace(hop=1), error("not as it should be")))
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text
        assert reader.excluded == [[], sorted([ANEMONE, BELLIS])]

    async def test_goes_on_where_only_one_of_two_suspects_can_be_done_without(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.hops.spares = [DAHLIA]
        reader.at_step(4, lambda frame: failure(frame._replace(hop=1), ShapeMismatch("garbage")))
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text
        assert reader.excluded == [[], sorted([ANEMONE, BELLIS]), [ANEMONE]]

    async def test_ends_the_reply_with_its_reason_where_there_is_no_other(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.at_step(4, lambda frame: failure(frame, KVCacheFull("no memory for more tokens")))
        with pytest.raises(KVCacheFull, match="no memory for more tokens"):
            await reader.read()
        assert reader.hops.sessions == 0


class TestARoute:
    async def test_that_expires_is_renewed(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.at_step(4, lambda frame: failure(frame, RouteExpired("ask for a new one")))
        await reader.read()
        assert reader.text == (await undisturbed(llama)).text
        assert reader.excluded == [[], []]

    async def test_is_not_asked_for_without_a_relay(
        self, llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corolla.repair.WAIT_SECONDS", 0.0)
        reader = Reader(llama)
        reader.hops.held = True
        reading = asyncio.create_task(reader.read())
        await until(lambda: reader.hops.waiting)
        reader.exchange.detach(Unavailable("the relay is gone"))
        with pytest.raises(Unavailable):
            await reading


class TestAReplyThatAnotherHeadHasBegun:
    @pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "drawn"])
    @pytest.mark.parametrize("known", [0, 1, 7, TOKENS])
    async def test_is_told_from_the_beginning_and_goes_on_as_it_would_have(
        self, llama: TinyLlama, known: int, sampling: Sampling
    ) -> None:
        expected = await undisturbed(llama, sampling)
        reader = Reader(llama)
        end = await reader.read(sampling, generated=expected.ids[:known])
        assert (reader.text, reader.ids) == (expected.text, expected.ids)
        assert (end.reason, end.usage.completion_tokens) == ("length", TOKENS)
        assert len(reader.excluded) == (known < TOKENS)  # one that is complete needs no route

    async def test_ends_where_it_has_ended(self, llama: TinyLlama) -> None:
        expected = await undisturbed(llama)
        stop_at = expected.ids[4]
        reader = Reader(llama)
        stopping = Stopping(max_tokens=TOKENS, stop_token_ids=[stop_at])
        end = await reader.read(
            generated=[*expected.ids[: expected.ids.index(stop_at) + 1], 5, 5], stopping=stopping
        )
        assert end.reason == "stop"
        assert reader.text == "".join(f"{token} " for token in expected.ids[: expected.ids.index(stop_at)])

    async def test_ends_at_a_stop_string_that_began_before(self) -> None:
        """What is held back because it may become a stop string is known to the next head too."""
        exchange = Exchange()
        Hops(exchange)
        ids = byte_codec().encode_prompt("hello, wor")
        request = GenerationRequest(
            model="tiny", prompt=PROMPT, sampling=GREEDY, stopping=Stopping(max_tokens=40, stop=["world"])
        )
        head = scripted_head("ld and more")
        said = [event async for event in generate(head, exchange, request, "", ids)]
        assert "".join(event.text for event in said if isinstance(event, TextDelta)) == "hello, "


class TestRepairs:
    def test_of_somebody_who_is_gone_wait_for_others(self) -> None:
        repairs = Repairs()
        assert repairs.broke(GONE, 10.0)
        assert repairs.excluded == frozenset()
        assert repairs.wait(10.0 + WAIT_SECONDS / 2) == POLL_SECONDS
        with pytest.raises(GenerationFailed, match="it left"):
            repairs.wait(10.0 + WAIT_SECONDS)

    def test_of_somebody_who_refuses_wait_for_nobody(self) -> None:
        repairs = Repairs()
        assert repairs.broke(FULL, 10.0)
        assert repairs.excluded == {BELLIS}
        with pytest.raises(KVCacheFull):
            repairs.wait(10.0)

    def test_of_what_may_be_the_fault_of_two_do_without_both_or_else_without_one(self) -> None:
        repairs = Repairs()
        assert repairs.broke(Break(ShapeMismatch("garbage"), BELLIS, suspects=(ANEMONE,)), 0.0)
        assert repairs.excluded == {ANEMONE, BELLIS}
        assert (repairs.wait(0.0), repairs.excluded) == (0.0, {ANEMONE})
        assert (repairs.wait(0.0), repairs.excluded) == (0.0, {BELLIS})
        with pytest.raises(ShapeMismatch):
            repairs.wait(0.0)

    def test_of_a_step_that_nobody_answers_do_without_all_its_hops(self) -> None:
        repairs = Repairs()
        assert repairs.broke(Break(GenerationFailed("late"), suspects=(ANEMONE, BELLIS)), 0.0)
        assert repairs.excluded == {ANEMONE, BELLIS}
        with pytest.raises(GenerationFailed, match="late"):
            repairs.wait(0.0)

    def test_do_without_who_comes_and_goes(self) -> None:
        repairs = Repairs()
        for _ in range(MOST_LOSSES - 1):
            repairs.broke(GONE, 0.0)
        assert repairs.excluded == frozenset()
        repairs.broke(GONE, 0.0)
        assert repairs.excluded == {ANEMONE}

    def test_have_an_end(self) -> None:
        repairs = Repairs()
        assert [repairs.broke(GONE, 0.0) for _ in range(MOST_REPAIRS + 1)] == [*[True] * MOST_REPAIRS, False]

    @pytest.mark.parametrize("broken", [None, Break(ShapeMismatch("nobody's fault"))])
    def test_are_for_what_hops_do(self, broken: Break | None) -> None:
        repairs = Repairs()
        assert not repairs.broke(broken, 0.0)
        assert repairs.count == 0


@pytest.fixture(autouse=True)
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    """Every reply ends its tasks."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
