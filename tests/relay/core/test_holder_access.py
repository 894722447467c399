"""relay/access.py: a signed-in page reaches what belongs to its token; another site's page does not."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from schema.credentials import parse_credential
from tests.relay.core.batch_client import ENDPOINT, lines
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay, running_relay

READ = (
    "/v1/files",
    "/v1/batches",
    "/api/sessions",
    "/api/tokens/me",
    "/api/tokens/me/usage",
    "/api/webhook-secret",
)
CHANGES = (
    ("POST", "/v1/files"),
    ("DELETE", "/v1/files/file-1"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/batches/batch_1/cancel"),
)
ELSEWHERE = ("https://evil.example", "null", "", "http://127.0.0.1:1")


@pytest.fixture
async def relay(sqlite_file: Path, tmp_path: Path) -> AsyncIterator[RunningRelay]:
    async with running_relay(sqlite_file, files=str(tmp_path / "files")) as running:
        yield running


@pytest.fixture
async def page(relay: RunningRelay, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser whose person has signed in; it names no origin by itself."""
    async with httpx.AsyncClient(base_url=relay.url, trust_env=False, timeout=30.0) as client:
        await client.post("/api/session", json={"token": token})
        yield client


async def test_a_signed_in_page_reads_what_is_its_tokens(page: httpx.AsyncClient, token: str) -> None:
    for path in READ:
        assert (await page.get(path)).status_code == 200, path
    assert (await page.get("/api/tokens/me")).json()["id"] == parse_credential(token).id


async def test_a_signed_in_page_uploads_submits_and_deletes(
    relay: RunningRelay, page: httpx.AsyncClient
) -> None:
    page.headers["Origin"] = relay.url
    form = {"data": {"purpose": "batch"}, "files": {"file": ("lines.jsonl", lines(2))}}
    first, second = [(await page.post("/v1/files", **form)).json()["id"] for _ in range(2)]
    asked = {"input_file_id": first, "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = (await page.post("/v1/batches", json=asked)).json()["id"]
    assert (await page.post(f"/v1/batches/{batch}/cancel")).json()["status"] in {"cancelling", "cancelled"}
    assert (await page.get(f"/v1/files/{second}/content")).content == lines(2)
    assert (await page.delete(f"/v1/files/{second}")).json()["deleted"] is True


async def test_page_and_script_of_one_token_see_the_same(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    form = {"data": {"purpose": "batch"}, "files": {"file": ("mine.jsonl", lines(1))}}
    await page.post("/v1/files", headers={"Origin": relay.url}, **form)
    async with client_of(relay, token) as script, client_of(relay, await relay.token("client")) as other:
        assert [one["filename"] for one in (await script.get("/v1/files")).json()["data"]] == ["mine.jsonl"]
        assert (await other.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_another_sites_page_can_read_and_change_nothing(
    relay: RunningRelay, page: httpx.AsyncClient, origin: str
) -> None:
    asked = [*CHANGES, *(("GET", path) for path in READ)]
    for method, path in asked:
        response = await page.request(method, path, headers={"Origin": origin})
        assert_error(response, 403, "forbidden", "permission_error")
    assert relay.refusals("forbidden") == len(asked)


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_cookie_without_an_origin_changes_nothing(
    page: httpx.AsyncClient, method: str, path: str
) -> None:
    assert_error(await page.request(method, path), 403, "forbidden", "permission_error")


async def test_a_token_in_the_header_goes_before_the_cookie(page: httpx.AsyncClient) -> None:
    response = await page.get("/v1/files", headers={"Authorization": "Bearer nonsense"})
    assert_error(response, 401, "unauthorized", "authentication_error")


async def test_who_is_not_signed_in_is_told_both_ways(relay: RunningRelay) -> None:
    async with client_of(relay, None) as stranger:
        error = assert_error(await stranger.get("/v1/files"), 401, "unauthorized", "authentication_error")
    assert "Authorization: Bearer" in error["message"]
    assert "sign in" in error["message"]


async def test_a_revoked_tokens_page_reaches_nothing(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    await relay.services.store.revoke_token(parse_credential(token).id)
    for path in READ:
        assert_error(await page.get(path), 401, "unauthorized", "authentication_error")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
async def test_what_computes_needs_the_token_itself(
    relay: RunningRelay, page: httpx.AsyncClient, path: str
) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    response = await page.request(method, path, headers={"Origin": relay.url}, json={})
    assert_error(response, 401, "unauthorized", "authentication_error")
