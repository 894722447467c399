"""The page with a real relay, and with volunteers that serve the demo model: a person's journeys."""

import json
import re

import pytest
from playwright.async_api import Page, expect

from benchmarks.processes import RelayProcess
from tests.conftest import DEMO_MODEL, DEMO_SPANS, Swarm
from tests.web.page_objects import REPLY_TIMEOUT_MS, ChatPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WATCH_TEXT = """() => {
  window.lengths = new Set();
  const note = () => window.lengths.add(document.querySelector(".prose")?.textContent.length ?? 0);
  const watched = { childList: true, subtree: true };
  new MutationObserver(note).observe(document.getElementById("transcript"), watched);
}"""


async def open_page(page: Page, server: Swarm | RelayProcess) -> ChatPage:
    await page.goto(server.url)
    return ChatPage(page)


def sent_chats(page: Page, kind: str = "chat") -> list[dict]:
    """What the page asks for, as it does: grows while the page is used."""
    chats: list[dict] = []

    def keep(text: str | bytes) -> None:
        message = json.loads(text)
        if message["type"] == kind:
            chats.append(message)

    page.on("websocket", lambda socket: socket.on("framesent", keep))
    return chats


async def test_a_question_is_answered_token_by_token(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await browser_page.evaluate(WATCH_TEXT)
    answer = await chat.ask_and_wait("What is Corolla?")
    assert answer.strip()
    lengths = await browser_page.evaluate("() => [...window.lengths]")
    assert len(lengths) > 3, f"the text was seen at these lengths only: {lengths}"


async def test_a_reply_names_the_volunteers_that_served_it(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await chat.ask_and_wait("What is 7 + 5?")
    await expect(chat.last).to_contain_text(re.compile(r"\d+ tokens?\s.*first after"))
    served_by = chat.last.get_by_role("list", name="Served by").get_by_role("listitem")
    await expect(served_by).to_have_text(
        ["anemone 0\N{EN DASH}3", "bellis 4\N{EN DASH}7", "crocus 8\N{EN DASH}11"]
    )


async def test_the_strip_shows_who_holds_which_blocks(browser_page: Page, swarm: Swarm) -> None:
    await open_page(browser_page, swarm)
    strip = browser_page.get_by_role("region", name="The swarm")
    await strip.get_by_role("button", name="All 12 blocks served by 3 volunteers").click()
    for name in DEMO_SPANS:
        await expect(strip.get_by_role("listitem").filter(has_text=name)).to_contain_text("serving")


async def test_escape_stops_a_reply_and_what_appeared_stays(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await chat.set(Temperature="2", **{"Top-p": "1"})
    await chat.ask("Tell me a short story about a fox.")
    await expect(chat.text).not_to_be_empty(timeout=REPLY_TIMEOUT_MS)
    await browser_page.keyboard.press("Escape")
    await expect(chat.last).to_contain_text("Stopped.")
    await expect(chat.text).not_to_be_empty()
    await chat.set(Temperature="0")
    assert (await chat.ask_and_wait("What is 7 + 5?")).strip()


async def test_a_reply_that_was_cut_off_goes_on_as_if_it_had_not_been(
    browser_page: Page, swarm: Swarm
) -> None:
    chat = await open_page(browser_page, swarm)
    await chat.set(Temperature="0")
    whole = await chat.ask_and_wait("Tell me a short story about a fox.")
    await chat.set(Most_tokens_in_a_reply="12")
    await chat.retry.click()
    await expect(chat.last).to_contain_text("Cut off", timeout=REPLY_TIMEOUT_MS)
    await chat.set(Most_tokens_in_a_reply="")
    await chat.last.get_by_role("button", name="Continue").click()
    await chat.wait_for_end()
    await expect(chat.text).to_have_text(whole)


async def test_retry_replaces_the_reply(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    chats = sent_chats(browser_page)
    await browser_page.reload()
    await chat.set(Temperature="0")
    first = await chat.ask_and_wait("What is 7 + 5?")
    await chat.retry.click()
    await chat.wait_for_end()
    await expect(chat.turns).to_have_count(1)
    await expect(chat.text).to_have_text(first)
    assert [chat["messages"] for chat in chats] == [[{"role": "user", "content": "What is 7 + 5?"}]] * 2


async def test_a_reload_in_the_middle_of_a_reply_loses_nothing_of_it(
    browser_page: Page, swarm: Swarm
) -> None:
    resumed = sent_chats(browser_page, "resume")
    chat = await open_page(browser_page, swarm)
    await chat.set(Temperature="0")
    whole = await chat.ask_and_wait("Tell me a short story about a fox.")
    await chat.retry.click()
    await expect(chat.stop).to_be_visible()
    await expect(chat.text).not_to_be_empty(timeout=REPLY_TIMEOUT_MS)
    await browser_page.reload()
    await chat.wait_for_end()
    await expect(chat.text).to_have_text(whole)
    await expect(chat.last).to_contain_text(re.compile(r"\d+ tokens?\s.*first after"))
    assert len(resumed) == 1


async def test_the_next_question_carries_the_conversation(browser_page: Page, swarm: Swarm) -> None:
    chats = sent_chats(browser_page)
    chat = await open_page(browser_page, swarm)
    await chat.ask_and_wait("What is 7 + 5?")
    await chat.ask_and_wait("What is 2 + 2?")
    roles = [message["role"] for message in chats[1]["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_a_new_chat_is_empty(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await chat.ask_and_wait("What is 7 + 5?")
    await browser_page.get_by_role("button", name="New chat").click()
    await expect(chat.turns).to_have_count(0)
    await expect(browser_page.get_by_role("heading", name="What would you like to ask?")).to_be_visible()
    await expect(chat.question).to_be_focused()


async def test_settings_are_sent_and_followed(browser_page: Page, swarm: Swarm) -> None:
    chats = sent_chats(browser_page)
    chat = await open_page(browser_page, swarm)
    await chat.set(
        System_prompt="Be brief.",
        Temperature="0.5",
        **{"Top-p": "0.9", "Top-k": "40", "Min-p": "0.05"},
        Repetition_penalty="1.1",
        Presence_penalty="0.2",
        Frequency_penalty="-0.2",
        Most_tokens_in_a_reply="3",
        Seed="7",
        Stop_strings="END\n\\n\\n",
    )
    await chat.ask_and_wait("Tell me a short story about a fox.")
    (request,) = chats
    assert request["model"] == DEMO_MODEL
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["sampling"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": -0.2,
        "seed": 7,
    }
    assert request["stopping"] == {"max_tokens": 3, "stop": ["END", "\n\n"]}
    await expect(chat.last).to_contain_text("3 tokens")


async def test_settings_and_conversation_survive_a_reload(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await chat.set(Seed="12")
    answer = await chat.ask_and_wait("What is 7 + 5?")
    await browser_page.reload()
    await expect(chat.text).to_have_text(answer)
    await browser_page.get_by_role("button", name="Settings").click()
    await expect(chat.settings.get_by_label("Seed")).to_have_value("12")


async def test_the_picker_offers_the_swarms_models(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await expect(chat.model).to_have_value(DEMO_MODEL)


async def test_an_example_question_is_asked_with_one_click(browser_page: Page, swarm: Swarm) -> None:
    chat = await open_page(browser_page, swarm)
    await expect(browser_page.get_by_text("each hold a part of the model")).to_be_visible()
    await browser_page.get_by_role("button", name="What is Corolla?").click()
    await chat.wait_for_end()
    await expect(chat.text).not_to_be_empty()


async def test_a_phone_shows_everything_without_scrolling_sideways(browser_page: Page, swarm: Swarm) -> None:
    await browser_page.set_viewport_size({"width": 360, "height": 720})
    chat = await open_page(browser_page, swarm)
    assert await chat.has_no_sideways_scroll()
    await chat.ask_and_wait("Tell me a short story about a fox.")
    await browser_page.get_by_role("button", name="All 12 blocks").click()
    assert await chat.has_no_sideways_scroll()


async def test_a_swarm_without_volunteers_says_so_and_takes_no_question(
    browser_page: Page, lonely_relay: RelayProcess
) -> None:
    chat = await open_page(browser_page, lonely_relay)
    await expect(browser_page.get_by_role("status").filter(has_text="No volunteer")).to_be_visible()
    await chat.question.fill("What is 7 + 5?")
    await expect(chat.send).to_be_disabled()
    await chat.question.press("Enter")
    await expect(chat.question).to_have_value("What is 7 + 5?")
    await expect(chat.turns).to_have_count(0)


class TestSigningIn:
    """A relay that answers only people with an access token."""

    async def test_a_wrong_token_is_refused_in_words(
        self, browser_page: Page, closed_relay: RelayProcess
    ) -> None:
        await browser_page.goto(closed_relay.url)
        await expect(browser_page.get_by_label("Access token")).to_be_focused()
        await browser_page.get_by_label("Access token").fill("wrong")
        await browser_page.keyboard.press("Enter")
        await expect(browser_page.get_by_role("alert").filter(has_text="token")).to_be_visible()
        await expect(browser_page.get_by_role("textbox", name="Your question")).to_be_hidden()

    async def test_the_right_one_opens_the_chat_and_scripts_cannot_read_it(
        self, browser_page: Page, closed_relay: RelayProcess
    ) -> None:
        token = closed_relay.token("client", "reader")
        chat = await open_page(browser_page, closed_relay)
        await browser_page.get_by_label("Access token").fill(token)
        await browser_page.keyboard.press("Enter")
        await expect(chat.question).to_be_focused()
        kept = await browser_page.evaluate(
            "() => JSON.stringify([document.cookie, location.href, localStorage, sessionStorage])"
        )
        assert token not in kept
        assert "corolla_session" not in kept

    async def test_signing_out_closes_the_chat(self, browser_page: Page, closed_relay: RelayProcess) -> None:
        chat = await open_page(browser_page, closed_relay)
        await browser_page.get_by_label("Access token").fill(closed_relay.token("client", "leaver"))
        await browser_page.get_by_role("button", name="Sign in").click()
        await expect(chat.question).to_be_visible()
        await sign_out(chat)
        await expect(browser_page.get_by_label("Access token")).to_be_visible()
        await expect(chat.question).to_be_hidden()

    async def test_in_one_tab_counts_in_the_others_and_leaves_nothing_on_their_screens(
        self, browser_page: Page, closed_relay: RelayProcess
    ) -> None:
        """Nothing that was written and not sent either."""
        other = await open_page(await browser_page.context.new_page(), closed_relay)
        chat = await open_page(browser_page, closed_relay)
        token = closed_relay.token("client", "of two tabs")
        await browser_page.get_by_label("Access token").fill(token)
        await browser_page.keyboard.press("Enter")
        for one in (chat, other):
            await one.question.fill("A secret")
        await sign_out(chat)
        for one in (chat, other):
            await expect(one.page.get_by_label("Access token")).to_be_visible()
            await expect(one.question).to_be_hidden()
        await other.page.get_by_label("Access token").fill(token)
        await other.page.keyboard.press("Enter")
        for one in (chat, other):
            await expect(one.question).to_have_value("")
            await expect(one.question).to_be_visible()

    async def test_only_admins_are_shown_the_way_to_the_operators_page(
        self, browser_page: Page, closed_relay: RelayProcess
    ) -> None:
        chat = await open_page(browser_page, closed_relay)
        way = browser_page.get_by_role("navigation", name="Pages").get_by_role("link", name="Operators")
        for kind in ("client", "admin"):
            await expect(browser_page.get_by_label("Access token")).to_be_visible()
            await expect(way).to_be_hidden()
            await browser_page.get_by_label("Access token").fill(closed_relay.token(kind, f"a {kind}"))
            await browser_page.keyboard.press("Enter")
            await expect(chat.question).to_be_visible()
            await expect(way).to_be_visible(visible=kind == "admin")
            await sign_out(chat)
        await expect(way).to_be_hidden()


async def sign_out(chat: ChatPage) -> None:
    await chat.page.get_by_role("button", name="Settings").click()
    await chat.settings.get_by_role("button", name="Sign out").click()
