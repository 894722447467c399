"""relay/rest/: who finds all heads busy waits for a turn, and is told how long."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schema.messages import Cancel, Generate
from tests.relay.core.peers import ScriptedPeer, answer, finish, say_texts
from tests.relay.core.rest_client import CHAT, QUESTION, assert_error, client_of, events_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def relay(sqlite_file: Path) -> AsyncIterator[RunningRelay]:
    """A relay whose heads make one reply at a time; two may wait."""
    limits: dict[str, Any] = {"head_replies": 1, "waiting_replies": 2, "token_replies": 3}
    async with running_relay(sqlite_file, **limits) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_waits_for_its_turn_and_says_so(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient, stream: bool
) -> None:
    first = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    second = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": stream}))
    await eventually(lambda: relay.services.admission.waiting == 1)
    assert await relay.metric("waiting_replies") == 1
    await say_texts(head, asked, "one")
    await finish(head, asked)
    await answer(head, "two")
    assert (await first).headers["X-Queue-Position"] == "0"
    late = await second
    assert late.headers["X-Queue-Position"] == "1"
    assert float(late.headers["X-Queue-Seconds"]) > 0
    if stream:
        assert events_of(late.text)[1]["choices"][0]["delta"]["content"] == "two"
    assert await relay.metric("waited_replies_total") == 1


async def test_a_full_line_is_refused_with_when_to_come_back(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    waiting = [asyncio.create_task(http.post(CHAT, json=QUESTION)) for _ in range(3)]
    await head.hear(Generate)
    await eventually(lambda: relay.services.admission.waiting == 2)
    async with client_of(relay, await relay.token("client", "another")) as other:
        refused = await other.post(CHAT, json=QUESTION)
    assert_error(refused, 503, "overloaded", "server_error")
    assert (refused.headers["X-Queue-Position"], int(refused.headers["Retry-After"]) > 0) == ("3", True)
    assert relay.refusals("overloaded") == 1
    for task in waiting:
        task.cancel()
    await head.hear(Cancel)
    await eventually(lambda: relay.services.admission.waiting == 0)


async def test_a_token_that_asks_for_too_much_at_once_is_refused(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    waiting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"n": 3}))
    await head.hear(Generate)
    refused = await http.post(CHAT, json=QUESTION)
    assert_error(refused, 429, "rate_limit_exceeded", "rate_limit_error")
    assert int(refused.headers["Retry-After"]) > 0
    never = await http.post(CHAT, json=QUESTION | {"n": 4})
    assert assert_error(never, 400, "invalid_request", "invalid_request_error")["param"] == "n"
    waiting.cancel()
    await head.hear(Cancel)


async def test_a_new_head_takes_who_waits(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    first = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    second = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await eventually(lambda: relay.services.admission.waiting == 1)
    other = await relay.serving(head=True)
    await answer(other, "two")
    assert (await second).status_code == 200
    await finish(head, asked)
    assert (await first).status_code == 200


async def test_a_client_that_leaves_the_line_leaves_nothing(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    first = asyncio.create_task(http.post(CHAT, json=QUESTION))
    asked = await head.hear(Generate)
    second = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await eventually(lambda: relay.services.admission.waiting == 1)
    second.cancel()
    await eventually(lambda: relay.services.admission.waiting == 0)
    await finish(head, asked)
    assert (await first).status_code == 200
    await head.is_served()  # and heard no second `generate`
