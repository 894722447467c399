"""relay/rest/: OpenAI's own client, unchanged, blocking and not, streaming and not."""

import asyncio
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from schema.errors import ContextTooLong, CorollaError, GenerationFailed, KVCacheFull
from schema.messages import Generate
from tests.relay.core.peers import MODEL, PROMPT_TOKENS, ScriptedPeer, answer, fail, say_texts
from tests.relay.core.rest_client import PROMPT, QUESTION, answered
from tests.relay.core.support import RunningRelay


async def test_openais_client_chats(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    request = assistant.chat.completions.create(**QUESTION)
    _, reply = await answered(head, request, "Hel", "lo")
    assert reply.choices[0].message.content == "Hello"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == PROMPT_TOKENS + 2


async def test_openais_client_streams_a_chat(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    async def streamed() -> list[ChatCompletionChunk]:
        asked: dict[str, Any] = QUESTION | {"stream_options": {"include_usage": True}}
        stream = await assistant.chat.completions.create(**asked, stream=True)
        return [chunk async for chunk in stream]

    _, chunks = await answered(head, streamed(), "Hel", "lo")
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in texts) == "Hello"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 2


async def test_openais_client_streams_a_text(head: ScriptedPeer, assistant: openai.AsyncOpenAI) -> None:
    async def streamed() -> str:
        stream = await assistant.completions.create(**PROMPT, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    _, text = await answered(head, streamed(), " upon", " a time")
    assert text == " upon a time"


async def test_openais_blocking_client_does_the_same(
    relay: RunningRelay, head: ScriptedPeer, token: str
) -> None:
    def talk() -> tuple[str | None, str, list[str]]:
        with openai.OpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client:
            whole = client.chat.completions.create(**QUESTION)
            stream = client.chat.completions.create(**QUESTION, stream=True)
            pieces = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content, pieces, [model.id for model in client.models.list()]

    talking = asyncio.create_task(asyncio.to_thread(talk))
    for _ in range(2):
        await answer(head, "Hel", "lo")
    assert await talking == ("Hello", "Hello", [MODEL])


async def test_openais_client_gives_stop_token_ids_as_it_gives_them_to_vllm(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    request = assistant.chat.completions.create(**QUESTION, extra_body={"stop_token_ids": [7]})
    asked, _ = await answered(head, request, "x")
    assert asked.body.stopping.stop_token_ids == [7]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ContextTooLong("too long"), openai.BadRequestError),
        (KVCacheFull("no room", retry_after=3.0), openai.InternalServerError),
        (GenerationFailed("it broke"), openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_openais_client_gets_the_errors_of_a_head(
    head: ScriptedPeer,
    assistant: openai.AsyncOpenAI,
    error: CorollaError,
    raised: type[openai.APIStatusError],
    stream: bool,
) -> None:
    asking = asyncio.create_task(assistant.chat.completions.create(**QUESTION, stream=stream))
    await fail(head, await head.hear(Generate), error)
    with pytest.raises(raised) as caught:
        await asking
    assert caught.value.code == error.code
    assert caught.value.status_code == error.http_status


@pytest.mark.usefixtures("one_head_only")
async def test_openais_client_takes_no_broken_stream_for_a_finished_one(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI
) -> None:
    async def streamed() -> None:
        async for _ in await assistant.chat.completions.create(**QUESTION, stream=True):
            pass

    async def break_off() -> None:
        await say_texts(head, await head.hear(Generate), "half")
        head.reset()

    with pytest.raises(openai.APIError, match="has left"):
        await asyncio.gather(streamed(), break_off())


async def test_openais_client_is_told_of_a_wrong_key(relay: RunningRelay) -> None:
    async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
