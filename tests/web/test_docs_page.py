"""/docs in Chromium: readable under the page's own policy, in light and dark, on a phone."""

import pytest
from playwright.async_api import Page

from benchmarks.processes import RelayProcess

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_description_is_readable(
    browser_page: Page, lonely_relay: RelayProcess, width: int, scheme: str
) -> None:
    await browser_page.set_viewport_size({"width": width, "height": 844})
    await browser_page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await browser_page.goto(f"{lonely_relay.url}/docs")
    assert await browser_page.evaluate("document.documentElement.scrollWidth") == width
    background = await browser_page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = float(background.removeprefix("oklch(").split()[0])
    assert (lightness > 0.5) == (scheme == "light")


async def test_a_link_of_the_contents_leads_to_its_operation(
    browser_page: Page, lonely_relay: RelayProcess
) -> None:
    await browser_page.goto(f"{lonely_relay.url}/docs")
    await browser_page.get_by_role("navigation").get_by_role("link", name="POST /v1/chat/completions").click()
    heading = browser_page.get_by_role("heading", name="POST /v1/chat/completions")
    await heading.wait_for()
    assert await browser_page.evaluate("location.hash") == "#post_v1_chat_completions"
