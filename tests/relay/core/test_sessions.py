"""relay/sessions.py: signing in at a page, the cookie that keeps it, and who may not use it."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from relay import sessions
from relay.sessions import COOKIE
from schema.credentials import parse_credential
from schema.limits import MAX_HTTP_BODY_BYTES
from tests.relay.core.support import RunningRelay, database_away, running_relay

SESSION = "/api/session"


def browser(relay: RunningRelay) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=relay.url, trust_env=False, timeout=30.0)


@pytest.fixture
async def page(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that nobody has signed in at."""
    async with browser(relay) as client:
        yield client


@pytest.fixture
async def token(relay: RunningRelay) -> str:
    return await relay.token("client")


async def sign_in(page: httpx.AsyncClient, token: str) -> httpx.Response:
    return await page.post(SESSION, json={"token": token})


async def access(page: httpx.AsyncClient) -> str:
    return (await page.get(SESSION)).json()["access"]


# ---- signing in and out ----


async def test_a_page_learns_whether_it_must_sign_in(page: httpx.AsyncClient, token: str) -> None:
    assert await access(page) == "sign_in"
    await sign_in(page, token)
    assert await access(page) == "signed_in"


async def test_an_open_relay_needs_no_signing_in(sqlite_file: Path) -> None:
    opened = running_relay(sqlite_file, open_chat=True)
    async with opened as relay, browser(relay) as page:
        assert await access(page) == "open"


async def test_signing_in_lets_the_page_see_the_swarm(page: httpx.AsyncClient, token: str) -> None:
    assert (await page.get("/api/swarm")).status_code == 401
    assert (await sign_in(page, token)).status_code == 204
    assert (await page.get("/api/swarm")).status_code == 200


async def test_signing_in_does_not_open_the_rest_api(page: httpx.AsyncClient, token: str) -> None:
    await sign_in(page, token)
    assert (await page.get("/v1/models")).status_code == 401


async def test_the_cookie_is_hidden_from_scripts_and_other_sites(page: httpx.AsyncClient, token: str) -> None:
    cookie = (await sign_in(page, token)).headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert "secure" not in attributes


async def test_the_cookie_stays_on_https_where_the_relay_is(sqlite_file: Path) -> None:
    public = running_relay(sqlite_file, public_url="https://relay.example")
    async with public as relay, browser(relay) as page:
        cookie = (await sign_in(page, await relay.token("client"))).headers["Set-Cookie"]
    assert "secure" in cookie.lower()


async def test_the_cookie_does_not_hold_the_token(page: httpx.AsyncClient, token: str) -> None:
    cookie = (await sign_in(page, token)).headers["Set-Cookie"]
    assert parse_credential(token).secret not in cookie


async def test_signing_out_takes_the_cookie_away(page: httpx.AsyncClient, token: str) -> None:
    await sign_in(page, token)
    assert (await page.delete(SESSION)).status_code == 204
    assert COOKIE not in page.cookies
    assert await access(page) == "sign_in"


# ---- who is not let in ----


async def assert_refused(page: httpx.AsyncClient, token: str, status: int, code: str) -> None:
    response = await sign_in(page, token)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "Set-Cookie" not in response.headers


async def test_a_wrong_token_signs_nobody_in(page: httpx.AsyncClient, token: str) -> None:
    await assert_refused(page, "nonsense", 401, "unauthorized")
    await assert_refused(page, "corolla-client.nul\0.secret.", 401, "unauthorized")
    await assert_refused(page, token.replace(parse_credential(token).secret, "guess"), 401, "unauthorized")


async def test_a_revoked_token_signs_nobody_in(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    await relay.services.store.revoke_token(parse_credential(token).id)
    await assert_refused(page, token, 401, "unauthorized")


async def test_a_volunteers_token_signs_nobody_in(relay: RunningRelay, page: httpx.AsyncClient) -> None:
    await assert_refused(page, await relay.token("volunteer"), 403, "forbidden")


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"{}", b'{"token": 1}', b'{"token": "x", "more": 1}', b'{"token": "\xff"}']
)
async def test_what_is_no_sign_in_is_refused(
    relay: RunningRelay, page: httpx.AsyncClient, body: bytes
) -> None:
    response = await page.post(SESSION, content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
    assert relay.refusals("invalid_request") == 1


async def test_a_sign_in_above_the_limit_is_refused(page: httpx.AsyncClient) -> None:
    assert (await page.post(SESSION, content=b" " * (MAX_HTTP_BODY_BYTES + 1))).status_code == 413


async def test_nobody_signs_in_while_the_database_is_away(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    async with database_away(relay):
        response = await sign_in(page, token)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_another_sites_page_can_neither_sign_in_nor_out(
    page: httpx.AsyncClient, token: str, method: str
) -> None:
    headers = {"Origin": "https://evil.example"}
    response = await page.request(method, SESSION, json={"token": token}, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")


async def test_the_relays_own_page_may_sign_in(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    response = await page.post(SESSION, json={"token": token}, headers={"Origin": relay.url})
    assert response.status_code == 204


@pytest.mark.parametrize("origin", ["null", "", "http://localhost", "http://127.0.0.1:1", "file://"])
async def test_a_page_from_elsewhere_is_recognised(page: httpx.AsyncClient, origin: str) -> None:
    assert (await page.delete(SESSION, headers={"Origin": origin})).status_code == 403


# ---- the cookie ----


async def test_a_revoked_tokens_cookie_stops_working(
    relay: RunningRelay, page: httpx.AsyncClient, token: str
) -> None:
    await sign_in(page, token)
    await relay.services.store.revoke_token(parse_credential(token).id)
    assert await access(page) == "sign_in"
    assert (await page.get("/api/swarm")).status_code == 401


async def test_another_replica_with_the_same_secret_reads_the_cookie(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file) as here, running_relay(sqlite_file) as there:
        async with browser(here) as page:
            await sign_in(page, await here.token("client"))
            cookie = page.cookies[COOKIE]
        async with browser(there) as page:
            page.cookies.set(COOKIE, cookie)
            assert await access(page) == "signed_in"


async def test_an_old_cookie_stops_working(
    page: httpx.AsyncClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(page, token)
    later = time.time() + sessions.COOKIE_SECONDS + 1
    monkeypatch.setattr(sessions.time, "time", lambda: later)
    assert await access(page) == "sign_in"


async def with_cookie(page: httpx.AsyncClient, cookie: bytes) -> httpx.Response:
    return await page.get(SESSION, headers=[(b"Cookie", COOKIE.encode() + b"=" + cookie)])


async def test_a_changed_cookie_does_not_work(page: httpx.AsyncClient, token: str) -> None:
    await sign_in(page, token)
    good = page.cookies[COOKIE]
    page.cookies.clear()
    assert (await with_cookie(page, good.encode())).json() == {"access": "signed_in", "kind": "client"}
    token_id, expires, mac = good.split(".")
    flipped = mac[:-1] + ("0" if mac[-1] != "0" else "1")
    for changed in (
        f"{token_id}.{int(expires) + 1}.{mac}",
        f"{'0' * 12}.{expires}.{mac}",
        f"{token_id}.{expires}.{flipped}",
        f"{token_id}.{expires}.",
        f"{token_id}.{expires}",
        token_id,
    ):
        assert (await with_cookie(page, changed.encode())).json() == {"access": "sign_in"}


@pytest.mark.parametrize(
    "cookie",
    [
        b"",
        b".",
        b"..",
        b"id.9999999999.\xe9\xff",
        b"\xff.9999999999.mac",
        b"id.99999999999999999999.mac",
        b"id.-1.mac",
        b'"quoted.9999999999.mac"',
        "id.٩٩٩٩٩٩٩٩٩٩.mac".encode(),
    ],
)
async def test_a_cookie_of_any_bytes_is_just_not_signed_in(page: httpx.AsyncClient, cookie: bytes) -> None:
    response = await with_cookie(page, cookie)
    assert (response.status_code, response.json()) == (200, {"access": "sign_in"})


async def test_the_cookie_names_its_token_and_its_end(page: httpx.AsyncClient, token: str) -> None:
    await sign_in(page, token)
    token_id = parse_credential(token).id
    assert re.fullmatch(rf"{token_id}\.\d{{10}}\.[0-9a-f]{{32}}", page.cookies[COOKIE])
