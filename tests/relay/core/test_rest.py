"""relay/rest/: replies in the shapes of OpenAI's API, and what becomes of those who leave."""

import asyncio
from pathlib import Path

import httpx
import pytest

from schema.errors import KVCacheFull
from schema.generation import Stopping
from schema.messages import Cancel, Generate
from tests.relay.core.peers import FACTS, MODEL, PROMPT_TOKENS, ScriptedPeer, fail, finish, say_texts
from tests.relay.core.rest_client import (
    CHAT,
    PROMPT,
    QUESTION,
    TEXT,
    answered,
    assert_error,
    client_of,
    events_of,
)
from tests.relay.core.support import RunningRelay, running_relay

# ---- chats ----


async def test_a_chat_reply_has_openais_shape(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    _, response = await answered(head, http.post(CHAT, json=QUESTION), "Hel", "lo")
    assert response.status_code == 200
    body = response.json()
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 0
    assert body.pop("system_fingerprint") == f"fp_{FACTS.digest[:12]}"
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


async def test_a_streamed_chat_reply_has_openais_shape(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    _, response = await answered(head, http.post(CHAT, json=QUESTION | {"stream": True}), "Hel", "lo")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"  # or proxies would collect the stream
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", MODEL)
    }
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert [chunk["usage"] for chunk in chunks] == [None] * 4


async def test_usage_is_the_last_chunk_when_it_is_asked_for(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    asked = QUESTION | {"stream": True, "stream_options": {"include_usage": True}}
    _, response = await answered(head, http.post(CHAT, json=asked), "one", "two")
    *_, usage, _done = events_of(response.text)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_reached_its_length_says_so(
    head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    request = http.post(CHAT, json=QUESTION | {"stream": stream})
    _, response = await answered(head, request, "cut", reason="length")
    last = events_of(response.text)[-2] if stream else response.json()
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_reply_is_a_reply(head: ScriptedPeer, http: httpx.AsyncClient, stream: bool) -> None:
    _, response = await answered(head, http.post(CHAT, json=QUESTION | {"stream": stream}))
    last = events_of(response.text)[-2] if stream else response.json()
    assert last["choices"][0]["finish_reason"] == "stop"


async def test_what_the_client_asks_for_reaches_the_head(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    body = QUESTION | {"temperature": 0.5, "seed": 7, "max_tokens": 9, "stop": "END", "top_k": 3}
    body |= {"stop_token_ids": [0, 7]}
    asked, _ = await answered(head, http.post(CHAT, json=body), "x")
    assert (asked.body.sampling.temperature, asked.body.sampling.seed, asked.body.sampling.top_k) == (
        0.5,
        7,
        3,
    )
    assert asked.body.stopping == Stopping(max_tokens=9, stop=["END"], stop_token_ids=[0, 7])
    assert asked.body.messages is not None
    assert [(message.role, message.content) for message in asked.body.messages] == [("user", "hello")]


async def test_the_first_event_comes_before_the_reply_is_finished(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    async def begin() -> Generate:
        asked = await head.hear(Generate)
        await say_texts(head, asked, "early")
        return asked

    beginning = asyncio.create_task(begin())
    async with http.stream("POST", CHAT, json=QUESTION | {"stream": True}) as response:
        lines = response.aiter_lines()
        while "early" not in await anext(lines):
            pass
        await finish(head, await beginning)
        assert [line async for line in lines if line][-1] == "data: [DONE]"


async def test_two_replies_at_once_do_not_mix(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    posted = [asyncio.create_task(http.post(CHAT, json=QUESTION)) for _ in range(2)]
    asked = [await head.hear(Generate) for _ in range(2)]
    for text in ("a", "b"):
        for one, name in zip(asked, ("first", "second"), strict=True):
            await say_texts(head, one, f"{name} {text} ")
    for one in reversed(asked):
        await finish(head, one)
    texts = {(await one).json()["choices"][0]["message"]["content"] for one in posted}
    assert texts == {"first a first b ", "second a second b "}


# ---- plain completions ----


async def test_a_text_reply_has_openais_shape(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    asked, response = await answered(head, http.post(TEXT, json=PROMPT), " upon", " a time")
    body = response.json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": " upon a time", "finish_reason": "stop", "logprobs": None}
    ]
    assert body["usage"]["completion_tokens"] == 2
    assert (asked.body.prompt, asked.body.stopping.max_tokens) == ("once", 16)


async def test_a_streamed_text_reply_has_openais_shape(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    asked = PROMPT | {"stream": True, "stream_options": {"include_usage": True}}
    _, response = await answered(head, http.post(TEXT, json=asked), " upon", " a time")
    first, second, last, usage, done = events_of(response.text)
    assert [chunk["choices"][0]["text"] for chunk in (first, second, last)] == [" upon", " a time", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in (first, second, last)] == [None, None, "stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], PROMPT_TOKENS + 2, "[DONE]")


async def test_a_prompt_may_be_token_ids(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    asked, _ = await answered(head, http.post(TEXT, json=PROMPT | {"prompt": [1, 2, 3]}), "x")
    assert asked.body.prompt == [1, 2, 3]


async def test_what_ends_a_text_reply_reaches_the_head(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    ends = {"max_tokens": 9, "stop": ["END"], "stop_token_ids": [0, 7]}
    asked, _ = await answered(head, http.post(TEXT, json=PROMPT | ends), "x")
    assert asked.body.stopping == Stopping(max_tokens=9, stop=["END"], stop_token_ids=[0, 7])


# ---- errors after the first token, and departures ----


async def test_an_error_after_the_first_token_ends_the_stream_without_done(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": True}))
    asked = await head.hear(Generate)
    await say_texts(head, asked, "half")
    await fail(head, asked, KVCacheFull("no room"))
    response = await posting
    *chunks, last = events_of(response.text)
    assert last["error"]["code"] == "kv_cache_full"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    assert relay.refusals("kv_cache_full") == 1


@pytest.mark.usefixtures("one_head_only")
async def test_a_head_that_leaves_in_the_middle_of_a_stream_ends_it_with_an_error(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": True}))
    await say_texts(head, await head.hear(Generate), "half")
    head.reset()
    *chunks, last = events_of((await posting).text)
    assert last["error"]["code"] == "generation_failed"
    assert "stop" not in [chunk["choices"][0]["finish_reason"] for chunk in chunks]


@pytest.mark.usefixtures("one_head_only")
async def test_a_head_that_leaves_in_the_middle_of_a_whole_reply_makes_it_an_error(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await say_texts(head, await head.hear(Generate), "half")
    head.reset()
    assert_error(await posting, 502, "generation_failed", "server_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_on_the_head(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": stream}))
    asked = await head.hear(Generate)
    await say_texts(head, asked, "half")
    posting.cancel()
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert len(relay.services.replies) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_token_cancels_on_the_head(
    head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": stream}))
    asked = await head.hear(Generate)
    posting.cancel()
    assert await head.hear(Cancel) == Cancel(request=asked.request)


async def test_a_reply_that_takes_too_long_is_an_error_and_cancelled(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, request_seconds=0.05) as relay:
        head = await relay.serving(head=True)
        async with client_of(relay, await relay.token("client")) as http:
            response = await http.post(CHAT, json=QUESTION)
            assert_error(response, 502, "generation_failed", "server_error")
            await head.hear(Generate)
            await head.hear(Cancel)


async def test_a_client_may_use_its_connection_again_after_a_refusal(http: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert (await http.post(CHAT, content=b"x" * 200_000)).status_code == 400
        assert (await http.get("/v1/models")).status_code == 200
