"""relay/choices.py over REST: several replies of one request, each with its number, and one end for all."""

import asyncio
from typing import Any

import httpx
import openai
import pytest

from relay.choices import Choices
from schema.errors import KVCacheFull
from schema.generation import GenerationRequest
from schema.messages import Cancel, Delta, Generate
from tests.relay.core.peers import MODEL, PROMPT_TOKENS, ScriptedPeer, fail, finish, say_texts
from tests.relay.core.rest_client import CHAT, PROMPT, QUESTION, TEXT, assert_error, events_of
from tests.relay.core.support import RunningRelay


async def hear(head: ScriptedPeer, count: int) -> list[Generate]:
    return [await head.hear(Generate) for _ in range(count)]


async def answer_each(head: ScriptedPeer, count: int) -> list[Generate]:
    """Answer so many requests at once: the text of each is its place among them."""
    asked = await hear(head, count)
    for number, one in enumerate(asked):
        await say_texts(head, one, f"text {number}")
    for one in reversed(asked):
        await finish(head, one, tokens=2)
    return asked


async def test_n_replies_have_seeds_of_their_own_and_one_usage(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.chat.completions.create(**QUESTION, n=3, seed=2**63 - 2)
    asked, reply = await asyncio.gather(answer_each(head, 3), request)
    assert [one.body.sampling.seed for one in asked] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert [(one.index, one.message.content) for one in reply.choices] == [
        (0, "text 0"),
        (1, "text 1"),
        (2, "text 2"),
    ]
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (PROMPT_TOKENS, 6)


async def test_n_replies_without_a_seed_are_not_the_same(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    asked, _ = await asyncio.gather(answer_each(head, 2), assistant.chat.completions.create(**QUESTION, n=2))
    assert asked[0].body.sampling.seed != asked[1].body.sampling.seed


async def test_a_stream_of_n_replies_tells_them_apart(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> dict[int, str]:
        texts: dict[int, str] = {0: "", 1: ""}
        asked: dict[str, Any] = QUESTION | {"n": 2, "stream_options": {"include_usage": True}}
        stream = await assistant.chat.completions.create(**asked, stream=True)
        chunks = [chunk async for chunk in stream]
        for choice in [choice for chunk in chunks for choice in chunk.choices]:
            texts[choice.index] += choice.delta.content or ""
        usage = chunks[-1].usage
        assert usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (PROMPT_TOKENS, 4)
        return texts

    _, texts = await asyncio.gather(answer_each(head, 2), streamed())
    assert texts == {0: "text 0", 1: "text 1"}


async def test_every_choice_of_a_stream_begins_with_its_role_and_ends(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = QUESTION | {"n": 2, "stream": True}
    _, response = await asyncio.gather(answer_each(head, 2), http.post(CHAT, json=body))
    *chunks, done = events_of(response.text)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [one["index"] for one in choices if "role" in one["delta"]] == [0, 1]
    assert sorted(one["index"] for one in choices if one["finish_reason"] == "stop") == [0, 1]
    assert done == "[DONE]"


@pytest.mark.parametrize("prompts", [["a", "b"], [[1, 2], [3]]], ids=str)
async def test_several_prompts_are_answered_in_their_order(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI, prompts: Any
) -> None:
    request = assistant.completions.create(model=MODEL, prompt=prompts, n=2, seed=5)
    asked, reply = await asyncio.gather(answer_each(head, 4), request)
    assert [one.body.prompt for one in asked] == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert [one.body.sampling.seed for one in asked] == [5, 6, 5, 6]
    assert [(one.index, one.text) for one in reply.choices] == [(n, f"text {n}") for n in range(4)]
    assert reply.usage
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2 * PROMPT_TOKENS, 8)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, QUESTION | {"n": 129}),
        (CHAT, QUESTION | {"n": 0}),
        (TEXT, PROMPT | {"prompt": ["x"] * 129}),
        (TEXT, PROMPT | {"prompt": ["x"] * 65, "n": 2}),
        (TEXT, PROMPT | {"prompt": []}),
        (TEXT, PROMPT | {"prompt": ["x", 1]}),
    ],
)
async def test_too_many_replies_and_mixed_prompts_are_refused_by_name(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    error = assert_error(await http.post(path, json=body), 400, "invalid_request", "invalid_request_error")
    assert error["param"] == ("n" if path == CHAT else "prompt")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_each_reply(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"n": 3, "stream": stream}))
    asked = await hear(head, 3)
    await say_texts(head, asked[0], "half")
    await finish(head, asked[1])
    await head.is_served()
    posting.cancel()
    cancelled = {(await head.hear(Cancel)).request for _ in range(2)}
    assert cancelled == {asked[0].request, asked[2].request}
    await head.is_served()  # and heard no third
    assert len(relay.services.replies) == relay.services.admission.waiting == 0


async def test_one_that_fails_ends_all(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"n": 2}))
    asked = await hear(head, 2)
    await fail(head, asked[1], KVCacheFull("no room", retry_after=2.0))
    assert (await head.hear(Cancel)).request == asked[0].request
    assert_error(await posting, 503, "kv_cache_full", "server_error")


async def test_one_that_fails_ends_the_stream_of_all(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"n": 2, "stream": True}))
    asked = await hear(head, 2)
    await say_texts(head, asked[0], "half")
    await head.is_served()
    await fail(head, asked[1], KVCacheFull("no room"))
    assert (await head.hear(Cancel)).request == asked[0].request
    *_, last = events_of((await posting).text)
    assert last["error"]["code"] == "kv_cache_full"


async def test_a_head_that_leaves_leaves_every_reply_to_another(
    relay: RunningRelay, head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    posting = asyncio.create_task(assistant.chat.completions.create(**QUESTION, n=2, seed=1))
    for asked in await hear(head, 2):
        await head.say(Delta(request=asked.request, text="be", tokens=1, ids=[7]))
    await head.is_served()
    head.reset()
    other = await relay.serving(head=True)
    for asked in await hear(other, 2):
        assert asked.generated == [7]
        await say_texts(other, asked, "begun")
        await finish(other, asked)
    reply = await posting
    assert [one.message.content for one in reply.choices] == ["begun", "begun"]


async def test_many_replies_to_much_text_are_refused(relay: RunningRelay, http: httpx.AsyncClient) -> None:
    await relay.serving(head=True)
    prompt = "x" * 100_000
    for path, body in (
        (TEXT, {"prompt": prompt}),
        (CHAT, {"messages": [{"role": "user", "content": prompt}]}),
    ):
        response = await http.post(path, json={"model": MODEL, "n": 128} | body)
        assert "'n' to 83" in assert_error(response, 413, "too_large", "invalid_request_error")["message"]
    assert relay.refusals("too_large") == 2


async def test_others_have_their_turn_between_the_starts_of_many_replies(
    relay: RunningRelay, head: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    turns = 0
    start = relay.services.replies.start

    def note(*asked: Any) -> Any:
        starts.append(turns)
        return start(*asked)

    monkeypatch.setattr(relay.services.replies, "start", note)
    question = GenerationRequest(model=MODEL, prompt="once")
    async with Choices(relay.services, [question] * 8, "ada") as choices:
        waiting = asyncio.ensure_future(anext(aiter(choices.events())))
        while len(starts) < 8:
            turns += 1
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert len(set(starts)) == 8
