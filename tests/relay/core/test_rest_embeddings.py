"""`POST /v1/embeddings`: vectors in the order of the texts, whatever becomes of the head that makes them."""

import asyncio
import base64
import random
from typing import Any

import httpx
import openai
import pytest

from relay import embedding, turns
from schema.errors import ContextTooLong, TooLarge
from schema.limits import MAX_EMBEDDING_INPUTS
from schema.messages import Cancel, Embed, Embedded, ErrorInfo, Failed
from tests.relay.core.peers import FACTS, MODEL, ScriptedPeer
from tests.relay.core.rest_client import assert_error
from tests.relay.core.support import RunningRelay
from tests.relay.core.vectors import EMBEDDINGS, embed, end, packed, say_vectors, vector


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=str)
async def test_openais_client_gets_vectors(
    head: ScriptedPeer, assistant: openai.AsyncOpenAI, form: dict[str, Any]
) -> None:
    """Left alone it asks for base64, and decodes that itself."""
    request = assistant.embeddings.create(model=MODEL, input=["one", "two"], **form)
    asked, answer = await asyncio.gather(embed(head, 1.0, 2.0), request)
    assert (asked.model, asked.inputs) == (MODEL, ["one", "two"])
    assert [(one.index, one.embedding) for one in answer.data] == [(0, vector(1.0)), (1, vector(2.0))]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (MODEL, 6, 6)


async def test_base64_is_what_the_head_has_said(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": "one", "encoding_format": "base64", "user": "me"}
    _, response = await asyncio.gather(embed(head, 1.0), http.post(EMBEDDINGS, json=body))
    assert response.headers["X-Queue-Position"] == "0"
    (entry,) = response.json()["data"]
    assert base64.b64decode(entry["embedding"]) == packed(vector(1.0))


@pytest.mark.parametrize(
    ("given", "inputs"), [("one", ["one"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])], ids=str
)
async def test_forms_of_input(head: ScriptedPeer, http: httpx.AsyncClient, given: Any, inputs: Any) -> None:
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": given}))
    asked = await embed(head, *range(len(inputs)))
    assert asked.inputs == inputs
    assert len((await posting).json()["data"]) == len(inputs)


async def test_many_texts_are_shared_among_heads_and_come_in_their_order(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    other = await relay.serving(head=True)
    texts = [str(number) for number in range(MAX_EMBEDDING_INPUTS + 2)]
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": texts}))
    asked = [(peer, await peer.hear(Embed)) for peer in (head, other)]
    for peer, one in asked:
        await say_vectors(peer, one, *[float(str(text)) for text in one.inputs])
        await end(peer, one)
    data = (await posting).json()["data"]
    assert [one["embedding"][0] for one in data] == [float(text) for text in texts]


async def test_another_head_makes_what_is_missing(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = {"model": MODEL, "input": ["a", "b", "c"]}
    posting = asyncio.create_task(http.post(EMBEDDINGS, json=body))
    await say_vectors(head, await head.hear(Embed), 1.0)
    await head.is_served()
    head.reset()
    other = await relay.serving(head=True)
    assert (await embed(other, 2.0, 3.0)).inputs == ["b", "c"]
    response = await posting
    assert [one["embedding"][0] for one in response.json()["data"]] == [1.0, 2.0, 3.0]
    assert response.json()["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


async def test_a_head_that_leaves_after_its_last_vector_leaves_nothing_to_do(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "a"}))
    await say_vectors(head, await head.hear(Embed), 1.0)
    await head.is_served()
    head.reset()
    assert (await posting).json()["data"][0]["embedding"] == vector(1.0)


async def test_a_client_that_leaves_cancels(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "a"}))
    asked = await head.hear(Embed)
    posting.cancel()
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert len(relay.services.replies) == 0


async def test_a_heads_error_is_a_status(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "a"}))
    asked = await head.hear(Embed)
    await head.say(Failed(request=asked.request, error=ErrorInfo.of(ContextTooLong("too long"))))
    assert_error(await posting, 400, "context_length_exceeded", "invalid_request_error")


@pytest.mark.parametrize(
    ("index", "raw"),
    [
        (1, packed(vector(1.0))),
        (0, packed(vector(1.0)[1:])),
        (0, b""),
        (0, packed(vector(float("nan")))),
        (0, packed(vector(float("inf")))),
    ],
    ids=["out of turn", "narrow", "empty", "nan", "infinite"],
)
async def test_what_is_no_vector_of_the_model_is_not_passed_on(
    head: ScriptedPeer, http: httpx.AsyncClient, index: int, raw: bytes
) -> None:
    assert FACTS.hidden_size == len(vector(1.0))
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": "a"}))
    asked = await head.hear(Embed)
    await head.say(Embedded(request=asked.request, index=index, tokens=1, vector=raw))
    assert_error(await posting, 502, "generation_failed", "server_error")
    await head.hear(Cancel)


async def test_an_end_before_the_last_vector_is_no_end(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    posting = asyncio.create_task(http.post(EMBEDDINGS, json={"model": MODEL, "input": ["a", "b"]}))
    await embed(head, 1.0)
    assert_error(await posting, 502, "generation_failed", "server_error")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"dimensions": 2}, "dimensions"),
        ({"input": []}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"made_up": 1}, "made_up"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_not_served_is_refused_by_name(
    head: ScriptedPeer, http: httpx.AsyncClient, changes: dict[str, Any], param: str
) -> None:
    response = await http.post(EMBEDDINGS, json={"model": MODEL, "input": "a"} | changes)
    assert assert_error(response, 400, "invalid_request", "invalid_request_error")["param"] == param


async def test_a_model_that_is_not_served_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.post(EMBEDDINGS, json={"model": "other", "input": "a"})
    assert_error(response, 404, "not_found", "invalid_request_error")


# ---- long answers ----


async def test_an_answer_that_would_be_too_long_is_refused_before_anything_is_made(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MAX_EMBEDDING_BYTES", 400)
    asked = {"model": MODEL, "input": ["a", "b", "c"]}
    error = assert_error(await http.post(EMBEDDINGS, json=asked), 413, "too_large", "invalid_request_error")
    assert "send 2 texts or fewer" in error["message"]
    assert "base64" in error["message"]
    assert relay.refusals("too_large") == 1
    posting = http.post(EMBEDDINGS, json=asked | {"encoding_format": "base64"})
    _, response = await asyncio.gather(embed(head, 1.0, 2.0, 3.0), posting)
    assert response.status_code == 200


@pytest.mark.parametrize("as_text", [False, True])
async def test_no_answer_is_longer_than_was_reckoned(as_text: bool) -> None:
    width, count = 257, 30
    draw = random.Random(0)
    vectors = [
        Embedded(request="r", index=index, tokens=1, vector=packed([draw.gauss() for _ in range(width)]))
        for index in range(count)
    ]
    size = len(bytes(await embedding._written(vectors, as_text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "MAX_EMBEDDING_BYTES", size)
        with pytest.raises(TooLarge):
            embedding._require_short(count + 3, width, as_text)


async def test_others_have_their_turn_while_an_answer_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    vectors = [Embedded(request="r", index=index, tokens=1, vector=packed([1.0])) for index in range(20)]
    writing = asyncio.create_task(embedding._written(vectors, as_text=False))
    seen = 0
    while not writing.done():
        seen += 1
        await asyncio.sleep(0)
    assert seen >= len(vectors)
