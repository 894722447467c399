"""relay/pages.py: what goes wrong is told by name, and the page's connection lives."""

import logging
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from relay.pages import MAX_REPLIES_PER_PAGE
from schema import browser
from schema.errors import ContextTooLong
from schema.limits import MAX_CONTROL_BYTES
from schema.messages import Cancel, Generate
from schema.protocol import MAX_FRAME_BYTES
from tests.relay.core.page import ScriptedPage, open_page
from tests.relay.core.peers import ScriptedPeer, answer, fail, finish, say_texts
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def relay(open_relay: RunningRelay) -> RunningRelay:
    return open_relay


@pytest.fixture
async def page(relay: RunningRelay, head: ScriptedPeer) -> ScriptedPage:
    """A page that was welcomed to a complete swarm."""
    opened = await open_page(relay)
    await opened.hear(browser.PageWelcome)
    return opened


async def test_a_heads_error_ends_the_reply_by_name(
    relay: RunningRelay, head: ScriptedPeer, page: ScriptedPage
) -> None:
    await page.ask()
    await fail(head, await head.hear(Generate), ContextTooLong("too long"))
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code, error.error.message) == ("1", "context_length_exceeded", "too long")
    assert relay.refusals("context_length_exceeded") == 1
    await page.is_served()


@pytest.mark.usefixtures("one_head_only")
async def test_a_head_that_leaves_ends_the_reply_with_an_error(
    head: ScriptedPeer, page: ScriptedPage
) -> None:
    await page.ask()
    await say_texts(head, await head.hear(Generate), "half")
    await page.hear(browser.ReplyDelta)
    head.reset()
    await page.hear(browser.ReplyRepairing)  # while another head is sought
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == ("1", "generation_failed")


async def test_a_model_that_cannot_answer_says_why(relay: RunningRelay) -> None:
    page = await open_page(relay)
    await page.hear(browser.PageWelcome)
    await page.ask()
    error = (await page.hear(browser.PageError)).error
    assert (error.code, bool(error.retry_after)) == ("model_unavailable", True)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", '{"type": "chat"}', '{"type": "made up"}', '{"type": "chat", "id": ""}']
)
async def test_a_bad_message_is_answered_and_the_connection_lives(
    relay: RunningRelay, head: ScriptedPeer, page: ScriptedPage, text: str
) -> None:
    await page.socket.send(text)
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == (None, "malformed_message")
    assert relay.refusals("malformed_message") == 1
    await page.ask()
    await answer(head, "still here")
    await page.hear(browser.ReplyDelta)


async def test_a_binary_message_is_answered_and_the_connection_lives(page: ScriptedPage) -> None:
    await page.socket.send(b"bytes")
    assert (await page.hear(browser.PageError)).error.code == "malformed_message"
    await page.is_served()


async def test_a_message_above_the_limit_is_answered_and_the_connection_lives(page: ScriptedPage) -> None:
    await page.socket.send("x" * (MAX_CONTROL_BYTES + 1))
    assert (await page.hear(browser.PageError)).error.code == "too_large"
    await page.is_served()


async def test_a_message_that_no_peer_may_send_ends_the_connection(
    relay: RunningRelay, page: ScriptedPage
) -> None:
    with suppress(ConnectionClosed):  # the relay may close before all of it is sent
        await page.socket.send(bytes(MAX_FRAME_BYTES + 1))
    assert await page.closed() == 1009
    await eventually(lambda: relay.refusals("too_large") == 1)


async def test_a_chat_that_is_too_large_to_be_handed_on_is_refused(
    relay: RunningRelay, page: ScriptedPage
) -> None:
    chat = '{"type":"chat","id":"1","model":"llama","messages":[{"role":"user","content":"%s"}]}'
    await page.socket.send(chat % ("x" * (MAX_CONTROL_BYTES - len(chat) + 2)))
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == ("1", "too_large")
    assert len(relay.services.replies) == 0


async def test_an_id_that_is_in_use_is_refused_without_harm_to_its_reply(
    head: ScriptedPeer, page: ScriptedPage
) -> None:
    await page.ask()
    asked = await head.hear(Generate)
    await page.ask()
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == (None, "invalid_request")
    await finish(head, asked)
    assert (await page.hear(browser.ReplyDone)).reason == "stop"


async def test_more_replies_than_a_page_may_wait_for_are_refused(
    head: ScriptedPeer, page: ScriptedPage
) -> None:
    for number in range(MAX_REPLIES_PER_PAGE + 1):
        await page.ask(str(number))
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == (str(MAX_REPLIES_PER_PAGE), "invalid_request")
    await answer(head)
    assert (await page.hear(browser.ReplyDone)).id == "0"
    await page.ask("more")
    for _ in range(MAX_REPLIES_PER_PAGE):
        await head.hear(Generate)


async def test_a_reply_that_takes_too_long_is_an_error(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, open_chat=True, request_seconds=0.05) as relay:
        head = await relay.serving(head=True)
        page = await open_page(relay)
        await page.hear(browser.PageWelcome)
        await page.ask()
        assert (await page.hear(browser.PageError)).error.code == "generation_failed"
        await head.hear(Generate)
        await head.hear(Cancel)


async def test_a_mistake_of_the_relay_is_told_and_logged(
    relay: RunningRelay, page: ScriptedPage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("details")

    monkeypatch.setattr(relay.services.replies, "start", broken)
    with caplog.at_level(logging.ERROR):
        await page.ask()
        error = await page.hear(browser.PageError)
    assert (error.id, error.error.code) == ("1", "internal_error")
    assert "details" in caplog.text
    await page.is_served()
