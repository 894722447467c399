"""relay/rest/: every refusal has OpenAI's shape, a fitting status and a name."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from schema.credentials import parse_credential
from schema.errors import (
    ContextTooLong,
    CorollaError,
    GenerationFailed,
    InvalidRequest,
    KVCacheFull,
    ModelUnavailable,
    QueueFull,
    Replaced,
    TooLarge,
    Unauthorized,
)
from schema.limits import MAX_HTTP_BODY_BYTES
from schema.messages import Generate
from tests.relay.core.peers import MODEL, ScriptedPeer, fail
from tests.relay.core.rest_client import CHAT, PROMPT, QUESTION, TEXT, assert_error, client_of
from tests.relay.core.support import RunningRelay, database_away

RESPONSES = "/v1/responses"

# ---- errors before the first token: the status says it ----


@pytest.mark.parametrize("path", [CHAT, TEXT, "/v1/models", "/api/swarm"])
async def test_without_a_token_there_is_no_answer(relay: RunningRelay, path: str) -> None:
    async with client_of(relay, None) as stranger:
        method = "POST" if path in (CHAT, TEXT) else "GET"
        response = await stranger.request(method, path, json=QUESTION)
    assert_error(response, 401, "unauthorized", "authentication_error")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert relay.refusals("unauthorized") == 1


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Bearer nonsense", "Bearer \xff"])
async def test_what_is_no_token_gets_no_answer(relay: RunningRelay, header: str) -> None:
    async with client_of(relay, None) as stranger:
        raw = [(b"Authorization", header.encode("latin-1"))]
        response = await stranger.post(CHAT, json=QUESTION, headers=raw)
    assert_error(response, 401, "unauthorized", "authentication_error")


async def test_a_revoked_token_gets_no_answer(
    relay: RunningRelay, http: httpx.AsyncClient, token: str
) -> None:
    assert (await http.get("/v1/models")).status_code == 200
    await relay.services.store.revoke_token(parse_credential(token).id)
    assert_error(await http.get("/v1/models"), 401, "unauthorized", "authentication_error")


@pytest.mark.parametrize("path", [CHAT, TEXT, "/v1/models"])
async def test_a_volunteers_token_gets_no_answer(relay: RunningRelay, path: str) -> None:
    async with client_of(relay, await relay.token("volunteer")) as volunteer:
        method = "GET" if path == "/v1/models" else "POST"
        response = await volunteer.request(method, path, json=QUESTION)
    assert_error(response, 403, "forbidden", "permission_error")
    assert relay.refusals("forbidden") == 1


async def test_an_unknown_model_is_not_found(head: ScriptedPeer, http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=QUESTION | {"model": "other"})
    assert MODEL in assert_error(response, 404, "not_found", "invalid_request_error")["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_incomplete_model_is_unavailable_with_when_to_come_back(
    relay: RunningRelay, http: httpx.AsyncClient, stream: bool
) -> None:
    await relay.serving(0, 4, head=True)
    response = await http.post(CHAT, json=QUESTION | {"stream": stream})
    error = assert_error(response, 503, ModelUnavailable.code, "server_error")
    assert "blocks 4\N{EN DASH}7 have no volunteer" in error["message"]
    assert int(response.headers["Retry-After"]) > 0


async def test_a_database_that_is_away_makes_it_unavailable_with_when_to_come_back(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    async with database_away(relay):
        response = await http.post(CHAT, json=QUESTION)
    assert_error(response, 503, "unavailable", "server_error")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ContextTooLong("too long"), 400, "invalid_request_error"),
        (InvalidRequest("no"), 400, "invalid_request_error"),
        (KVCacheFull("no room", retry_after=2.5), 503, "server_error"),
        (QueueFull("no head reads"), 503, "server_error"),
        (GenerationFailed("it broke"), 502, "server_error"),
        (CorollaError("a mistake"), 500, "server_error"),
    ],
)
async def test_a_heads_error_before_the_first_token_is_a_status(
    head: ScriptedPeer, http: httpx.AsyncClient, error: CorollaError, status: int, kind: str, stream: bool
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION | {"stream": stream}))
    await fail(head, await head.hear(Generate), error)
    response = await posting
    assert_error(response, status, error.code, kind)
    retry_after = "3" if error.retry_after else "5" if status == 503 else None
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "by_head", "by_client"),
    [
        (CHAT, QUESTION, "logit_bias", "logit_bias"),
        (CHAT, QUESTION, "response_format", "response_format"),
        (TEXT, PROMPT, "prompt", "prompt"),
        (RESPONSES, {"model": MODEL, "input": "hello"}, "messages", "input"),
        (RESPONSES, {"model": MODEL, "input": "hello"}, "response_format", "text"),
        (RESPONSES, {"model": MODEL, "input": "hello"}, "tools", "tools"),
    ],
    ids=str,
)
async def test_a_head_names_the_field_at_fault(
    head: ScriptedPeer,
    http: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    by_head: str,
    by_client: str,
    stream: bool,
) -> None:
    """As the endpoint calls it."""
    posting = asyncio.create_task(http.post(path, json=body | {"stream": stream}))
    await fail(head, await head.hear(Generate), ContextTooLong("too long", param=by_head))
    error = assert_error(await posting, 400, "context_length_exceeded", "invalid_request_error")
    assert error["param"] == by_client


@pytest.mark.parametrize("error", [Unauthorized("no token"), Replaced("twice"), TooLarge("too long")])
async def test_what_a_head_has_no_say_in_is_a_reply_that_failed(
    head: ScriptedPeer, http: httpx.AsyncClient, error: CorollaError
) -> None:
    posting = asyncio.create_task(http.post(CHAT, json=QUESTION))
    await fail(head, await head.hear(Generate), error)
    told = assert_error(await posting, 502, GenerationFailed.code, "server_error")
    assert told["message"] == error.message


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b'{"model": "\xff"}', b"[" * 100_000, b'"\\ud800"', b"null"]
)
async def test_what_is_no_json_object_is_refused(
    relay: RunningRelay, http: httpx.AsyncClient, body: bytes
) -> None:
    assert_error(await http.post(CHAT, content=body), 400, "invalid_request", "invalid_request_error")
    assert relay.refusals("invalid_request") == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"made_up": 1}, "made_up"),
        ({"model": ""}, "model"),
    ],
)
async def test_a_field_that_is_wrong_or_unknown_is_refused_by_name(
    http: httpx.AsyncClient, changes: dict[str, Any], name: str
) -> None:
    error = assert_error(
        await http.post(CHAT, json=QUESTION | changes), 400, "invalid_request", "invalid_request_error"
    )
    assert name in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", True),
        ("audio", {"voice": "alloy"}),
        ("tools", [{"type": "web_search"}]),
        ("reasoning_effort", "high"),
        ("made_up", 1),
    ],
)
async def test_a_field_that_is_not_supported_is_refused_by_name(
    head: ScriptedPeer, http: httpx.AsyncClient, field: str, value: Any
) -> None:
    error = assert_error(
        await http.post(CHAT, json=QUESTION | {field: value}), 400, "invalid_request", "invalid_request_error"
    )
    assert error["param"] == field


async def test_a_missing_field_is_named(http: httpx.AsyncClient) -> None:
    error = assert_error(
        await http.post(TEXT, json={"model": MODEL}), 400, "invalid_request", "invalid_request_error"
    )
    assert "prompt" in error["message"]


@pytest.mark.parametrize("size", [MAX_HTTP_BODY_BYTES + 1, 3 * MAX_HTTP_BODY_BYTES])
async def test_a_body_above_the_limit_is_refused(
    relay: RunningRelay, http: httpx.AsyncClient, size: int
) -> None:
    assert_error(await http.post(CHAT, content=b" " * size), 413, "too_large", "invalid_request_error")
    assert relay.refusals("too_large") == 1


async def test_a_body_that_is_too_large_to_be_handed_on_is_refused(
    relay: RunningRelay, head: ScriptedPeer, http: httpx.AsyncClient
) -> None:
    body = json.dumps(PROMPT | {"prompt": "x" * (MAX_HTTP_BODY_BYTES - 100)})
    assert len(body) <= MAX_HTTP_BODY_BYTES
    assert_error(await http.post(TEXT, content=body), 413, "too_large", "invalid_request_error")
    assert len(relay.services.replies) == 0


# ---- what Starlette would answer by itself ----


@pytest.mark.parametrize("path", ["/v1/nothing", "/api/nothing", "/v1", "/nothing"])
async def test_a_path_that_does_not_exist_is_an_error_of_the_apis_shape(
    relay: RunningRelay, http: httpx.AsyncClient, path: str
) -> None:
    error = assert_error(await http.get(path), 404, "not_found", "invalid_request_error")
    assert path in error["message"]
    assert relay.refusals("not_found") == 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/api/session", "DELETE, GET, HEAD, POST"),
    ],
)
async def test_a_method_that_is_not_allowed_is_an_error_of_the_apis_shape(
    http: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await http.request(method, path)
    assert_error(response, 405, "invalid_request", "invalid_request_error")
    assert sorted(response.headers["Allow"].split(", ")) == sorted(allowed.split(", "))


async def test_a_mistake_of_the_relay_is_an_error_of_the_apis_shape(
    relay: RunningRelay, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("details")

    monkeypatch.setattr(relay.services.swarm, "status", broken)
    error = assert_error(await http.get("/v1/models"), 500, "internal_error", "server_error")
    assert "details" not in error["message"]
    assert await relay.metric("requests_total", route="/v1/models", status="500") == 1
