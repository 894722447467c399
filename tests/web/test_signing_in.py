"""Signing in, on each page: reached by keyboard, told when it fails, and in nobody's way."""

import pytest
from playwright.async_api import Browser, Page, expect

from benchmarks.processes import RelayProcess
from tests.web.axe import violations
from tests.web.page_objects import view_as

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PATHS = ("/", "/swarm", "/join", "/jobs", "/keys", "/operators")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_stands_in_anybodys_way(
    browser_page: Page, closed_relay: RelayProcess, width: int, scheme: str
) -> None:
    await view_as(browser_page, width, scheme)
    for path in PATHS:
        await browser_page.goto(closed_relay.url + path)
        field = browser_page.get_by_label("Access token")
        await expect(field).to_be_focused()
        assert await violations(browser_page) == [], path
        await field.press_sequentially("wrong")
        await field.press("Enter")
        await expect(browser_page.get_by_role("alert").filter(has_text="token")).to_be_visible()
        await expect(field).to_have_attribute("aria-invalid", "true")
        assert await violations(browser_page) == [], path
        assert await browser_page.evaluate("document.documentElement.scrollWidth") == width, path


@pytest.mark.parametrize("width", [360, 1280])
async def test_an_address_without_a_page_says_so_and_leads_back(
    browser: Browser, lonely_relay: RelayProcess, width: int
) -> None:
    """In a profile of its own: the browser logs that the page is missing."""
    context = await browser.new_context(viewport={"width": width, "height": 800})
    page = await context.new_page()
    await page.goto(f"{lonely_relay.url}/nothing")
    await expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    await page.get_by_role("link", name="To the chat").click()
    await expect(page.get_by_role("heading", name="Chat", exact=True)).to_be_attached()
    await context.close()
