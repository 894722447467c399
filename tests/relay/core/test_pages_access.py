"""relay/pages.py: who may open a page, and how long."""

import json

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from relay import jobs
from schema import browser
from schema.credentials import parse_credential
from schema.messages import Cancel, Generate
from tests.relay.core.page import open_page
from tests.relay.core.support import RunningRelay


async def refused_page(relay: RunningRelay, **headers: str) -> tuple[int, str]:
    """Status and error code of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        await open_page(relay, **headers)
    return refusal.value.response.status_code, json.loads(refusal.value.response.body)["error"]["code"]


async def signed_in(relay: RunningRelay, token: str) -> str:
    """A cookie."""
    async with httpx.AsyncClient(base_url=relay.url, trust_env=False) as client:
        response = await client.post("/api/session", json={"token": token})
    return response.headers["Set-Cookie"].split(";")[0]


async def test_a_page_of_another_site_is_refused(open_relay: RunningRelay) -> None:
    assert await refused_page(open_relay, Origin="https://evil.example") == (403, "forbidden")
    assert open_relay.refusals("forbidden") == 1


async def test_the_relays_own_page_is_welcome(open_relay: RunningRelay) -> None:
    page = await open_page(open_relay, Origin=open_relay.url)
    await page.hear(browser.PageWelcome)


async def test_without_signing_in_there_is_no_page(relay: RunningRelay) -> None:
    assert await refused_page(relay) == (401, "unauthorized")
    assert relay.refusals("unauthorized") == 1


async def test_signing_in_opens_the_page(relay: RunningRelay) -> None:
    cookie = await signed_in(relay, await relay.token("client"))
    page = await open_page(relay, Cookie=cookie)
    await page.hear(browser.PageWelcome)


async def test_a_revoked_tokens_cookie_opens_no_page(relay: RunningRelay) -> None:
    token = await relay.token("client")
    cookie = await signed_in(relay, token)
    await relay.services.store.revoke_token(parse_credential(token).id)
    assert await refused_page(relay, Cookie=cookie) == (401, "unauthorized")


async def test_revoking_a_token_closes_its_open_pages_and_their_replies(relay: RunningRelay) -> None:
    head = await relay.serving(head=True)
    token = await relay.token("client")
    page = await open_page(relay, Cookie=await signed_in(relay, token))
    await page.hear(browser.PageWelcome)
    await page.ask()
    await head.hear(Generate)
    await relay.services.store.revoke_token(parse_credential(token).id)
    await jobs.close_revoked(relay.services)
    assert (await page.hear(browser.PageError)).error.code == "unauthorized"
    assert await page.closed() == 4401
    await head.hear(Cancel)
    assert await relay.metric("refusals_total", reason="unauthorized") == 1


async def test_other_tokens_pages_stay_open(relay: RunningRelay) -> None:
    good, bad = await relay.token("client"), await relay.token("client")
    page = await open_page(relay, Cookie=await signed_in(relay, good))
    await page.hear(browser.PageWelcome)
    await relay.services.store.revoke_token(parse_credential(bad).id)
    await jobs.close_revoked(relay.services)
    await page.is_served()
