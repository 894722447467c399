"""A volunteer dies in the middle of a reply: the page says so, and the reply is what it would have been.

A real swarm with a spare for everything, which the tests hurt (tests/chaos/thicket.py).
"""

import asyncio
import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.chaos.thicket import FIRST, SECOND, SPARES, Thicket
from tests.conftest import EXACT
from tests.garden import garden, make_model
from tests.web.page_objects import REPLY_TIMEOUT_MS, ChatPage

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "3 14 159 26 5 358"
TOKENS = "600"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thicket]:
    with garden(make_model(tmp_path_factory.mktemp("tiny")), SPARES, EXACT) as grown:
        thicket = Thicket(grown)
        thicket.plant()
        yield thicket


@pytest.fixture
def thicket(planted: Thicket) -> Iterator[Thicket]:
    """Everybody serves, and nothing goes on."""
    planted.mend()
    planted.want_spares()
    try:
        yield planted
    except BaseException:
        print(planted.garden.last_words())
        raise


async def test_a_volunteer_on_the_route_is_killed(browser_page: Page, thicket: Thicket) -> None:
    await kill_in_mid_reply(browser_page, thicket, SECOND)


async def test_the_head_that_writes_it_is_killed(browser_page: Page, thicket: Thicket) -> None:
    await kill_in_mid_reply(browser_page, thicket, FIRST)


async def test_a_relay_that_dies_and_comes_back_leaves_what_was_written_and_the_rest_to_be_asked_for(
    browser: Browser, thicket: Thicket
) -> None:
    """In a profile of its own: what the page logs meanwhile is that the relay is away."""
    context = await browser.new_context()
    page = await context.new_page()
    chat = ChatPage(page)
    await page.goto(thicket.garden.relay.url)
    await chat.set(Temperature="0", Most_tokens_in_a_reply=TOKENS)
    await chat.ask(QUESTION)
    await expect(chat.text).not_to_be_empty(timeout=REPLY_TIMEOUT_MS)
    thicket.garden.relay.process.kill()
    await expect(page.get_by_text("The relay cannot be reached")).to_be_visible()
    await expect(chat.last.get_by_text("goes on when it is back")).to_be_visible()
    written = await chat.text.inner_text()
    await asyncio.to_thread(thicket.garden.replace_relay, lambda process: process.kill())
    await expect(chat.last.get_by_text("not here any more")).to_be_visible(timeout=REPLY_TIMEOUT_MS)
    await expect(chat.text).to_have_text(written)
    await asyncio.to_thread(thicket.mend)  # the volunteers come back too
    await chat.last.get_by_role("button", name="Continue").click(timeout=REPLY_TIMEOUT_MS)
    await expect(chat.text).not_to_have_text(written, timeout=REPLY_TIMEOUT_MS)
    await chat.wait_for_end()
    assert (await chat.text.inner_text()).startswith(written)
    await context.close()


async def kill_in_mid_reply(page: Page, thicket: Thicket, span: str) -> None:
    """Kill whoever serves the reply over `span`; the first blocks are with the head."""
    await page.goto(thicket.garden.relay.url)
    chat = ChatPage(page)
    await chat.set(Temperature="0", Most_tokens_in_a_reply=TOKENS)
    undisturbed = await chat.ask_and_wait(QUESTION)
    await asyncio.to_thread(thicket.garden.wait_for_no_sessions)
    await chat.retry.click()
    await expect(chat.stop).to_be_visible()
    await expect(chat.text).not_to_be_empty(timeout=REPLY_TIMEOUT_MS)
    victim = await asyncio.to_thread(thicket.used, span)
    await asyncio.to_thread(thicket.kill, victim)
    await expect(chat.last.get_by_text("A volunteer dropped out").filter(visible=True)).to_be_visible(
        timeout=REPLY_TIMEOUT_MS
    )
    await chat.wait_for_end()
    await expect(chat.text).to_have_text(undisturbed)
    await expect(chat.last).to_contain_text(f"{TOKENS} tokens")
    await expect(chat.last.get_by_role("list", name="Served by")).not_to_contain_text(victim)
    await chat.last.get_by_role("button", name="Where the time went").click()
    shown = chat.last.get_by_role("region", name="Where the time went")
    await expect(shown).to_contain_text(re.compile(r"a volunteer was replaced, which took \d"))
