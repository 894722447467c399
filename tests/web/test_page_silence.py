"""The line between a page and its relay dies without a word in the middle of a reply.

Browser, relay and WebSocket are real; the line (tests/web/silent_line.py) and the volunteer that writes are
played by the test.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from relay import pages
from schema.messages import Generate
from tests.relay.core.peers import ScriptedPeer, finish, say_texts
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually
from tests.web.near_relay import near_relay
from tests.web.page_objects import ChatPage
from tests.web.silent_line import SilentLine, silent_line

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HEARTBEAT_SECONDS = 0.5
"""So that nobody waits half a minute for a page to notice."""


@pytest_asyncio.fixture(loop_scope="session")
async def near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    monkeypatch.setattr(pages, "HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    async with near_relay(tmp_path) as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="session")
async def head(near: RunningRelay) -> ScriptedPeer:
    """Who holds the whole model and writes its replies."""
    return await near.serving(head=True)


@pytest_asyncio.fixture(loop_scope="session")
async def line(browser_page: Page, near: RunningRelay) -> AsyncIterator[SilentLine]:
    async with silent_line(near.port) as line:
        yield line
        line.restore()
        await browser_page.goto("about:blank")  # before nobody carries its requests any more


async def test_a_page_that_nobody_tells_of_it_connects_anew_and_the_same_reply_goes_on(
    browser_page: Page, near: RunningRelay, head: ScriptedPeer, line: SilentLine
) -> None:
    await browser_page.goto(line.url)
    chat = ChatPage(browser_page)
    await chat.ask("How does a flower open?")
    asked = await head.hear(Generate)
    await say_texts(head, asked, "Petal ", "by petal")
    await expect(chat.text).to_have_text("Petal by petal")
    pages_open = near.services.metrics.connections
    await eventually(lambda: pages_open["page"] == 1)
    line.fall_silent()
    await say_texts(head, asked, ", and nobody ", "\N{HIBISCUS}")
    await expect(chat.last.get_by_text("goes on when it is back")).to_be_visible()
    await expect(chat.text).to_have_text("Petal by petal")
    assert pages_open["page"] == 1  # the relay has not noticed
    line.restore()
    await expect(chat.text).to_have_text("Petal by petal, and nobody \N{HIBISCUS}")
    await expect(chat.last.get_by_text("goes on when it is back")).to_be_hidden()
    await eventually(lambda: pages_open["page"] == 2)  # the dead one is still there
    await say_texts(head, asked, " sees it.")
    await finish(head, asked, tokens=5)
    await chat.wait_for_end()
    await expect(chat.text).to_have_text("Petal by petal, and nobody \N{HIBISCUS} sees it.")
    await expect(chat.turns).to_have_count(1)
    assert near.services.metrics.kept_replies["resumed"] >= 1
