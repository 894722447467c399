"""relay/open_pages.py: how many pages are open at once, and what is said to one too many."""

from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.open_pages import OpenPages
from schema import browser
from schema.errors import TooManyRequests, Unavailable
from tests.relay.core.page import ScriptedPage, open_page
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.test_pages_access import signed_in
from tests.relay.core.waiting import eventually


async def welcomed(relay: RunningRelay, **headers: str) -> ScriptedPage:
    page = await open_page(relay, **headers)
    await page.hear(browser.PageWelcome)
    return page


async def refusal_of(page: ScriptedPage) -> str:
    """The reason that a page hears in place of a welcome, with when to come back, before it is closed."""
    message = await page.hear_anything()
    assert isinstance(message, browser.PageError), message
    assert message.id is None
    assert message.error.retry_after
    assert await page.closed() == 1013
    return message.error.code


def nothing_open(relay: RunningRelay, left: int = 0) -> Callable[[], bool]:
    return lambda: len(relay.services.open_pages) == left


async def test_one_page_too_many_is_told_when_to_come_back(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, open_chat=True, pages=2) as relay:
        first = await welcomed(relay)
        await welcomed(relay)
        assert await refusal_of(await open_page(relay)) == "unavailable"
        assert relay.refusals("unavailable") == 1
        assert await relay.metric("connections", role="page") == 2
        await first.is_served()
        await first.socket.close()
        await eventually(nothing_open(relay, left=1))
        await welcomed(relay)


async def test_one_token_has_so_many_pages_and_leaves_others_theirs(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, token_pages=1) as relay:
        mine, yours = [await signed_in(relay, await relay.token("client", name)) for name in ("me", "you")]
        page = await welcomed(relay, Cookie=mine)
        assert await refusal_of(await open_page(relay, Cookie=mine)) == "rate_limit_exceeded"
        assert relay.refusals("rate_limit_exceeded") == 1
        await welcomed(relay, Cookie=yours)
        await page.socket.close()
        await eventually(nothing_open(relay, left=1))
        await welcomed(relay, Cookie=mine)


async def test_a_tokens_keys_have_places_of_its_own(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, token_pages=1) as relay:
        token = await relay.token("client")
        async with client_of(relay, token) as http:
            made = await http.post("/api/tokens", json={"kind": "client", "name": "a script"})
        key = await signed_in(relay, made.json()["token"])
        await welcomed(relay, Cookie=await signed_in(relay, token))
        assert await refusal_of(await open_page(relay, Cookie=key)) == "rate_limit_exceeded"


async def test_where_nobody_signs_in_an_address_has_so_many_pages(sqlite_file: Path) -> None:
    """As a proxy on the same machine tells it."""
    async with running_relay(sqlite_file, open_chat=True, token_pages=1) as relay:
        for address in ("203.0.113.7", "203.0.113.8", "2001:db8::1"):
            await welcomed(relay, **{"X-Forwarded-For": address})
        for address in ("203.0.113.7", "2001:db8::2"):
            page = await open_page(relay, **{"X-Forwarded-For": address})
            assert await refusal_of(page) == "rate_limit_exceeded", address


async def test_petals_scripts_have_places_of_their_tokens_too(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, token_pages=1) as relay:
        token = await relay.token("client")
        headers = {"Authorization": f"Bearer {token}"}
        url = f"ws://127.0.0.1:{relay.port}/api/v2/generate"
        async with connect(url, additional_headers=headers, proxy=None):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers, proxy=None)
            assert refused.value.response.status_code == 429
            assert int(refused.value.response.headers["Retry-After"]) > 0
            assert relay.refusals("rate_limit_exceeded") == 1
        await eventually(nothing_open(relay))
        async with connect(url, additional_headers=headers, proxy=None):
            pass


def test_nothing_is_kept_of_who_has_no_page_open() -> None:
    places = OpenPages(2, 1)
    with places.place(None, "2001:db8::1"), places.place("token", ""):
        assert len(places) == 2
        with pytest.raises(Unavailable), places.place("other", ""):
            pass
        with pytest.raises(TooManyRequests, match="your address"), places.place(None, "2001:db8::2"):
            pass
    assert len(places) == 0
    assert not vars(places)["_people"]
