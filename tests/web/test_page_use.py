"""Keyboard, theme, motion and scrolling. The relay's end is played by the test."""

import pytest
from playwright.async_api import Page, expect

from schema.swarm import MissingBlocks, ModelStatus, SwarmStatus
from tests.web.scripted import ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_the_keyboard_writes_lines_sends_and_stops(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await expect(chat.question).to_be_focused()
    await scripted.page.keyboard.type("One")
    await scripted.page.keyboard.press("Shift+Enter")
    await scripted.page.keyboard.type("Two")
    await expect(chat.send).to_be_enabled()
    await scripted.page.keyboard.press("Enter")
    request = await scripted.next_chat()
    assert request.messages[-1].content == "One\nTwo"
    await expect(chat.question).to_be_focused()
    await expect(chat.stop).to_be_visible()
    await scripted.page.keyboard.press("Escape")
    assert (await scripted.next_stop()).id == request.id


async def test_dialogs_close_with_escape_and_give_the_focus_back(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    await scripted.next_chat()
    opener = scripted.page.get_by_role("button", name="Settings", exact=True)
    await opener.focus()
    await scripted.page.keyboard.press("Enter")
    dialog = scripted.page.get_by_role("dialog", name="Settings")
    await expect(dialog).to_be_visible()
    await scripted.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(opener).to_be_focused()
    await expect(chat.stop).to_be_visible()


async def test_every_control_can_be_reached_by_tab_and_shows_its_focus(scripted: ScriptedRelay) -> None:
    await scripted.open()
    await expect(scripted.page.get_by_role("combobox", name="Model")).to_be_enabled()
    seen = await walk_by_tab(scripted.page, presses=24)
    for wanted in ("Skip to the question", "New chat", "Join", "Settings", "Dark theme", "What is Corolla?"):
        assert any(wanted in name for name in seen), f"{wanted!r} is not among {sorted(seen)}"
    assert all(seen.values()), (
        f"no visible focus on {[name for name, visible in seen.items() if not visible]}"
    )


async def walk_by_tab(page: Page, presses: int) -> dict[str, bool]:
    """What Tab comes to, and whether it is outlined (the question's box is outlined in its stead)."""
    seen: dict[str, bool] = {}
    for _ in range(presses):
        await page.keyboard.press("Tab")
        found = await page.evaluate(
            "() => { const focused = document.activeElement;"
            " const marked = focused.closest('.composer-box') && focused.id === 'question'"
            " ? focused.closest('.composer-box') : focused;"
            " return [focused.innerText || focused.id, getComputedStyle(marked).outlineStyle !== 'none',"
            " focused === document.body]; }"
        )
        name, visible, is_body = found
        if not is_body:
            seen[name] = visible
    return seen


async def test_a_setting_out_of_range_is_named_and_not_taken(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await scripted.page.get_by_role("button", name="Settings").click()
    await chat.settings.get_by_label("Temperature", exact=True).fill("9")
    await expect(chat.settings.get_by_text("Temperature goes from 0 to 2.")).to_be_visible()
    await scripted.page.keyboard.press("Escape")
    await chat.ask("Hello?")
    assert (await scripted.next_chat()).sampling.temperature == 0.7


async def test_the_theme_is_the_systems_until_one_is_chosen(scripted: ScriptedRelay) -> None:
    await scripted.page.emulate_media(color_scheme="dark")
    await scripted.open()
    assert await brightness(scripted.page) < 80
    toggle = scripted.page.get_by_role("button", name="Dark theme")
    await expect(toggle).to_have_attribute("aria-pressed", "true")
    await toggle.click()
    assert await brightness(scripted.page) > 200
    await scripted.page.reload()
    assert await brightness(scripted.page) > 200
    await expect(toggle).to_have_attribute("aria-pressed", "false")


async def test_the_theme_that_is_chosen_in_one_tab_is_every_tabs(scripted: ScriptedRelay) -> None:
    await scripted.open()
    other = await scripted.second_tab()
    await other.open()
    await scripted.page.get_by_role("button", name="Dark theme").click()
    toggle = other.page.get_by_role("button", name="Dark theme")
    await expect(toggle).to_have_attribute("aria-pressed", "true")
    assert await brightness(other.page) < 80


async def brightness(page: Page) -> float:
    """Of the page's background, 0 to 255."""
    return await page.evaluate(
        "() => { const canvas = document.createElement('canvas').getContext('2d');"
        " canvas.fillStyle = getComputedStyle(document.body).backgroundColor; canvas.fillRect(0, 0, 1, 1);"
        " const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data; return (red + green + blue) / 3; }"
    )


async def test_nothing_moves_for_those_who_want_less_motion(scripted: ScriptedRelay) -> None:
    await scripted.page.emulate_media(reduced_motion="reduce")
    chat = await scripted.open()
    await chat.ask("Hello?")
    scripted.say((await scripted.next_chat()).id, "Half a")
    await expect(chat.text).to_have_text("Half a")
    running = await scripted.page.evaluate("() => document.getAnimations().map((one) => one.animationName)")
    assert running == []


async def test_scrolling_up_stays_there_while_the_reply_grows(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("A long one.")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, *(f"Paragraph {number}.\n\n" for number in range(60)))
    await expect(chat.text.get_by_text("Paragraph 59.")).to_be_in_viewport()
    await chat.text.hover()
    await scripted.page.mouse.wheel(0, -2000)
    latest = scripted.page.get_by_role("button", name="Latest")
    await expect(latest).to_be_visible()
    scripted.finish(reply, "The end.")
    await chat.wait_for_end()
    await expect(chat.text.get_by_text("The end.")).not_to_be_in_viewport()
    await latest.click()
    await expect(chat.text.get_by_text("The end.")).to_be_in_viewport()


async def test_a_phone_shows_every_button_however_long_the_models_name_is(scripted: ScriptedRelay) -> None:
    await scripted.page.set_viewport_size({"width": 360, "height": 740})
    name = "a-family-of-models/with-a-name-that-fills-a-phone"
    model = ModelStatus(id=name, blocks=12, context=1024, missing=[MissingBlocks(0, 12)])
    await scripted.open(SwarmStatus(models=[model], volunteers=[]))
    await expect(scripted.page.get_by_role("combobox", name="Model")).to_contain_text("(incomplete)")
    banner = scripted.page.get_by_role("banner")
    for button in ("Conversations", "Pages", "New chat", "Settings"):
        await expect(banner.get_by_role("button", name=button)).to_be_in_viewport(ratio=1)


async def test_nothing_lies_over_a_question_that_is_being_edited(scripted: ScriptedRelay) -> None:
    await scripted.page.set_viewport_size({"width": 360, "height": 600})
    chat = await scripted.open()
    await chat.ask("A long one.")
    scripted.finish((await scripted.next_chat()).id, "Word. " * 500)
    await chat.wait_for_end()
    edit = chat.last.get_by_role("button", name="Edit")
    await edit.scroll_into_view_if_needed()
    latest = scripted.page.get_by_role("button", name="Latest")
    await expect(latest).to_be_visible()
    await edit.click()
    await expect(chat.last.get_by_role("textbox", name="Edit your question")).to_be_focused()
    await expect(latest).to_be_hidden()
    await scripted.page.keyboard.press("Escape")
    await expect(latest).to_be_visible()
