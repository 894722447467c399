"""A relay that has no place for another page says so, and the page comes in when there is one."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.relay.core.waiting import eventually
from tests.web.near_relay import near_relay
from tests.web.page_objects import ChatPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_one_page_too_many_is_told_why_and_comes_in_later(browser_page: Page, tmp_path: Path) -> None:
    async with near_relay(tmp_path, pages=1) as relay:
        await browser_page.goto(relay.url)
        await expect(browser_page.get_by_text("No volunteer serves this model yet.")).to_be_visible()
        late = await browser_page.context.new_page()
        await late.goto(relay.url)
        said = late.get_by_role("status").filter(has_text="Too many pages of this relay are open")
        await expect(said).to_contain_text("Trying again by itself.")
        await expect(ChatPage(late).send).to_be_disabled()
        assert relay.refusals("unavailable") == 1
        await browser_page.goto("about:blank")
        await eventually(lambda: not len(relay.services.open_pages))
        await said.get_by_role("button", name="Try now").click()
        await expect(said).to_be_hidden()
        await expect(late.get_by_text("No volunteer serves this model yet.")).to_be_visible()
        await late.close()
