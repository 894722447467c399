"""The swarm as it changes under the page's eyes. The relay's end is played by the test."""

import pytest
from playwright.async_api import expect

from schema.browser import PageError
from schema.messages import ErrorInfo
from schema.swarm import ModelStatus
from tests.web.scripted import MODEL, ScriptedRelay, complete_swarm, incomplete_swarm, volunteer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_missing_blocks_are_named_and_sending_comes_back_by_itself(scripted: ScriptedRelay) -> None:
    chat = await scripted.open(incomplete_swarm())
    await chat.question.fill("Hello?")
    words = scripted.page.get_by_text("Blocks 4\N{EN DASH}7 have no volunteer.")
    await expect(words).to_be_visible()
    await expect(chat.send).to_be_disabled()
    scripted.change_swarm(complete_swarm())
    await expect(chat.send).to_be_enabled()
    await expect(words).to_have_count(0)


async def test_a_volunteer_on_its_way_is_shown_with_its_progress(scripted: ScriptedRelay) -> None:
    coming = volunteer("fern", 4, 8, state="loading", done=40, total=100)
    await scripted.open(incomplete_swarm(coming))
    strip = scripted.page.get_by_role("region", name="The swarm")
    await strip.get_by_role("button", name="8 of 12 blocks served by 2 volunteers").click()
    row = strip.get_by_role("listitem").filter(has_text="fern")
    await expect(row).to_contain_text("loading, 40 %")
    await expect(row).to_contain_text("Blocks 4\N{EN DASH}7")
    scripted.change_swarm(incomplete_swarm(volunteer("fern", 4, 8, state="probing")))
    await expect(row).to_contain_text("probing")


async def test_the_picked_model_is_asked(scripted: ScriptedRelay) -> None:
    other = ModelStatus(id="other-1b", blocks=4, context=64, complete=True, heads=1)
    chat = await scripted.open(complete_swarm(others=[other]))
    await expect(chat.model).to_have_value(MODEL)
    await chat.model.select_option("other-1b")
    await chat.ask("Hello?")
    assert (await scripted.next_chat()).model == "other-1b"
    await scripted.page.reload()
    await expect(chat.model).to_have_value("other-1b")


async def test_what_the_relay_says_to_the_page_is_shown_quietly(scripted: ScriptedRelay) -> None:
    await scripted.open()
    await expect(scripted.page.get_by_role("combobox", name="Model")).to_be_enabled()
    scripted.send(PageError(error=ErrorInfo(code="unavailable", message="The database is away for a while.")))
    words = scripted.page.get_by_text("The database is away for a while.")
    await expect(words).to_be_visible()
    await scripted.page.get_by_role("button", name="Dismiss").click()
    await expect(words).to_be_hidden()
