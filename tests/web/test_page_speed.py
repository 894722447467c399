"""What the page costs: bytes over the wire, and the browser's work. The relay's end is played by the test.

How long the work takes depends on the machine: here it is compared with a fixed piece of work that the same
browser does at the same time. `python -m benchmarks.pages` has the milliseconds.
"""

import pytest
from playwright.async_api import Locator, expect

from benchmarks import long_chat
from tests.web.page_objects import ChatPage
from tests.web.scripted import ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FIRST_LOAD_BYTES = 150_000
FIRST_LOAD_FILES = 100
READY_UNITS = 30
FRAME_UNITS = 0.5
DELAY_UNITS = 10
"""How many times as long as `long_chat.unit_milliseconds` it may take: three times what it does, and more."""
MOST_DRAWN = 60
"""Three groups: what is in the window, and around it."""
KEYS = 100


async def open_long(scripted: ScriptedRelay) -> ChatPage:
    """The page with a conversation of 2,000 messages on it."""
    chat = await scripted.open()
    await long_chat.keep_long(scripted.page)
    await scripted.page.reload()
    await expect(last_text(chat)).to_contain_text(f"Answer {long_chat.TURNS - 1}.")
    return chat


def last_text(chat: ChatPage) -> Locator:
    """By its class: to look through two thousand messages by role takes longer than all the rest."""
    return chat.page.locator(".turns:last-child > .turn:last-child .prose")


async def test_the_first_load_stays_within_its_bytes_and_files(scripted: ScriptedRelay) -> None:
    session = await scripted.page.context.new_cdp_session(scripted.page)
    await session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    chat = await scripted.open()
    await expect(chat.send).to_be_visible()
    assert sum(sizes) <= FIRST_LOAD_BYTES, f"{sum(sizes):.0f} bytes in {len(sizes)} files"
    assert len(sizes) <= FIRST_LOAD_FILES


async def test_a_question_can_be_asked_after_little_script(scripted: ScriptedRelay) -> None:
    await long_chat.watch_readiness(scripted.page)
    session = await long_chat.watch_performance(scripted.page)
    await scripted.open()
    await long_chat.ready_at(scripted.page)
    took = await long_chat.script_milliseconds(session)
    unit = await long_chat.unit_milliseconds(scripted.page)
    assert took <= READY_UNITS * unit, f"{took:.0f} ms, {took / unit:.0f} units"


async def test_a_second_load_sends_no_file_again(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await expect(chat.send).to_be_visible()
    await scripted.page.reload()
    await expect(chat.send).to_be_visible()
    sent = await scripted.page.evaluate(
        "() => performance.getEntriesByType('resource').filter((one) => one.name.includes('/static/'))"
        ".reduce((sum, one) => sum + (one.transferSize > 300 ? one.transferSize : 0), 0)"
    )
    assert sent == 0


async def test_a_long_conversation_is_there_from_its_end_and_is_found_by_the_browser(
    scripted: ScriptedRelay,
) -> None:
    chat = await open_long(scripted)
    await expect(last_text(chat)).to_be_in_viewport()
    await expect(scripted.page.locator(".turn")).to_have_count(long_chat.TURNS)
    await long_chat.wait_until_whole(scripted.page)


async def test_a_long_conversation_scrolls_with_little_script_and_draws_what_is_near(
    scripted: ScriptedRelay,
) -> None:
    await open_long(scripted)
    await long_chat.wait_until_whole(scripted.page)
    unit = await long_chat.unit_milliseconds(scripted.page)
    session = await long_chat.watch_performance(scripted.page)
    frames = 120
    before = await long_chat.script_milliseconds(session)
    await long_chat.scroll(scripted.page, frames)
    each = (await long_chat.script_milliseconds(session) - before) / frames
    assert each <= FRAME_UNITS * unit, f"{each:.1f} ms of script a frame, {each / unit:.1f} units"
    assert await long_chat.drawn_turns(scripted.page) <= MOST_DRAWN


async def test_typing_stays_prompt_while_a_reply_streams(scripted: ScriptedRelay) -> None:
    await open_long(scripted)
    await long_chat.wait_until_whole(scripted.page)
    unit = await long_chat.unit_milliseconds(scripted.page)
    question = scripted.page.locator("#question")  # not by its role, as above
    await question.fill("Go on.")
    await question.press("Enter")
    reply = (await scripted.next_chat()).id
    await long_chat.watch_keys(scripted.page)
    for key in range(KEYS):
        scripted.say(reply, *long_chat.next_words(key))
        pause = 1000 * long_chat.TOKENS_A_KEY / long_chat.TOKENS_A_SECOND
        await scripted.page.keyboard.press("a", delay=pause)
    scripted.finish(reply)
    await expect(scripted.page.locator(".reply[data-phase='streaming']")).to_have_count(0)
    await expect(question).to_have_value("a" * KEYS)
    delays = await long_chat.key_delays(scripted.page, KEYS)
    slow = delays[int(0.95 * KEYS) - 1]
    assert slow <= DELAY_UNITS * unit, f"{slow:.0f} ms, {slow / unit:.1f} units; the slowest: {delays[-10:]}"
