"""How a reply can end, and what a person can do about it. The relay's end is played by the test."""

import re

import pytest
from playwright.async_api import Route, expect

from schema.browser import PageError, ReplyDone, ReplyRepairing, Resume
from schema.generation import HeadTiming, HopTiming, Pause, Timing, Usage
from schema.messages import ErrorInfo
from tests.web.scripted import ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_markdown_appears_as_what_it_means(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Show me.")
    text = "## Title\n\n- one\n- **two**\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nprint(1 < 2)\n```\n"
    scripted.finish((await scripted.next_chat()).id, *text)
    await chat.wait_for_end()
    await expect(chat.text.get_by_role("heading", name="Title")).to_be_visible()
    await expect(chat.text.get_by_role("listitem")).to_have_text(["one", "two"])
    await expect(chat.text.get_by_role("cell")).to_have_text(["1", "2"])
    await expect(chat.text.get_by_role("region", name="python code")).to_have_text("print(1 < 2)")


async def test_figures_and_route_stand_below_it(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello.")
    scripted.finish((await scripted.next_chat()).id, "Hi.")
    await expect(chat.last.get_by_text("41 tokens · 20.0 tokens/s · first after 0.25 s")).to_be_visible()
    served_by = chat.last.get_by_role("list", name="Served by").get_by_role("listitem")
    await expect(served_by).to_have_text(
        ["rosa 0\N{EN DASH}3", "iris 4\N{EN DASH}7", "linden 8\N{EN DASH}11"]
    )


async def test_where_the_time_went_is_one_click_away(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello.")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Hi.")
    route = [
        HopTiming("rosa", 0, 4, compute=0.012, queue=0.001, wire=0.004, steps=3),
        HopTiming("iris", 4, 8, compute=0.02, queue=0.0, wire=0.031, steps=3),
        HopTiming("linden", 8, 12),
    ]
    prefill = [HopTiming("rosa", 0, 4, compute=0.1, wire=0.05, steps=2)]
    head = HeadTiming(compute=0.003, steps=3)
    pauses = [Pause(at=1.0, seconds=0.5)]
    timing = Timing(
        first_token=0.25, total=2.25, route=route, prefill=prefill, head=head, repairs=1, pauses=pauses
    )
    scripted.send(ReplyDone(id=reply, reason="stop", usage=Usage(5, 41, 46), timing=timing))
    await chat.last.get_by_role("button", name="Where the time went").click()
    shown = chat.last.get_by_role("region", name="Where the time went")
    await expect(shown.get_by_text("a volunteer was replaced, which took 0.50 s")).to_be_visible()
    step = shown.get_by_role("figure", name="A step, the mean of 3: 71 ms for one token")
    await expect(step.get_by_role("listitem")).to_have_text(
        [
            re.compile("^Head.*3 ms"),
            re.compile("^rosa.*17 ms.*4 ms on the way, 1 ms waiting, 12 ms computing"),
            re.compile("^iris.*51 ms.*31 ms on the way, 20 ms computing"),
            re.compile("^linden.*unknown"),
        ]
    )
    await expect(shown.get_by_role("figure", name="A slice of the prompt")).to_be_visible()


async def test_a_repair_is_shown_while_it_lasts_and_read_to_screen_readers(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Go on.")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "So")
    await expect(chat.text).to_have_text("So")
    scripted.send(ReplyRepairing(id=reply))
    under_way = chat.last.get_by_text("A volunteer dropped out. Going on with another one")
    await expect(under_way).to_be_visible()
    await expect(scripted.page.get_by_role("log")).to_contain_text("A volunteer dropped out.")
    scripted.say(reply, " far.")
    await expect(under_way).to_be_hidden()
    over = chat.last.get_by_text("another one went on")
    await expect(over).to_be_visible()
    scripted.finish(reply)
    await chat.wait_for_end()
    await expect(over).to_be_hidden()
    await expect(chat.text).to_have_text("So far.")


async def test_stop_is_sent_and_later_text_is_not_shown(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Go on.")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "So far.")
    await expect(chat.text).to_have_text("So far.")
    await chat.stop.click()
    assert (await scripted.next_stop()).id == reply
    scripted.say(reply, " And more.")
    scripted.send(ReplyDone(id=reply, reason=None))
    await expect(chat.last.get_by_text("Stopped.")).to_be_visible()
    await expect(chat.text).to_have_text("So far.")
    await expect(chat.question).to_be_editable()


async def test_an_error_is_shown_with_a_retry_that_works(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    error = ErrorInfo(code="generation_failed", message="The volunteer iris has left. Try again.")
    scripted.send(PageError(id=reply, error=error))
    await expect(chat.last.get_by_text("The volunteer iris has left. Try again.")).to_be_visible()
    await chat.retry.click()
    again = await scripted.next_chat()
    assert again.id != reply
    scripted.finish(again.id, "Here I am.")
    await expect(chat.text).to_have_text("Here I am.")
    await expect(chat.last.get_by_text("has left")).to_have_count(0)


async def test_a_lost_connection_does_not_end_it(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Half a \N{HIBISCUS}")
    await expect(chat.text).to_have_text("Half a \N{HIBISCUS}")
    await scripted.drop()
    assert await scripted.next_resume() == Resume(id=reply, received=9)
    scripted.finish(reply, " is a whole one.")
    await expect(chat.text).to_have_text("Half a \N{HIBISCUS} is a whole one.")
    await expect(scripted.page.get_by_text("cannot be reached")).to_be_hidden()
    await expect(chat.retry).to_be_enabled()


async def test_a_reload_does_not_end_it(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Half a")
    await expect(chat.text).to_have_text("Half a")
    await scripted.page.reload()
    assert await scripted.next_resume() == Resume(id=reply, received=6)
    await expect(chat.stop).to_be_visible()
    scripted.finish(reply, " loaf.")
    await expect(chat.text).to_have_text("Half a loaf.")


async def test_escape_closes_what_is_open_before_it_stops_one(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Half a")
    await expect(chat.text).to_have_text("Half a")
    await scripted.page.get_by_role("button", name="More for").click()
    menu = scripted.page.get_by_role("menu", name="Conversation")
    await expect(menu).to_be_visible()
    await scripted.page.keyboard.press("Escape")
    await expect(menu).to_be_hidden()
    search = scripted.page.get_by_role("searchbox", name="Search conversations")
    await search.fill("loaf")
    await search.press("Escape")
    await expect(search).to_have_value("")
    await expect(chat.stop).to_be_visible()
    await scripted.page.keyboard.press("Escape")
    assert (await scripted.next_stop()).id == reply
    await expect(chat.last.get_by_text("Stopped.")).to_be_visible()


async def test_one_that_the_relay_does_not_have_any_more_is_interrupted_and_retry_works(
    scripted: ScriptedRelay,
) -> None:
    chat = await scripted.open()
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Half a")
    await expect(chat.text).to_have_text("Half a")
    await scripted.page.reload()
    await scripted.next_resume()
    gone = ErrorInfo(code="not_found", message="The rest of it is not here any more.")
    scripted.send(PageError(id=reply, error=gone))
    await expect(chat.last.get_by_text("not here any more")).to_be_visible()
    await expect(chat.text).to_have_text("Half a")
    await chat.retry.click()
    scripted.finish((await scripted.next_chat()).id, "A whole one.")
    await expect(chat.text).to_have_text("A whole one.")


async def test_a_token_that_is_revoked_in_mid_reply_asks_for_another_and_loses_nothing(
    scripted: ScriptedRelay,
) -> None:
    page, access = scripted.page, "signed_in"

    async def answer(route: Route) -> None:
        nonlocal access
        if route.request.method == "POST":
            access = "signed_in"
            return await route.fulfill(status=204)
        return await route.fulfill(json={"access": access, "kind": "client"})

    await page.route("**/api/session", answer)
    chat = await scripted.open()
    await chat.ask("Hello?")
    scripted.say((await scripted.next_chat()).id, "Half a")
    await expect(chat.text).to_have_text("Half a")
    await chat.question.fill("And then?")
    access = "sign_in"
    scripted.send(PageError(error=ErrorInfo(code="unauthorized", message="The token has been revoked.")))
    await scripted.drop()
    token = page.get_by_label("Access token")
    await expect(token).to_be_focused()
    await expect(page.get_by_text("The token has been revoked.")).to_be_visible()
    await expect(chat.turns).to_be_hidden()
    await token.fill("another")
    await page.keyboard.press("Enter")
    await expect(chat.last.get_by_text("connection was lost")).to_be_visible()
    await expect(chat.question).to_have_value("And then?")
    await chat.last.get_by_role("button", name="Continue").click()
    asked = await scripted.next_chat()
    assert (asked.continues, asked.messages[-1].content) == (True, "Half a")
    scripted.finish(asked.id, " loaf.")
    await expect(chat.text).to_have_text("Half a loaf.")


async def test_a_conversation_that_is_too_long_is_refused_in_words(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.question.fill("x" * (1024 * 1024))
    await chat.send.click()
    await expect(chat.last.get_by_text("longer than the relay takes")).to_be_visible()


async def test_copying_gives_the_text_as_it_was_written(scripted: ScriptedRelay) -> None:
    await scripted.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat = await scripted.open()
    await chat.ask("Code, please.")
    scripted.finish((await scripted.next_chat()).id, "**So:**\n\n```\na < b\n```")
    await chat.wait_for_end()
    await chat.text.get_by_role("button", name="Copy").click()
    await expect(chat.text.get_by_role("button", name="Copied")).to_be_visible()
    assert await scripted.page.evaluate("() => navigator.clipboard.readText()") == "a < b"
    await chat.last.locator("footer").get_by_role("button", name="Copy").click()
    await expect(chat.last.locator("footer").get_by_role("button", name="Copied")).to_be_visible()
    assert (
        await scripted.page.evaluate("() => navigator.clipboard.readText()") == "**So:**\n\n```\na < b\n```"
    )


async def test_screen_readers_hear_sentences_not_tokens(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    heard = scripted.page.get_by_role("log").locator("p")
    await chat.ask("Hello?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "One **sen", "tence**. And ha")
    await expect(heard).to_have_text(["One sentence."])
    scripted.finish(reply, "lf of one")
    await expect(heard).to_have_text(["One sentence.", "And half of one", "End of the reply."])


async def test_what_screen_readers_have_heard_is_not_found_beside_the_reply(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    heard = scripted.page.get_by_role("log").locator("p")
    await chat.ask("Count.")
    reply = (await scripted.next_chat()).id
    for number in range(1, 20):
        scripted.say(reply, f"This is {number}. ")
        await expect(heard.last).to_have_text(f"This is {number}.")
    await expect(heard).to_have_count(8)
    scripted.finish(reply)
    await chat.wait_for_end()
