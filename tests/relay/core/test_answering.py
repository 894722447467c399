"""relay/answering.py: a request is answered as a whole for whoever holds no connection."""

import asyncio
from typing import Any

import msgspec
import pytest

from relay.answering import answer
from schema.errors import CorollaError, InvalidRequest, KVCacheFull, NotFound
from schema.messages import Cancel, Generate
from tests.relay.core.peers import ScriptedPeer, fail
from tests.relay.core.peers import answer as head_answers
from tests.relay.core.rest_client import CHAT, PROMPT, QUESTION, TEXT
from tests.relay.core.support import RunningRelay
from tests.relay.core.vectors import EMBEDDINGS, embed


async def ask(relay: RunningRelay, endpoint: str, **body: Any) -> Any:
    made = await answer(relay.services, endpoint, msgspec.json.encode(body), "ada")
    return msgspec.json.decode(msgspec.json.encode(made))


async def test_a_chat_is_answered(relay: RunningRelay, head: ScriptedPeer) -> None:
    _, made = await asyncio.gather(head_answers(head, "Hel", "lo"), ask(relay, CHAT, **QUESTION))
    assert made["choices"][0]["message"]["content"] == "Hello"


async def test_a_text_is_answered(relay: RunningRelay, head: ScriptedPeer) -> None:
    _, made = await asyncio.gather(head_answers(head, " upon"), ask(relay, TEXT, **PROMPT))
    assert made["choices"][0]["text"] == " upon"


async def test_embeddings_are_answered(relay: RunningRelay, head: ScriptedPeer) -> None:
    asked = {"model": QUESTION["model"], "input": "a"}
    _, made = await asyncio.gather(embed(head, 1.0), ask(relay, EMBEDDINGS, **asked))
    assert made["data"][0]["embedding"][0] == 1.0


async def test_a_failure_is_raised(relay: RunningRelay, head: ScriptedPeer) -> None:
    asking = asyncio.create_task(ask(relay, CHAT, **QUESTION))
    await fail(head, await head.hear(Generate), KVCacheFull("no room", retry_after=2.0))
    with pytest.raises(KVCacheFull):
        await asking


async def test_whoever_stops_waiting_cancels(relay: RunningRelay, head: ScriptedPeer) -> None:
    asking = asyncio.create_task(ask(relay, CHAT, **QUESTION))
    asked = await head.hear(Generate)
    asking.cancel()
    assert await head.hear(Cancel) == Cancel(request=asked.request)


@pytest.mark.parametrize(
    ("endpoint", "body", "refusal"),
    [
        ("/v1/nothing", QUESTION, NotFound),
        (CHAT, QUESTION | {"stream": True}, InvalidRequest),
        (CHAT, QUESTION | {"made_up": 1}, InvalidRequest),
        (CHAT, QUESTION | {"model": "other"}, NotFound),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    relay: RunningRelay, endpoint: str, body: dict[str, Any], refusal: type[CorollaError]
) -> None:
    with pytest.raises(refusal):
        await ask(relay, endpoint, **body)
