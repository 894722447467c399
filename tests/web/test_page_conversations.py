"""Conversations that are kept on the device: the panel, versions, files, tabs. The test plays the relay."""

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from schema.browser import Chat
from tests.web.page_objects import REPLY_TIMEOUT_MS, ChatPage
from tests.web.scripted import WAIT_SECONDS, ScriptedRelay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


class Panel:
    """The panel of conversations, by what people call its parts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.region = page.get_by_role("complementary", name="Conversations")
        self.search = self.region.get_by_role("searchbox", name="Search conversations")
        self.undo = self.region.get_by_role("button", name="Undo")

    def row(self, name: str) -> Locator:
        return self.region.get_by_role("listitem").filter(has_text=name)

    async def names(self, *expected: str) -> None:
        await expect(self.region.locator(".conversation-name")).to_have_text(list(expected))

    async def open(self, name: str) -> None:
        await self.row(name).locator(".conversation-open").click()

    async def choose(self, name: str, item: str) -> None:
        """From a conversation's menu."""
        await self.row(name).hover()
        await self.row(name).get_by_role("button", name="More for").click()
        await self.page.get_by_role("menuitem", name=item, exact=True).click()


async def converse(scripted: ScriptedRelay, chat: ChatPage, question: str, answer: str) -> Chat:
    await chat.ask(question)
    asked = await scripted.next_chat()
    scripted.finish(asked.id, answer)
    await chat.wait_for_end()
    return asked


async def two(scripted: ScriptedRelay) -> tuple[ChatPage, Panel]:
    """A page with two conversations, the second one on the screen."""
    chat = await scripted.open()
    await converse(scripted, chat, "How do bees see?", "With five eyes.")
    await scripted.page.get_by_role("button", name="New chat").click()
    await converse(scripted, chat, "What is a petal?", "A leaf of a flower.")
    return chat, Panel(scripted.page)


async def test_are_listed_and_come_back_in_any_tab(scripted: ScriptedRelay) -> None:
    chat, panel = await two(scripted)
    await panel.names("What is a petal?", "How do bees see?")
    await panel.open("How do bees see?")
    await expect(chat.text).to_have_text("With five eyes.")
    await scripted.page.reload()
    await expect(chat.text).to_have_text("With five eyes.")
    await panel.names("What is a petal?", "How do bees see?")


async def test_are_found_by_words_of_any_message(scripted: ScriptedRelay) -> None:
    _, panel = await two(scripted)
    await panel.search.fill("FIVE éyes")
    await panel.names("How do bees see?")
    await expect(panel.row("bees").locator("mark")).to_have_text(["five", "eyes"])
    await panel.search.fill("seven")
    await expect(panel.region.get_by_text("Nothing found.")).to_be_visible()
    await panel.search.fill("")
    await panel.names("What is a petal?", "How do bees see?")


async def test_are_renamed(scripted: ScriptedRelay) -> None:
    _, panel = await two(scripted)
    await panel.choose("bees", "Rename")
    await scripted.page.keyboard.type("Insects")
    await scripted.page.keyboard.press("Enter")
    await panel.names("What is a petal?", "Insects")
    await scripted.page.reload()
    await panel.names("What is a petal?", "Insects")


async def test_are_deleted_with_a_way_back(scripted: ScriptedRelay) -> None:
    chat, panel = await two(scripted)
    await panel.choose("petal", "Delete")
    await panel.names("How do bees see?")
    await expect(chat.turns).to_have_count(0)
    await panel.undo.click()
    await panel.names("What is a petal?", "How do bees see?")
    await panel.open("What is a petal?")
    await expect(chat.text).to_have_text("A leaf of a flower.")
    await panel.choose("bees", "Delete")
    await scripted.page.reload()
    await panel.names("What is a petal?")


async def test_who_deletes_one_goes_on_with_the_one_below(scripted: ScriptedRelay) -> None:
    chat, panel = await two(scripted)
    await scripted.page.get_by_role("button", name="New chat").click()
    await converse(scripted, chat, "Why do leaves fall?", "It saves water.")
    await panel.names("Why do leaves fall?", "What is a petal?", "How do bees see?")
    await panel.choose("petal", "Delete")
    await panel.names("Why do leaves fall?", "How do bees see?")
    await expect(panel.row("bees").locator(".conversation-open")).to_be_focused()


async def test_leave_as_files_and_come_back_from_them(scripted: ScriptedRelay, tmp_path: Path) -> None:
    chat, panel = await two(scripted)
    async with scripted.page.expect_download() as download:
        await panel.choose("petal", "Export as Markdown")
    path = tmp_path / "petal.md"
    await (await download.value).save_as(path)
    assert (await download.value).suggested_filename == "What-is-a-petal.md"
    assert "> What is a petal?\n\n**petal-12b**\n\nA leaf of a flower.\n" in path.read_text()
    async with scripted.page.expect_download() as download:
        await panel.region.get_by_role("button", name="Export all").click()
    path = tmp_path / "all.json"
    await (await download.value).save_as(path)
    await panel.choose("petal", "Delete")
    await panel.choose("bees", "Delete")
    await panel.names()
    await scripted.page.get_by_label("File of conversations").set_input_files(path)
    await expect(panel.region.get_by_text("2 conversations imported.")).to_be_visible()
    await panel.open("How do bees see?")
    await expect(chat.text).to_have_text("With five eyes.")


async def test_a_bad_file_is_refused_with_what_is_wrong(scripted: ScriptedRelay, tmp_path: Path) -> None:
    await scripted.open()
    panel = Panel(scripted.page)
    bad = {"format": "corolla-conversations", "version": 1, "conversations": [{"turns": 3}]}
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(bad))
    await scripted.page.get_by_label("File of conversations").set_input_files(path)
    words = "“bad.json” was not imported. conversations[0].turns has to be a list; it is 3."
    await expect(panel.region.get_by_text(words)).to_be_visible()
    await panel.names()


async def test_editing_a_question_makes_a_version_and_arrows_lead_back(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await converse(scripted, chat, "One?", "First.")
    await converse(scripted, chat, "Two?", "Second.")
    first = chat.turns.first
    await first.get_by_role("button", name="Edit").click()
    await first.get_by_role("textbox", name="Edit your question").fill("Other?")
    await scripted.page.keyboard.press("Enter")
    asked = await scripted.next_chat()
    assert [message.content for message in asked.messages] == ["Other?"]
    scripted.finish(asked.id, "Another.")
    await chat.wait_for_end()
    await expect(chat.turns).to_have_count(1)
    await expect(first.get_by_role("img", name="Version 2 of 2")).to_be_visible()
    await first.get_by_role("button", name="Previous version").click()
    await expect(chat.turns).to_have_count(2)
    await expect(chat.text).to_have_text("Second.")
    await expect(first.get_by_role("button", name="Next version")).to_be_focused()
    await scripted.page.reload()
    await expect(chat.text).to_have_text("Second.")
    await first.get_by_role("button", name="Next version").click()
    await expect(chat.text).to_have_text("Another.")


async def test_retry_keeps_the_reply_before_as_a_version(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await converse(scripted, chat, "One?", "First.")
    await chat.retry.click()
    again = await scripted.next_chat()
    assert [message.content for message in again.messages] == ["One?"]
    scripted.finish(again.id, "Better.")
    await expect(chat.text).to_have_text("Better.")
    await chat.wait_for_end()
    await chat.last.get_by_role("button", name="Previous version").click()
    await expect(chat.text).to_have_text("First.")


async def test_a_stopped_reply_goes_on_where_it_ended(scripted: ScriptedRelay) -> None:
    chat = await scripted.open()
    await chat.ask("Tell me.")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "Once upon")
    await expect(chat.text).to_have_text("Once upon")
    await chat.stop.click()
    await scripted.next_stop()
    await chat.last.get_by_role("button", name="Continue").click()
    more = await scripted.next_chat()
    assert [(message.role, message.content) for message in more.messages] == [
        ("user", "Tell me."),
        ("assistant", "Once upon"),
    ]
    scripted.finish(more.id, " a time.")
    await expect(chat.text).to_have_text("Once upon a time.")


async def test_a_reply_goes_on_while_another_conversation_is_shown(scripted: ScriptedRelay) -> None:
    chat, panel = await two(scripted)
    await chat.ask("And a sepal?")
    reply = (await scripted.next_chat()).id
    scripted.say(reply, "It is")
    await expect(chat.text).to_have_text("It is")
    await panel.open("How do bees see?")
    await expect(chat.text).to_have_text("With five eyes.")
    await expect(chat.send).to_be_visible()
    scripted.finish(reply, " green.")
    await panel.open("What is a petal?")
    await expect(chat.text).to_have_text("It is green.")


async def test_settings_belong_to_a_conversation(scripted: ScriptedRelay) -> None:
    chat, panel = await two(scripted)
    await chat.set(System_prompt="Be brief.")
    assert (await converse(scripted, chat, "Again?", "Yes.")).messages[0].content == "Be brief."
    await panel.open("How do bees see?")
    await chat.ask("Again?")
    assert (await scripted.next_chat()).messages[0].role == "user"


class TestTabs:
    """Two tabs of one browser."""

    async def test_what_one_asks_appears_in_the_other(self, scripted: ScriptedRelay) -> None:
        chat = await scripted.open()
        await converse(scripted, chat, "One?", "First.")
        other = await scripted.second_tab()
        await other.open()
        there = ChatPage(other.page)
        await Panel(other.page).open("One?")
        await expect(there.text).to_have_text("First.")
        await converse(scripted, chat, "Two?", "Second.")
        await expect(there.turns).to_have_count(2)
        await expect(there.text).to_have_text("Second.")

    async def test_turns_of_both_are_kept_even_when_they_cannot_hear_each_other(
        self, scripted: ScriptedRelay
    ) -> None:
        await scripted.page.context.add_init_script("BroadcastChannel.prototype.postMessage = () => {};")
        chat = await scripted.open()
        await converse(scripted, chat, "One?", "First.")
        other = await scripted.second_tab()
        there = await other.open()
        await Panel(other.page).open("One?")
        await expect(there.text).to_have_text("First.")
        await converse(scripted, chat, "Here?", "Here.")
        await converse(other, there, "There?", "There.")
        versions = chat.last.get_by_role("group", name="Versions")
        async with asyncio.timeout(WAIT_SECONDS):  # a tab writes soon after a reply's end, not at once
            while not await versions.is_visible():
                await scripted.page.reload()
                await expect(chat.turns).to_have_count(2)
        await expect(chat.text).to_have_text("There.")
        await versions.get_by_role("button", name="Previous version").click()
        await expect(chat.text).to_have_text("Here.")

    async def test_one_that_is_deleted_there_leaves_the_list_here(self, scripted: ScriptedRelay) -> None:
        await two(scripted)
        panel = Panel(scripted.page)
        other = await scripted.second_tab()
        await other.open()
        await Panel(other.page).choose("bees", "Delete")
        await panel.names("What is a petal?")
        await Panel(other.page).undo.click()
        await panel.names("What is a petal?", "How do bees see?")


async def test_a_browser_that_keeps_nothing_says_so_and_the_chat_goes_on(scripted: ScriptedRelay) -> None:
    await scripted.page.add_init_script(
        "indexedDB.open = () => { throw new DOMException('no', 'SecurityError'); };"
    )
    chat, panel = await two(scripted)
    await expect(scripted.page.get_by_text("does not let the page keep anything")).to_be_visible()
    await panel.open("How do bees see?")
    await expect(chat.text).to_have_text("With five eyes.")


async def test_a_full_device_says_so_and_the_chat_goes_on(scripted: ScriptedRelay) -> None:
    await scripted.page.add_init_script(
        "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };"
    )
    chat, panel = await two(scripted)
    await expect(scripted.page.get_by_text("no room left on this device")).to_be_visible()
    await panel.open("How do bees see?")
    await expect(chat.text).to_have_text("With five eyes.")
    await panel.open("What is a petal?")
    await expect(chat.text).to_have_text("A leaf of a flower.")


async def test_a_phone_shows_them_in_a_drawer(scripted: ScriptedRelay) -> None:
    await scripted.page.set_viewport_size({"width": 360, "height": 720})
    chat = await scripted.open()
    await converse(scripted, chat, "How do bees see?", "With five eyes.")
    await scripted.page.get_by_role("button", name="New chat").click()
    await scripted.page.get_by_role("button", name="Conversations", exact=True).click()
    drawer = scripted.page.get_by_role("dialog", name="Conversations")
    await drawer.get_by_role("button", name="How do bees see?", exact=True).click()
    await expect(drawer).to_be_hidden()
    await expect(chat.text).to_have_text("With five eyes.")
    assert await chat.has_no_sideways_scroll()


async def test_two_thousand_are_imported_listed_in_part_and_all_of_them_searched(
    scripted: ScriptedRelay, tmp_path: Path
) -> None:
    await scripted.open()
    panel = Panel(scripted.page)
    file = tmp_path / "many.json"
    file.write_text(json.dumps(many(2000)))
    await scripted.page.locator("#import-file").set_input_files(file)
    await expect(panel.region.get_by_text("2,000 conversations imported.")).to_be_visible(
        timeout=REPLY_TIMEOUT_MS
    )
    rows = panel.region.locator(".conversation")
    await expect(rows).to_have_count(200)
    await panel.region.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(400)
    await panel.search.fill("answer-7-of")
    await expect(panel.region.get_by_text("1 conversation found.")).to_be_visible(timeout=REPLY_TIMEOUT_MS)
    await panel.names("Question 7")


def many(count: int) -> dict[str, object]:
    """A file of so many conversations, each of one question and its reply."""
    ended = {"reason": "stop", "usage": None, "timing": None, "error": None}
    return {
        "format": "corolla-conversations",
        "version": 1,
        "conversations": [
            {
                "id": f"c{number}",
                "title": f"Question {number}",
                "model": None,
                "settings": {},
                "leaf": "t",
                **dict.fromkeys(("titled", "created", "updated", "touched"), number + 1),
                "turns": [
                    {
                        "id": "t",
                        "parent": None,
                        "question": f"Question {number}",
                        "created": number + 1,
                        "reply": {"id": f"r{number}", "model": "m", "phase": "done", "base": 0}
                        | {"text": f"Answer-{number}-of many.", "started": number + 1}
                        | ended,
                    }
                ],
            }
            for number in range(count)
        ],
    }
