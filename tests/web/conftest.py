"""Chromium for the tests of the page: one browser for all of them, a fresh page for each.

Everything runs on the session's event loop, as a browser belongs to the loop that started it.
Without Chromium these tests are skipped, but never in CI.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserType, ConsoleMessage, Page, async_playwright

from benchmarks.chromium import ARGUMENTS, NAMES, find_chromium
from benchmarks.processes import RelayProcess, relay
from tests.conftest import DEMO_MODEL
from tests.web.scripted import ScriptedRelay
from tests.web.scripted_swarm import ScriptedSwarm, scripted_swarm

EXPECTED_PROBLEM = "Failed to load resource: the server responded with a status of "
"""What Chromium logs when the relay refuses what a page asks of its interface, as a test wants it to."""
INTERFACE = ("/api/", "/v1/")


def chromium(kind: BrowserType) -> str:
    """The path of the browser; also what `playwright install` fetched will do."""
    found = find_chromium()
    if found is not None:
        return found
    if Path(kind.executable_path).exists():
        return kind.executable_path
    reason = (
        f"no Chromium here: CHROMIUM is not set, none of {', '.join(NAMES)} is on PATH, "
        "and Playwright has none of its own"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        kind = playwright.chromium
        running = await kind.launch(executable_path=chromium(kind), args=ARGUMENTS)
        yield running
        await running.close()


CUT_OFF = "Failed to load resource: net::ERR_FAILED"
"""What it logs when a test cuts a page off from the interface."""


@pytest_asyncio.fixture(loop_scope="session")
async def browser_page(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own profile, 1280 by 800.

    At its end it must have logged no error: no exception, and nothing that its policy forbids.
    """
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page = await context.new_page()
    problems: list[str] = []

    def note(message: ConsoleMessage) -> None:
        is_refusal = message.text.startswith((EXPECTED_PROBLEM, CUT_OFF))
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
