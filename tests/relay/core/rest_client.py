"""Asking the REST interface, and taking apart what comes back."""

import asyncio
import json
from typing import Any

import httpx

from schema.messages import Generate
from tests.relay.core.peers import MODEL, ScriptedPeer, answer
from tests.relay.core.support import RunningRelay

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
QUESTION: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
PROMPT: dict[str, Any] = {"model": MODEL, "prompt": "once"}


def client_of(relay: RunningRelay, token: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=relay.url, headers=headers, timeout=30.0, trust_env=False)


async def answered(head: ScriptedPeer, request: Any, *texts: str, **how: Any) -> tuple[Generate, Any]:
    """What the head was asked and what the client got, when the head answers with these texts."""
    return await asyncio.gather(answer(head, *texts, **how), request)


def events_of(body: str) -> list[Any]:
    """The server-sent events of a stream; the last may be the string `[DONE]`."""
    lines = body.split("\n\n")
    assert lines.pop() == ""
    datas = [line.removeprefix("data: ") for line in lines]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def assert_error(response: httpx.Response, status: int, code: str, kind: str) -> dict[str, Any]:
    """An answer in the shape of OpenAI's errors; the error."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    error = response.json()["error"]
    assert (error["code"], error["type"]) == (code, kind)
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
