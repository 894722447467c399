"""Replies that outlive the page's connection: relay/pages.py with relay/kept_replies.py, in a real relay."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import jobs
from schema import browser
from schema.credentials import parse_credential
from schema.errors import GenerationFailed
from schema.messages import Cancel, Delta, Generate
from tests.relay.core.page import ScriptedPage, open_page
from tests.relay.core.peers import ScriptedPeer, fail, finish, say_texts
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.test_handover import stop as stop_replica
from tests.relay.core.test_pages_access import signed_in
from tests.relay.core.waiting import eventually

ID = "0123456789abcdef01234567"
PIECES = ("Bee ", "\N{HONEYBEE}", " and ", "日本", "\N{HIBISCUS}\N{HIBISCUS}", ".")
TEXT = "".join(PIECES)


def units(text: str) -> int:
    """How long JavaScript finds a text."""
    return len(text.encode("utf-16-le")) // 2


@pytest.fixture
async def relay(open_relay: RunningRelay) -> RunningRelay:
    return open_relay


async def welcomed(relay: RunningRelay, **headers: str) -> ScriptedPage:
    page = await open_page(relay, **headers)
    await page.hear(browser.PageWelcome)
    return page


async def ask_and_go(page: ScriptedPage, head: ScriptedPeer, pieces: int) -> tuple[Generate, str]:
    """A reply of so many pieces is under way, and the page that has read them is gone."""
    await page.ask(ID)
    asked = await head.hear(Generate)
    await say_texts(head, asked, *PIECES[:pieces])
    text = await page.hear_text(ID, len("".join(PIECES[:pieces])))
    page.socket.transport.abort()
    return asked, text


@pytest.mark.parametrize("pieces", range(len(PIECES) + 1))
async def test_what_a_page_has_missed_comes_over_the_next_connection(
    relay: RunningRelay, head: ScriptedPeer, pieces: int
) -> None:
    asked, seen = await ask_and_go(await welcomed(relay), head, pieces)
    await eventually(lambda: relay.services.metrics.connections["page"] == 0)
    await say_texts(head, asked, *PIECES[pieces:])
    await finish(head, asked, reason="length", tokens=len(PIECES))
    page = await welcomed(relay)
    await page.say(browser.Resume(id=ID, received=units(seen)))
    rest, done = await page.hear_reply(ID)
    assert seen + rest == TEXT
    assert (done.reason, done.usage and done.usage.completion_tokens) == ("length", len(PIECES))
    assert relay.services.metrics.kept_replies["resumed"] == 1


async def test_a_page_that_comes_back_hears_on_while_it_is_written(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    asked, seen = await ask_and_go(await welcomed(relay), head, 2)
    page = await welcomed(relay)
    await page.say(browser.Resume(id=ID, received=units(seen) - 2))  # it has kept less than it was told
    assert await page.hear_text(ID, 1) == PIECES[1]
    await say_texts(head, asked, *PIECES[2:])
    await finish(head, asked)
    assert (await page.hear_reply(ID))[0] == "".join(PIECES[2:])


async def test_two_pages_hear_the_same_reply(relay: RunningRelay, head: ScriptedPeer) -> None:
    first, second = await welcomed(relay), await welcomed(relay)
    await first.ask(ID)
    asked = await head.hear(Generate)
    await say_texts(head, asked, *PIECES[:3])
    seen = await first.hear_text(ID, len("".join(PIECES[:3])))
    await second.say(browser.Resume(id=ID))
    assert await second.hear_text(ID, len(seen)) == seen
    await say_texts(head, asked, *PIECES[3:])
    await finish(head, asked)
    assert (await first.hear_reply(ID))[0] == (await second.hear_reply(ID))[0] == "".join(PIECES[3:])


async def test_a_stop_by_either_page_ends_it_for_both(relay: RunningRelay, head: ScriptedPeer) -> None:
    first, second = await welcomed(relay), await welcomed(relay)
    await first.ask(ID)
    asked = await head.hear(Generate)
    await second.say(browser.Resume(id=ID))
    await second.is_served()
    await second.say(browser.Stop(id=ID))
    for page in (first, second):
        assert await page.hear(browser.ReplyDone) == browser.ReplyDone(id=ID, reason=None)
    assert await head.hear(Cancel) == Cancel(request=asked.request)


async def test_an_error_while_the_page_was_gone_is_told_when_it_is_back(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    asked, seen = await ask_and_go(await welcomed(relay), head, 1)
    await fail(head, asked, GenerationFailed("the end"))
    page = await welcomed(relay)
    await page.say(browser.Resume(id=ID, received=units(seen)))
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code, error.error.message) == (ID, "generation_failed", "the end")


async def test_a_page_hears_that_a_reply_stands_still_also_when_it_comes_back(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    """Until it goes on: then there is nothing more to say of it."""
    page = await welcomed(relay)
    await page.ask(ID)
    asked = await head.hear(Generate)
    await say_texts(head, asked, PIECES[0])
    assert await page.hear_text(ID, len(PIECES[0])) == PIECES[0]
    await head.say(Delta(request=asked.request, text="", tokens=0, is_repairing=True))
    assert await page.hear(browser.ReplyRepairing) == browser.ReplyRepairing(id=ID)
    other = await welcomed(relay)
    await other.say(browser.Resume(id=ID, received=units(PIECES[0])))
    assert await other.hear(browser.ReplyRepairing) == browser.ReplyRepairing(id=ID)
    await say_texts(head, asked, PIECES[1])
    assert await other.hear_text(ID, 1) == await page.hear_text(ID, 1) == PIECES[1]
    late = await welcomed(relay)
    await late.say(browser.Resume(id=ID, received=units(PIECES[0])))
    assert await late.hear_text(ID, 1) == PIECES[1]
    await finish(head, asked)
    for one in (page, other, late):
        rest, done = await one.hear_reply(ID)
        assert (rest, done.timing and len(done.timing.pauses)) == ("", 1)


@pytest.mark.parametrize(
    ("resume", "code"),
    [
        (browser.Resume(id="f" * 24, received=0), "not_found"),
        (browser.Resume(id=ID, received=99), "invalid_request"),
        (browser.Resume(id=ID, received=5), "invalid_request"),  # the middle of a bee
    ],
    ids=["unknown", "beyond", "half a character"],
)
async def test_what_cannot_be_resumed_is_refused_by_name(
    relay: RunningRelay, head: ScriptedPeer, resume: browser.Resume, code: str
) -> None:
    await ask_and_go(await welcomed(relay), head, 2)
    page = await welcomed(relay)
    await page.say(resume)
    error = await page.hear(browser.PageError)
    assert (error.id, error.error.code, relay.refusals(code)) == (resume.id, code, 1)
    await page.is_served()


async def test_an_id_that_could_be_guessed_is_its_pages_own(relay: RunningRelay, head: ScriptedPeer) -> None:
    first, second = await welcomed(relay), await welcomed(relay)
    await first.ask("1")
    await head.hear(Generate)
    await second.say(browser.Resume(id="1"))
    assert (await second.hear(browser.PageError)).error.code == "not_found"
    await second.ask("1")
    await head.hear(Generate)


async def test_a_page_listens_once_to_a_reply(relay: RunningRelay, head: ScriptedPeer) -> None:
    page = await welcomed(relay)
    await page.ask(ID)
    await head.hear(Generate)
    await page.say(browser.Resume(id=ID))
    assert (await page.hear(browser.PageError)).error.code == "invalid_request"


async def test_a_page_that_does_not_read_holds_up_nobody(relay: RunningRelay, head: ScriptedPeer) -> None:
    deaf, other = await welcomed(relay), await welcomed(relay)
    await deaf.ask(ID)
    asked = await head.hear(Generate)
    await other.say(browser.Resume(id=ID))
    deaf.socket.transport.pause_reading()
    piece, count = "\N{HIBISCUS}" * 100_000, 40
    for _ in range(count):
        await say_texts(head, asked, piece)
        assert await other.hear_text(ID, len(piece)) == piece
    await finish(head, asked)
    assert (await other.hear_reply(ID))[0] == ""
    deaf.socket.transport.resume_reading()
    assert (await deaf.hear_reply(ID))[0] == piece * count


async def test_nobody_comes_back_in_time(sqlite_file: Path) -> None:
    async with running_relay(sqlite_file, open_chat=True, keep_seconds=0.05) as relay:
        head = await relay.serving(head=True)
        asked, _ = await ask_and_go(await welcomed(relay), head, 1)
        assert await head.hear(Cancel) == Cancel(request=asked.request)
        page = await welcomed(relay)
        await page.say(browser.Resume(id=ID))
        assert (await page.hear(browser.PageError)).error.code == "not_found"
        assert await relay.metric("kept_replies_total", outcome="given_up") == 1


async def test_a_replica_that_stops_finishes_replies_whose_pages_have_gone(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    asked, _ = await ask_and_go(await welcomed(relay), head, 1)
    stopping = stop_replica(relay)
    await eventually(relay.services.stopping.is_set)
    assert not stopping.done()
    await finish(head, asked)
    await stopping


class TestTokens:
    """Where people sign in."""

    @pytest.fixture
    async def relay(self, sqlite_file: Path) -> AsyncIterator[RunningRelay]:
        async with running_relay(sqlite_file, token_replies=2) as running:
            yield running

    async def test_another_token_has_no_such_reply(self, relay: RunningRelay) -> None:
        head = await relay.serving(head=True)
        mine, others = [await signed_in(relay, await relay.token("client")) for _ in range(2)]
        asked, seen = await ask_and_go(await welcomed(relay, Cookie=mine), head, 2)
        stranger = await welcomed(relay, Cookie=others)
        await stranger.say(browser.Resume(id=ID, received=units(seen)))
        assert (await stranger.hear(browser.PageError)).error.code == "not_found"
        await stranger.say(browser.Stop(id=ID))
        await stranger.is_served()
        page = await welcomed(relay, Cookie=mine)
        await page.say(browser.Resume(id=ID, received=units(seen)))
        await finish(head, asked)
        assert (await page.hear_reply(ID))[1].reason == "stop"

    async def test_replies_of_pages_that_left_count_for_their_token(self, relay: RunningRelay) -> None:
        head = await relay.serving(head=True)
        cookie = await signed_in(relay, await relay.token("client"))
        await ask_and_go(await welcomed(relay, Cookie=cookie), head, 1)
        page = await welcomed(relay, Cookie=cookie)
        await page.ask("second")
        await head.hear(Generate)
        await page.ask("third")
        error = await page.hear(browser.PageError)
        assert (error.id, error.error.code) == ("third", "rate_limit_exceeded")

    async def test_revoking_the_token_ends_them(self, relay: RunningRelay) -> None:
        head = await relay.serving(head=True)
        token = await relay.token("client")
        asked, _ = await ask_and_go(await welcomed(relay, Cookie=await signed_in(relay, token)), head, 1)
        await relay.services.store.revoke_token(parse_credential(token).id)
        await jobs.close_revoked(relay.services)
        assert await head.hear(Cancel) == Cancel(request=asked.request)
        assert len(relay.services.kept_replies) == 0
