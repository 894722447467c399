"""Chromium for the tests of the page: one browser for all of them, a fresh page for each.

Everything runs on the session's event loop, as a browser belongs to the loop that started it.
Without Chromium these tests are skipped, but never in CI.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserType, ConsoleMessage, Page, async_playwright

from benchmarks.chromium import ARGUMENTS, NoBrowser, find_chromium
from benchmarks.processes import RelayProcess, relay
from tests.conftest import DEMO_MODEL
from tests.web.scripted import ScriptedRelay
from tests.web.scripted_swarm import ScriptedSwarm, scripted_swarm

EXPECTED_PROBLEMS = (
    "Failed to load resource: the server responded with a status of ",
    "Failed to load resource: net::ERR_FAILED",
)
"""What Chromium logs when a test wants the relay's interface to refuse, or cuts a page off from it."""
INTERFACE = ("/api/", "/v1/")


def chromium_of(kind: BrowserType) -> str:
    """The path of the browser. Where there is none the test is skipped, or fails in CI."""
    try:
        return find_chromium(kind.executable_path)
    except NoBrowser as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        kind = playwright.chromium
        running = await kind.launch(executable_path=chromium_of(kind), args=ARGUMENTS)
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser_page(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own profile, 1280 by 800.

    At its end it must have logged no error: no exception, and nothing that its policy forbids.
    """
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page = await context.new_page()
    problems: list[str] = []

    def note(message: ConsoleMessage) -> None:
        is_refusal = message.text.startswith(EXPECTED_PROBLEMS)
        if is_refusal and any(part in message.location["url"] for part in INTERFACE):
            return
        if message.type in ("error", "warning"):
            problems.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    await context.close()
    assert problems == []


@pytest.fixture
def scripted(browser_page: Page, lonely_relay: RelayProcess) -> ScriptedRelay:
    """A page whose WebSocket the test answers; its files come from a real relay."""
    return ScriptedRelay(browser_page, lonely_relay.url)


@pytest_asyncio.fixture(loop_scope="session")
async def played(browser_page: Page, lonely_relay: RelayProcess) -> AsyncIterator[ScriptedSwarm]:
    """The relay's `/api` and `/v1`, answered by the test; the pages come from a real relay."""
    async with scripted_swarm(lonely_relay.url) as swarm:
        yield swarm
        await browser_page.goto("about:blank")  # before nobody answers it any more


@pytest.fixture(scope="session")
def closed_relay() -> Iterator[RelayProcess]:
    """A relay that wants an access token."""
    with relay(DEMO_MODEL, OPEN_CHAT="false") as server:
        yield server
