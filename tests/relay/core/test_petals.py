"""relay/petals_api.py: what scripts for Petals' chat server say and expect, over HTTP and a WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from schema.credentials import parse_credential
from schema.errors import KVCacheFull
from schema.generation import Sampling, Stopping, Timing, Usage
from schema.messages import Cancel, Delta, Finished, Generate
from tests.described import assert_described
from tests.relay.core.peers import MODEL, ScriptedPeer, fail
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE

PATH = "/api/v1/generate"
TIMING = Timing(first_token=0.1, total=0.2)
ASKED: dict[str, Any] = {"model": MODEL, "inputs": "once", "max_new_tokens": 4}


async def answer(head: ScriptedPeer, *texts: str, reason: Any = "length", prompt_tokens: int = 5) -> Generate:
    """Answer what the head is asked next, a token for each text."""
    asked = await head.hear(Generate)
    for number, text in enumerate(texts, 1):
        await head.say(Delta(request=asked.request, text=text, tokens=number))
    count = len(texts)
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=count, total_tokens=prompt_tokens + count)
    await head.say(Finished(request=asked.request, reason=reason, usage=usage, timing=TIMING))
    return asked


# ---- /api/v1/generate ----


@pytest.mark.parametrize("how", ["query", "form", "json", "post query"])
async def test_a_text_is_gone_on_with(head: ScriptedPeer, http: httpx.AsyncClient, how: str) -> None:
    sampling: dict[str, Any] = {
        "do_sample": 1,
        "temperature": 0.75,
        "top_k": 40,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
    }
    body = ASKED | sampling
    match how:
        case "query":
            request = http.get(PATH, params=body)
        case "form":
            request = http.post(PATH, data=body)
        case "json":
            request = http.post(PATH, json=body | {"do_sample": True})
        case _:
            request = http.post(PATH, params=body)
    asked, response = await asyncio.gather(answer(head, " upon", " a"), request)
    assert response.status_code == 200
    assert response.json() == {"ok": True, "outputs": " upon a"}
    sampled = asked.body.sampling
    assert (sampled.temperature, sampled.top_k, sampled.top_p, sampled.repetition_penalty) == (
        0.75,
        40,
        0.9,
        1.2,
    )
    assert (asked.body.prompt, asked.body.stopping) == ("once", Stopping(max_tokens=4))


async def test_without_do_sample_each_token_is_the_likeliest(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = {"prompt": "once", "max_new_tokens": 1, "temperature": 0.75, "stop_sequence": "\n"}
    asked, response = await asyncio.gather(answer(head, "x"), http.post(PATH, json=body))
    assert response.json()["ok"] is True
    assert asked.body.model == MODEL, "the swarm's first"
    assert (asked.body.sampling, asked.body.stopping.stop) == (Sampling(temperature=0.0), ["\n"])


async def test_a_limit_over_inputs_and_outputs_takes_two_replies(
    head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = {"inputs": "once", "max_length": 12}
    asking = asyncio.create_task(http.post(PATH, json=body))
    measured = await answer(head, "?", prompt_tokens=7)
    wanted = await answer(head, "x")
    assert (measured.body.stopping.max_tokens, wanted.body.stopping.max_tokens) == (0, 5)
    assert measured.asker == wanted.asker, "so that what was read is held still"
    assert (await asking).json() == {"ok": True, "outputs": "x"}
    asking = asyncio.create_task(http.post(PATH, json=body))
    await answer(head, "?", prompt_tokens=12)
    refused = await asking
    assert (refused.status_code, refused.json()["ok"]) == (400, False)
    assert "12 tokens" in refused.json()["traceback"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": "x"}, "max_new_tokens"),
        (ASKED | {"prompt": "y"}, "'inputs' and 'prompt'"),
        (ASKED | {"session_id": "0"}, "session_id"),
        (ASKED | {"top_p": 2}, "top_p"),
        ([], "Expected `object`"),
    ],
)
async def test_what_is_not_understood_is_refused_in_petals_shape(
    relay: RunningRelay, http: httpx.AsyncClient, body: Any, words: str
) -> None:
    await relay.serving(head=True)
    response = await http.post(PATH, json=body)
    assert (response.status_code, response.json()["ok"]) == (400, False)
    assert words in response.json()["traceback"]
    assert relay.refusals("invalid_request") == 1


@pytest.mark.parametrize(
    ("content", "kind"), [(b"\xff", "application/x-www-form-urlencoded"), (b"{", "application/json")]
)
async def test_what_is_neither_form_nor_json_is_refused(
    http: httpx.AsyncClient, content: bytes, kind: str
) -> None:
    response = await http.post(PATH, content=content, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["ok"]) == (400, False)
    both = await http.post(PATH, json=ASKED, params={"top_k": 1})
    assert both.status_code == 400


async def test_a_heads_error_is_told_with_when_to_come_back(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post(PATH, json=ASKED))
    await fail(head, await head.hear(Generate), KVCacheFull("no room", retry_after=2.0))
    response = await asking
    assert (response.status_code, response.json()) == (503, {"ok": False, "traceback": "no room"})
    assert response.headers["Retry-After"] == "2"
    assert relay.refusals("kv_cache_full") == 1


async def test_a_token_that_asks_for_too_much_at_once_is_refused_as_described(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, token_replies=1) as relay:
        head = await relay.serving(head=True)
        async with client_of(relay, await relay.token("client")) as http:
            waiting = asyncio.create_task(http.post(PATH, json=ASKED))
            await head.hear(Generate)
            for refused in (await http.post(PATH, json=ASKED), await http.get(PATH, params=ASKED)):
                assert (refused.status_code, refused.json()["ok"]) == (429, False)
                assert int(refused.headers["Retry-After"]) > 0
                assert_described(refused)
            waiting.cancel()
            await head.hear(Cancel)


async def test_who_goes_away_cancels(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    asking = asyncio.create_task(http.post(PATH, json=ASKED))
    await head.hear(Generate)
    asking.cancel()
    await head.hear(Cancel)


# ---- tokens ----


async def test_who_asks_for_the_headers_alone_has_nothing_generated(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    """Nobody is there who could, which would be told otherwise."""
    response = await http.head(PATH, params=ASKED)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert (await http.head(PATH, params=ASKED | {"top_p": 7})).status_code == 400
    async with client_of(relay, None) as stranger:
        assert (await stranger.head(PATH, params=ASKED)).status_code == 401


async def test_without_a_token_it_is_said_what_to_do(relay: RunningRelay) -> None:
    async with client_of(relay, None) as stranger:
        response = await stranger.post(PATH, json=ASKED)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "PETALS_TOKEN" in response.json()["traceback"]
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(relay, None):
            pass
    assert refused.value.response.status_code == 401


async def test_a_volunteers_token_is_not_let_in(relay: RunningRelay) -> None:
    async with client_of(relay, await relay.token()) as volunteer:
        assert (await volunteer.post(PATH, json=ASKED)).status_code == 403


async def test_the_operators_token_serves_scripts_without_one_until_it_is_revoked(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file) as relay:
        token = await relay.token("client", "scripts")
    async with running_relay(sqlite_file, petals_token=token) as relay, client_of(relay, None) as script:
        head = await relay.serving(head=True)
        _, response = await asyncio.gather(answer(head, "x"), script.post(PATH, json=ASKED))
        assert response.json() == {"ok": True, "outputs": "x"}
        async with dialled(relay, None) as socket:
            assert await said(socket, OPEN) == {"ok": True}
        async with client_of(relay, "nonsense") as wrong:
            assert (await wrong.post(PATH, json=ASKED)).status_code == 401, "a token that is shown counts"
        await relay.services.store.revoke_token(parse_credential(token).id)
        assert (await script.post(PATH, json=ASKED)).status_code == 401


# ---- /api/v2/generate ----

OPEN = {"type": "open_inference_session", "model": MODEL, "max_length": 100}


@asynccontextmanager
async def dialled(relay: RunningRelay, token: str | None) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws://127.0.0.1:{relay.port}/api/v2/generate"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


async def said(socket: ClientConnection, message: Any = None) -> Any:
    """What comes next, after a message where one is given."""
    if message is not None:
        await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
    async with asyncio.timeout(DEADLINE):
        return json.loads(await socket.recv())


async def test_a_session_goes_on_where_it_was(relay: RunningRelay, head: ScriptedPeer, token: str) -> None:
    async with dialled(relay, token) as socket:
        assert await said(socket, OPEN) == {"ok": True}
        await socket.send(json.dumps({"type": "generate", "inputs": "once", "max_new_tokens": 2}))
        first = await answer(head, " upon", " a")
        assert await said(socket) == {"ok": True, "outputs": " upon a", "stop": True, "token_count": 2}
        await socket.send(json.dumps({"type": "generate", "max_new_tokens": 1}))
        second = await answer(head, " time", prompt_tokens=7)
        assert await said(socket) == {"ok": True, "outputs": " time", "stop": True, "token_count": 1}
        await socket.send(json.dumps({"type": "generate", "inputs": ", there", "max_new_tokens": 500}))
        third = await answer(head, prompt_tokens=9)
        assert (await said(socket))["stop"] is True
    prompts = [one.body.prompt for one in (first, second, third)]
    assert prompts == ["once", "once upon a", "once upon a time, there"]
    assert third.body.stopping.max_tokens == 100 - 8, "what the session's length leaves"


async def test_with_a_stop_sequence_the_outputs_come_in_pieces(
    relay: RunningRelay, head: ScriptedPeer, token: str
) -> None:
    asked = {"type": "generate", "inputs": "Hi", "max_new_tokens": 1, "stop_sequence": "</s>"}
    async with dialled(relay, token) as socket:
        await said(socket, OPEN)
        await socket.send(json.dumps(asked))
        first = await answer(head, "He", "llo", reason="stop")
        pieces = [await said(socket) for _ in range(3)]
        assert pieces == [
            {"ok": True, "outputs": "He", "stop": False, "token_count": 1},
            {"ok": True, "outputs": "llo", "stop": False, "token_count": 1},
            {"ok": True, "outputs": "", "stop": True, "token_count": 0},
        ]
        assert first.body.stopping == Stopping(max_tokens=100, stop=["</s>"])
        await socket.send(json.dumps(asked | {"inputs": "And?"}))
        second = await answer(head)
        assert second.body.prompt == "HiHello</s>And?"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"type": "generate", "max_new_tokens": 1}], "begins with 'open_inference_session'"),
        ([OPEN, OPEN], "open already"),
        (["no JSON"], "not understood"),
        ([b"\0"], "only text"),
        ([{"type": "open_inference_session"}], "max_length"),
        ([OPEN | {"model": "other"}], "no model 'other'"),
        ([OPEN, {"type": "generate", "inputs": "x"}], "max_new_tokens"),
        ([OPEN, {"type": "generate", "model": "other", "max_new_tokens": 1}], "open another one"),
    ],
)
async def test_an_error_is_told_and_ends_the_session(
    relay: RunningRelay, head: ScriptedPeer, token: str, messages: list[Any], words: str
) -> None:
    async with dialled(relay, token) as socket:
        for message in messages[:-1]:
            assert await said(socket, message) == {"ok": True}
        last = await said(socket, messages[-1])
        assert last["ok"] is False
        assert words in last["traceback"]
        with pytest.raises(ConnectionClosed):
            await said(socket)
    assert sum(relay.services.metrics.refusals.values()) == 1


async def test_a_script_that_leaves_cancels_its_reply(
    relay: RunningRelay, head: ScriptedPeer, token: str
) -> None:
    async with dialled(relay, token) as socket:
        await said(socket, OPEN)
        await socket.send(json.dumps({"type": "generate", "inputs": "x", "max_new_tokens": 9}))
        await head.hear(Generate)
    await head.hear(Cancel)


async def test_a_revoked_token_ends_its_sessions(relay: RunningRelay, token: str) -> None:
    await relay.serving(head=True)
    async with dialled(relay, token) as socket:
        await said(socket, OPEN)
        relay.services.hub.end_revoked([parse_credential(token).id])
        assert (await said(socket))["ok"] is False
        with pytest.raises(ConnectionClosed):
            await said(socket)


async def test_a_replica_that_stops_ends_a_session_behind_its_reply(
    relay: RunningRelay, head: ScriptedPeer, token: str
) -> None:
    async with dialled(relay, token) as idle, dialled(relay, token) as busy:
        for socket in (idle, busy):
            await said(socket, OPEN)
        await busy.send(json.dumps({"type": "generate", "inputs": "x", "max_new_tokens": 1}))
        asked = await head.hear(Generate)
        relay.services.hub.send_elsewhere(1.0)
        with pytest.raises(ConnectionClosed):
            await said(idle)
        await head.say(Delta(request=asked.request, text="y", tokens=1))
        usage = Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        await head.say(Finished(request=asked.request, reason="length", usage=usage, timing=TIMING))
        assert (await said(busy))["outputs"] == "y"
        with pytest.raises(ConnectionClosed):
            await said(busy)
