"""A volunteer's head writes replies for others: each ends once, finished or failed by name, or cancelled."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from corolla.exchange import Exchange
from corolla.prefixes import LEAST_TOKENS, PrefixIndex
from schema.errors import KVCacheFull, PeerGone, QueueFull, Unavailable
from schema.frames import Flags, FrameType
from schema.generation import GenerationRequest, Message, Sampling, Stopping, Tool, Tools
from schema.messages import Delta, Embed, Embedded, Failed, Finished, FromPeer, Generate, PromptPart
from tests.corolla.fakes import HIDDEN, Hops, failure, until
from tests.corolla.tiny_text import scripted_head
from volunteer.head_service import HeadService


class Told:
    """Who asked for the replies; `refusal` makes it unreachable."""

    def __init__(self) -> None:
        self.messages: list[FromPeer] = []
        self.refusal: Exception | None = None

    def __call__(self, message: FromPeer) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.messages.append(message)

    def text(self, request: str) -> str:
        deltas = [one for one in self.messages if isinstance(one, Delta) and one.request == request]
        return "".join(one.text for one in deltas)

    def ends(self) -> list[Finished | Failed]:
        return [one for one in self.messages if isinstance(one, Finished | Failed)]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def hops(exchange: Exchange) -> Hops:
    return Hops(exchange)


@pytest.fixture
async def service(exchange: Exchange, hops: Hops, told: Told) -> AsyncIterator[HeadService]:
    """Writes "Good day." for the model `tiny`."""
    made = HeadService(exchange, told)
    made.install(scripted_head("Good day."), "tiny")
    yield made
    await made.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def generate(request: str = "r", model: str = "tiny", prompt: str = "Hi") -> Generate:
    body = GenerationRequest(
        model=model, prompt=prompt, sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=50)
    )
    return Generate(request=request, body=body)


class TestAReply:
    async def test_comes_in_deltas_and_is_finished(self, service: HeadService, told: Told) -> None:
        service.start(generate())
        assert len(service) == 1
        await service.finish()
        (end,) = told.ends()
        assert told.text("r") == "Good day."
        assert isinstance(end, Finished)
        assert (end.request, end.reason, end.usage.completion_tokens) == ("r", "stop", 10)
        assert told.messages[-1] is end
        assert len(service) == 0

    async def test_that_breaks_ends_with_the_reason(
        self, service: HeadService, told: Told, hops: Hops
    ) -> None:
        hops.replies[3] = lambda frame: failure(frame, KVCacheFull("no memory"))
        service.start(generate())
        await service.finish()
        (end,) = told.ends()
        assert isinstance(end, Failed)
        assert (end.request, end.error.code, end.error.message) == ("r", "kv_cache_full", "no memory")

    async def test_says_at_once_that_it_stops_for_a_hop_and_goes_on(
        self, service: HeadService, told: Told, hops: Hops
    ) -> None:
        hops.replies[3] = lambda frame: failure(frame, PeerGone("it left"))
        service.start(generate())
        await until(lambda: any(isinstance(one, Delta) and one.is_repairing for one in told.messages))
        del hops.replies[3]
        await service.finish()
        assert told.text("r") == "Good day."
        (end,) = told.ends()
        assert isinstance(end, Finished)

    async def test_of_another_model_is_refused(self, service: HeadService, told: Told) -> None:
        service.start(generate(model="huge"))
        await service.finish()
        (end,) = told.ends()
        assert isinstance(end, Failed)
        assert end.error.code == "not_serving"
        assert "'huge'" in end.error.message

    async def test_before_the_head_is_there_is_refused(self, exchange: Exchange, told: Told) -> None:
        service = HeadService(exchange, told)
        service.start(generate())
        await service.finish()
        (end,) = told.ends()
        assert isinstance(end, Failed)
        assert end.error.code == "not_serving"

    async def test_that_meets_a_bug_ends_by_name_and_is_logged(
        self, service: HeadService, told: Told, hops: Hops, caplog: pytest.LogCaptureFixture
    ) -> None:
        def bug(*_: object) -> None:
            raise ZeroDivisionError("the bug")

        hops.replies[2] = bug  # type: ignore[assignment]
        with caplog.at_level(logging.ERROR):
            service.start(generate())
            await service.finish()
        (end,) = told.ends()
        assert isinstance(end, Failed)
        assert end.error.code == "generation_failed"
        assert "the bug" not in end.error.message
        assert "the bug" in caplog.text

    @pytest.mark.parametrize("refusal", [Unavailable("gone"), QueueFull("full")])
    async def test_that_nobody_can_be_told_of_ends_all_the_same(
        self, service: HeadService, told: Told, hops: Hops, refusal: Exception
    ) -> None:
        told.refusal = refusal
        service.start(generate())
        await service.finish()
        assert hops.closed


class TestWhatIsToldBesideText:
    async def test_scores_come_with_their_tokens_to_the_end(self, service: HeadService, told: Told) -> None:
        body = msgspec.structs.replace(generate().body, logprobs=2)
        service.start(Generate(request="r", body=body))
        await service.finish()
        deltas = [one for one in told.messages if isinstance(one, Delta)]
        assert all(one.scored is not UNSET and one.ids is not UNSET for one in deltas)
        assert [len(one.scored or []) for one in deltas] == [len(one.ids or []) for one in deltas]
        assert sum(len(one.ids or []) for one in deltas) == 10
        assert deltas[-1].text == ""

    async def test_a_prompt_comes_first_and_is_no_token(self, service: HeadService, told: Told) -> None:
        service.start(Generate(request="r", body=msgspec.structs.replace(generate().body, echo=True)))
        await service.finish()
        first, second = told.messages[:2]
        assert isinstance(first, Delta)
        assert isinstance(second, Delta)
        assert (first.prompt, first.text, first.ids, first.tokens) == (
            PromptPart(text="Hi", scored=[]),
            "",
            [],
            0,
        )
        assert second.prompt is UNSET

    async def test_without_being_asked_for_there_is_nothing(self, service: HeadService, told: Told) -> None:
        service.start(generate())
        await service.finish()
        for one in told.messages[:-1]:
            assert isinstance(one, Delta)
            assert (one.scored, one.prompt, one.call) == (UNSET, UNSET, UNSET)

    async def test_every_call_has_a_message(self, service: HeadService, told: Told) -> None:
        calls = ", ".join(f'{{"name": "now", "arguments": {{"at": {hour}}}}}' for hour in range(3))
        head = scripted_head(f"[{calls}]")
        cast(Any, head.codec)._tokenizer.chat_template = "{% if tools %}[TOOL_CALLS]{% endif %}x"
        head.model._script[:0] = head.codec.encode_prompt("[TOOL_CALLS]")  # type: ignore[attr-defined]
        service.install(head, "tiny")
        body = GenerationRequest(
            model="tiny",
            messages=[Message("user", "Hi")],
            sampling=Sampling(temperature=0),
            tools=Tools(functions=[Tool("now")]),
        )
        service.start(Generate(request="r", body=body))
        await service.finish()
        made = [one.call for one in told.messages if isinstance(one, Delta) and one.call]
        assert [(call.index, call.arguments) for call in made] == [(i, f'{{"at": {i}}}') for i in range(3)]
        (end,) = told.ends()
        assert isinstance(end, Finished)
        assert end.reason == "tool_calls"


class TestVectors:
    async def test_of_another_model_are_refused(self, service: HeadService, told: Told) -> None:
        service.start(Embed(request="r", model="huge", inputs=["Hi"]))
        await service.finish()
        (end,) = told.ends()
        assert isinstance(end, Failed)
        assert end.error.code == "not_serving"

    async def test_come_for_each_text_and_are_finished(self, service: HeadService, told: Told) -> None:
        head = scripted_head("")
        cast(Any, head.model).hidden_size = HIDDEN
        cast(Any, head.model).normed = lambda hidden: hidden + 1.0
        service.install(head, "tiny")
        service.start(Embed(request="r", model="tiny", inputs=["Hi", "you there"]))
        await service.finish()
        *vectors, end = told.messages
        assert [(one.index, one.tokens) for one in vectors if isinstance(one, Embedded)] == [(0, 2), (1, 9)]
        assert {len(one.vector) for one in vectors if isinstance(one, Embedded)} == {4 * HIDDEN}
        assert isinstance(end, Finished)
        assert (end.request, end.usage.prompt_tokens) == ("r", 11)

    async def test_can_be_cancelled(self, service: HeadService, told: Told, hops: Hops) -> None:
        hops.held = True
        service.start(Embed(request="r", model="tiny", inputs=["Hi"] * 20))
        await until(lambda: hops.waiting)
        service.cancel("r")
        await service.finish()
        assert told.messages == []
        assert hops.closed


@pytest.mark.parametrize("asker", ["ada", UNSET])
async def test_only_a_reply_whose_asker_is_known_is_kept(
    service: HeadService, hops: Hops, asker: str | UnsetType
) -> None:
    head = replace(scripted_head("Good day."), prefixes=PrefixIndex(lambda held: held))
    service.install(head, "tiny")
    service.start(msgspec.structs.replace(generate(prompt="x" * LEAST_TOKENS), asker=asker))
    await service.finish()
    assert hops.closed
    assert bool(hops.frames[-1].flags & Flags.KEEP) is (asker == "ada")


class TestCancelling:
    async def test_ends_that_reply_alone_without_a_word(
        self, service: HeadService, told: Told, hops: Hops
    ) -> None:
        hops.held = True
        service.start(generate("first"))
        await until(lambda: hops.waiting)
        service.cancel("first")
        await service.finish()
        assert told.messages == []
        assert hops.closed
        hops.waiting.clear()
        hops.held = False
        service.start(generate("second", prompt="Hello"))
        await service.finish()
        assert told.text("second") == "Good day."

    async def test_of_an_unknown_reply_does_nothing(self, service: HeadService, told: Told) -> None:
        service.cancel("never heard of")
        service.start(generate())
        await service.finish()
        assert isinstance(told.ends()[0], Finished)

    async def test_everything_frees_every_session(self, service: HeadService, told: Told, hops: Hops) -> None:
        hops.held = True
        for request in "abc":
            service.start(generate(request))
        await until(lambda: len(hops.waiting) == 3)
        await service.close()
        assert [frame.type for frame in hops.frames[3:]] == [FrameType.CLOSE] * 3
        assert told.ends() == []


async def test_finishing_waits_for_replies_that_come_meanwhile(
    service: HeadService, told: Told, hops: Hops
) -> None:
    hops.held = True
    service.start(generate("first"))
    await until(lambda: hops.waiting)
    finishing = asyncio.create_task(service.finish())
    await until(lambda: True)
    service.install(scripted_head("Good day." * 2), "tiny")
    service.start(generate("second"))
    await until(lambda: len(hops.waiting) == 2)
    service.cancel("first")
    await until(lambda: len(service) == 1)
    assert not finishing.done()
    service.cancel("second")
    await finishing
