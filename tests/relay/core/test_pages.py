"""relay/pages.py: news of the swarm and any number of replies, over one WebSocket."""

import pytest

from relay import pages
from schema import browser
from schema.generation import Sampling
from schema.messages import Cancel, Generate
from tests.relay.core.page import QUESTION, ScriptedPage, open_page
from tests.relay.core.peers import ScriptedPeer, answer, finish, say_texts
from tests.relay.core.support import RunningRelay
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


# ---- the welcome, and news ----


async def test_a_page_is_welcomed_with_the_swarm(relay: RunningRelay) -> None:
    await relay.serving(0, 4, name="Ada")
    welcome = await (await open_page(relay)).hear(browser.PageWelcome)
    assert welcome.software.startswith("corolla ")
    assert welcome.swarm == relay.services.swarm.status()
    assert [volunteer.name for volunteer in welcome.swarm.volunteers] == ["Ada"]


async def test_a_page_hears_of_every_change_of_the_swarm(relay: RunningRelay) -> None:
    page = await open_page(relay)
    await page.hear(browser.PageWelcome)
    await relay.serving(head=True)
    while not (await page.hear(browser.SwarmChanged)).swarm.models[0].complete:
        pass


async def test_changes_at_once_are_told_together(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = await open_page(relay)
    await page.hear(browser.PageWelcome)
    for _ in range(100):
        relay.services.swarm.touch()
    await page.hear(browser.SwarmChanged)
    await page.socket.send("ping")
    assert isinstance(await page.hear_anything(), browser.PageError)


async def test_a_page_hears_as_often_as_it_was_promised(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "HEARTBEAT_SECONDS", 0.01)
    page = await open_page(relay)
    assert (await page.hear(browser.PageWelcome)).heartbeat_seconds == 0.01
    for _ in range(2):
        await page.hear(browser.PageHeartbeat)


async def test_open_pages_are_counted(relay: RunningRelay) -> None:
    page = await open_page(relay)
    await page.hear(browser.PageWelcome)
    assert await relay.metric("connections", role="page") == 1
    await page.socket.close()
    await eventually(lambda: relay.services.metrics.connections["page"] == 0)


# ---- chats ----


async def test_a_chat_is_answered_piece_by_piece(head: ScriptedPeer, page: ScriptedPage) -> None:
    await page.ask("mine", sampling=Sampling(temperature=0.5))
    asked = await answer(head, "Hel", "lo", reason="length")
    assert asked.body.messages == QUESTION
    assert asked.body.sampling.temperature == 0.5
    text, done = await page.hear_reply("mine")
    assert (text, done.reason) == ("Hello", "length")
    assert done.usage
    assert done.usage.completion_tokens == 2
    assert done.timing
    assert done.timing.total > 0


async def test_two_replies_at_once_do_not_mix(head: ScriptedPeer, page: ScriptedPage) -> None:
    await page.ask("a")
    await page.ask("b")
    first, second = await head.hear(Generate), await head.hear(Generate)
    await say_texts(head, first, "for a")
    await say_texts(head, second, "for b")
    await finish(head, second)
    await finish(head, first)
    heard = [await page.hear(browser.ReplyDelta | browser.ReplyDone) for _ in range(4)]  # pyright: ignore
    assert {(one.id, one.text) for one in heard if isinstance(one, browser.ReplyDelta)} == {
        ("a", "for a"),
        ("b", "for b"),
    }
    assert {one.id for one in heard if isinstance(one, browser.ReplyDone)} == {"a", "b"}


async def test_an_id_may_be_used_again_after_its_reply(head: ScriptedPeer, page: ScriptedPage) -> None:
    for _ in range(2):
        await page.ask("same")
        await answer(head)
        await page.hear(browser.ReplyDone)


async def test_stopping_a_reply_cancels_on_the_head(head: ScriptedPeer, page: ScriptedPage) -> None:
    await page.ask()
    asked = await head.hear(Generate)
    await say_texts(head, asked, "half")
    await page.hear(browser.ReplyDelta)
    await page.say(browser.Stop(id="1"))
    assert await page.hear(browser.ReplyDone) == browser.ReplyDone(id="1", reason=None)
    assert await head.hear(Cancel) == Cancel(request=asked.request)


async def test_a_reply_that_is_stopped_as_soon_as_it_is_asked_for_is_done(
    relay: RunningRelay, page: ScriptedPage
) -> None:
    for _ in range(20):
        await page.ask()
        await page.say(browser.Stop(id="1"))
        assert await page.hear(browser.ReplyDone) == browser.ReplyDone(id="1", reason=None)
    assert len(relay.services.replies) == 0


async def test_what_a_head_says_after_the_stop_does_not_appear(
    head: ScriptedPeer, page: ScriptedPage
) -> None:
    await page.ask()
    asked = await head.hear(Generate)
    await page.say(browser.Stop(id="1"))
    await page.hear(browser.ReplyDone)
    await say_texts(head, asked, "late")
    await finish(head, asked)
    await head.hear(Cancel)
    await head.is_served()
    await page.is_served()


async def test_stopping_what_is_not_running_changes_nothing(page: ScriptedPage) -> None:
    await page.say(browser.Stop(id="nothing"))
    await page.is_served()


async def test_stopping_one_reply_leaves_the_other_alone(head: ScriptedPeer, page: ScriptedPage) -> None:
    await page.ask("a")
    await page.ask("b")
    await head.hear(Generate)
    second = await head.hear(Generate)
    await page.say(browser.Stop(id="a"))
    assert (await page.hear(browser.ReplyDone)).id == "a"
    await finish(head, second)
    assert await page.hear(browser.ReplyDone) != browser.ReplyDone(id="b", reason=None)


async def test_a_page_that_closes_cancels_replies_whose_ids_could_be_guessed(
    relay: RunningRelay, head: ScriptedPeer, page: ScriptedPage
) -> None:
    await page.ask("a")
    await page.ask("b")
    asked = {(await head.hear(Generate)).request for _ in range(2)}
    page.socket.transport.abort()
    assert {(await head.hear(Cancel)).request for _ in range(2)} == asked
    assert len(relay.services.replies) == 0
