"""Vectors are what the whole model makes of a text; one that cannot be made says why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from corolla import generation as generation_module
from corolla.embedding import TextVector, embed_texts
from corolla.exchange import Exchange
from corolla.generation import Completed, Head
from schema.errors import ContextTooLong, InvalidRequest, KVCacheFull, PeerGone
from schema.frames import Flags, FrameType
from tests.corolla.fakes import ANEMONE, BELLIS, CROCUS, failure, until
from tests.corolla.tiny_text import SHAPE, StageHops, TinyLlama
from volunteer.stage import Stage

TEXTS: list[str | list[int]] = [[3, 1, 4, 1, 5], [7], "2 7 1 8", [9] * 30, [3, 1, 4, 1, 5], [8, 8, 2]]


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


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def swarm(exchange: Exchange, stages: list[Stage]) -> StageHops:
    return StageHops(exchange, {ANEMONE: stages[0], BELLIS: stages[1]})


@pytest.fixture(autouse=True)
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def vectors(
    head: Head, exchange: Exchange, texts: list[str | list[int]]
) -> tuple[list[TextVector], Completed]:
    *found, end = [event async for event in embed_texts(head, exchange, "tiny", texts)]
    assert isinstance(end, Completed)
    return [one for one in found if isinstance(one, TextVector)], end


def expected(llama: TinyLlama, tokens: list[int]) -> "np.ndarray[Any, Any]":
    """The mean of what transformers' model projects, of length 1."""
    model: Any = LlamaForCausalLM.from_pretrained(llama.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        mean = model.model(torch.tensor([tokens])).last_hidden_state[0].double().mean(dim=0)
    return (mean / mean.norm()).float().numpy()


@pytest.mark.parametrize("slices", [512, 3])
async def test_a_vector_is_the_mean_of_what_the_whole_model_makes_of_the_tokens(
    llama: TinyLlama,
    head: Head,
    exchange: Exchange,
    swarm: StageHops,
    slices: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation_module, "PREFILL_TOKENS", slices)
    found, end = await vectors(head, exchange, TEXTS)
    tokens = [head.codec.encode_prompt(text) for text in TEXTS]
    assert [(one.index, one.tokens) for one in found] == list(enumerate(map(len, tokens)))
    for one, ids in zip(found, tokens, strict=True):
        assert np.frombuffer(one.vector, "<f4") == pytest.approx(expected(llama, ids), abs=1e-5)
        assert np.linalg.norm(np.frombuffer(one.vector, "<f4")) == pytest.approx(1.0, abs=1e-6)
    total = sum(map(len, tokens))
    assert (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens) == ("stop", total, 0)
    assert swarm.sessions == 0


async def test_a_hop_that_leaves_meanwhile_changes_nothing(
    llama: TinyLlama, head: Head, exchange: Exchange, swarm: StageHops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_module, "PREFILL_TOKENS", 3)
    swarm.spares = [CROCUS]
    sessions: set[bytes] = set()

    def first_session(frame: Any) -> Any:
        sessions.add(frame.session)
        if len(sessions) == 1:
            return failure(frame._replace(hop=1), PeerGone("bellis left"))
        return swarm._answer(frame)

    swarm.replies[2] = first_session
    found, _ = await vectors(head, exchange, [[3, 1, 4, 1, 5, 9, 2, 6]])
    assert np.frombuffer(found[0].vector, "<f4") == pytest.approx(
        expected(llama, [3, 1, 4, 1, 5, 9, 2, 6]), abs=1e-5
    )
    assert len(sessions) == 2
    prefills = [frame for frame in swarm.frames if frame.type == FrameType.PREFILL]
    assert {frame.flags for frame in prefills} == {Flags.TIMED}


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ([], InvalidRequest, "empty"),
        ("", InvalidRequest, "empty"),
        ([5, 9999], InvalidRequest, "9999 of 'input'"),
        ("x" * 100_000, ContextTooLong, "100000 characters"),
        ([1] * 41, ContextTooLong, "41 tokens and the model 40 positions"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_before_anything_is_sent(
    llama: TinyLlama,
    exchange: Exchange,
    swarm: StageHops,
    text: str | list[int],
    kind: type[InvalidRequest],
    said: str,
) -> None:
    with pytest.raises(kind, match=said) as caught:
        await vectors(llama.head(context=40), exchange, [[1, 2], text])
    assert type(caught.value) is kind
    assert caught.value.param == "input"
    assert swarm.messages == []


async def test_a_text_may_fill_the_context(llama: TinyLlama, exchange: Exchange, swarm: StageHops) -> None:
    found, _ = await vectors(llama.head(context=40), exchange, [[1] * 40])
    assert [one.tokens for one in found] == [40]


async def test_a_failure_ends_all_and_frees_everything(
    head: Head, exchange: Exchange, swarm: StageHops
) -> None:
    swarm.replies[0] = lambda frame: failure(frame, KVCacheFull("no memory"))
    with pytest.raises(KVCacheFull):
        await vectors(head, exchange, TEXTS)
    assert swarm.sessions == 0


async def test_leaving_early_frees_everything(head: Head, exchange: Exchange, swarm: StageHops) -> None:
    async with aclosing(embed_texts(head, exchange, "tiny", TEXTS)) as events:
        await anext(events)
        swarm.held = True
        waiting = asyncio.create_task(anext(events))
        await until(lambda: swarm.waiting or waiting.done())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert swarm.sessions == 0
