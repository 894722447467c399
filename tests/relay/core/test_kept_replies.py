"""relay/kept_replies.py alone: what is kept of a reply, for how long, and for whom."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from relay.kept_replies import KeepLimits, KeptReplies, KeptReply, ReplyKey
from relay.metrics import Metrics
from relay.reply import ReplyEvent
from schema.browser import PageError, ReplyDelta, ReplyDone
from schema.errors import CorollaError, GenerationFailed, InvalidRequest, NotFound
from schema.generation import Timing, Usage
from schema.messages import Delta, Finished
from tests.relay.core.waiting import DEADLINE, eventually

KEY = ReplyKey("owner", "0123456789abcdef", can_come_back=True)
LONG = 3600.0
TEXT = "Ä \N{WAVING HAND SIGN} 日本 \N{HIBISCUS}!"
END = Finished(request="r", reason="stop", usage=Usage(1, 2, 3), timing=Timing(first_token=0, total=0))


class Source:
    """Where a reply comes from: the test says what it says."""

    def __init__(self) -> None:
        self.is_closed = False
        self._events: asyncio.Queue[ReplyEvent | CorollaError] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[ReplyEvent, None]:
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, CorollaError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self.is_closed = True

    def say(self, *texts: str) -> None:
        for text in texts:
            self._events.put_nowait(Delta(request="r", text=text, tokens=1))

    def end(self, how: Finished | CorollaError = END) -> None:
        self._events.put_nowait(how)


def kept(seconds: float = LONG, replies: int = 100, size: int = 10_000) -> KeptReplies:
    return KeptReplies(KeepLimits(seconds, replies, size), Metrics())


def key(number: int) -> ReplyKey:
    return KEY._replace(id=f"{number:016}")


async def written(replies: KeptReplies, source: Source, text: str, where: ReplyKey = KEY) -> KeptReply:
    """A reply that has so much text, and nobody who listens."""
    reply = replies.begin(where, source.events())
    source.say(*text)
    await eventually(lambda: reply.text.decode("utf-16-le") == text)
    return reply


async def heard(replies: KeptReplies, reply: KeptReply, received: int = 0) -> tuple[str, object]:
    """All that a listener hears, to the end."""
    text = ""
    async with asyncio.timeout(DEADLINE), aclosing(replies.listen(reply, received)) as all_said:
        async for said in all_said:
            if not isinstance(said, ReplyDelta):
                return text, said
            text += said.text
    raise AssertionError("it has no end")


async def test_from_every_place_the_rest_is_told_once_and_whole() -> None:
    replies, source = kept(), Source()
    reply = await written(replies, source, TEXT)
    source.end()
    places = [len(TEXT[:at].encode("utf-16-le")) // 2 for at in range(len(TEXT) + 1)]
    for at, received in enumerate(places):
        text, end = await heard(replies, replies.find(KEY, received), received)
        assert text == TEXT[at:]
        assert end == ReplyDone(id=KEY.id, reason="stop", usage=END.usage, timing=END.timing)
    assert reply.listeners == 0


@pytest.mark.parametrize("received", [3, len(TEXT.encode("utf-16-le")) // 2 + 1], ids=["in a hand", "beyond"])
async def test_a_place_that_the_text_does_not_have_is_refused(received: int) -> None:
    replies = kept()
    await written(replies, Source(), TEXT)
    with pytest.raises(InvalidRequest):
        replies.find(KEY, received)


async def test_what_comes_while_one_listens_comes_too_and_what_has_gathered_comes_as_one() -> None:
    replies, source = kept(), Source()
    reply = await written(replies, source, "abc")
    slow = replies.listen(reply)
    assert await anext(slow) == ReplyDelta(id=KEY.id, text="abc")
    source.say("d", "e", "f")
    source.end()
    assert await heard(replies, reply, 1) == ("bcdef", reply.end)  # another one is not held up
    assert await anext(slow) == ReplyDelta(id=KEY.id, text="def")
    assert await anext(slow) == reply.end


async def test_an_error_is_the_end_and_is_counted_once() -> None:
    metrics = Metrics()
    replies, source = KeptReplies(KeepLimits(LONG, 9, 999), metrics), Source()
    reply = await written(replies, source, "so")
    source.end(GenerationFailed("no more"))
    for _ in range(2):
        text, end = await heard(replies, reply)
        assert isinstance(end, PageError)
        assert (text, end.error.code, end.id) == ("so", "generation_failed", KEY.id)
    assert metrics.refusals["generation_failed"] == 1


async def test_a_stop_ends_it_for_all_who_listen_and_what_was_there_stays() -> None:
    replies, source = kept(), Source()
    reply = await written(replies, source, "so far")
    listening = [asyncio.create_task(heard(replies, reply)) for _ in range(2)]
    await eventually(lambda: reply.listeners == 2)
    await replies.stop(KEY)
    assert source.is_closed
    end = ReplyDone(id=KEY.id, reason=None)
    assert await asyncio.gather(*listening) == [("so far", end)] * 2
    assert await heard(replies, replies.find(KEY, 3), 3) == ("far", end)


async def test_another_owner_does_not_find_it_nor_stop_it() -> None:
    replies, source = kept(), Source()
    reply = await written(replies, source, "mine")
    other = KEY._replace(owner="another")
    with pytest.raises(NotFound):
        replies.find(other, 0)
    await replies.stop(other)
    assert reply.end is None


async def test_an_id_is_free_again_when_its_reply_has_ended() -> None:
    replies, source = kept(), Source()
    first = await written(replies, source, "one")
    with pytest.raises(InvalidRequest, match="under way"):
        replies.begin(KEY, Source().events())
    source.end()
    await eventually(lambda: first.end)
    await written(replies, Source(), "two")
    assert replies.find(KEY, 0).text.decode("utf-16-le") == "two"
    assert len(replies) == 1


async def test_one_under_way_to_which_nobody_comes_back_ends() -> None:
    metrics = Metrics()
    replies, source = KeptReplies(KeepLimits(0.01, 9, 999), metrics), Source()
    await written(replies, source, "x")
    await eventually(lambda: source.is_closed and not len(replies))
    assert metrics.kept_replies["given_up"] == 1
    with pytest.raises(NotFound):
        replies.find(KEY, 1)


async def test_one_that_is_listened_to_does_not_end() -> None:
    replies, source = kept(seconds=0.01), Source()
    reply = replies.begin(KEY, source.events())
    listening = asyncio.create_task(heard(replies, reply))  # before its time can be over
    source.say("x")
    await eventually(lambda: reply.listeners and reply.text)
    await asyncio.sleep(0.03)  # longer than it would be kept
    source.say("y")
    source.end()
    assert (await listening)[0] == "xy"


async def test_one_that_nobody_can_come_back_to_ends_with_its_last_listener() -> None:
    replies, source = kept(), Source()
    reply = await written(replies, source, "x", KEY._replace(can_come_back=False))
    listener = replies.listen(reply)
    await anext(listener)
    await listener.aclose()
    assert len(replies) == 0
    await eventually(lambda: source.is_closed)


async def left(replies: KeptReplies, number: int, text: str = "xx") -> Source:
    """A reply under way whose only listener has gone."""
    source = Source()
    reply = await written(replies, source, text, key(number))
    listener = replies.listen(reply)
    await anext(listener)
    await listener.aclose()
    return source


async def test_of_more_than_are_kept_those_left_first_go() -> None:
    replies = kept(replies=2)
    sources = [await left(replies, number) for number in range(4)]
    await eventually(lambda: [source.is_closed for source in sources] == [True, True, False, False])
    assert len(replies) == 2


async def test_of_more_text_than_is_kept_those_left_first_go() -> None:
    replies = kept(size=20)
    sources = [await left(replies, number) for number in range(2)]
    sources[1].say("12345678")  # 16 bytes and 4 of before: 4 of the other are too many
    await eventually(lambda: [source.is_closed for source in sources] == [True, False])
    sources[1].say("9")
    await eventually(lambda: not len(replies))
    assert replies._left_bytes == 0


async def test_whoever_takes_the_most_room_makes_room_for_himself() -> None:
    replies, modest = kept(replies=3), KEY._replace(owner="modest")
    reply = await written(replies, Source(), "a", modest)
    async with aclosing(replies.listen(reply)) as said:
        await anext(said)
    for number in range(5):
        await left(replies, number)
    assert replies.find(modest, 0).end is None
    with pytest.raises(NotFound):
        replies.find(key(2), 0)
    assert replies.find(key(3), 0) is not replies.find(key(4), 0)
    await replies.close()


async def test_what_was_refused_takes_nobodys_room_once_that_was_heard() -> None:
    replies, refused = kept(replies=1), Source()
    await left(replies, 1)
    refused.end(InvalidRequest("there is no such model"))
    reply = replies.begin(key(2), refused.events())
    assert [type(said) async for said in replies.listen(reply)] == [PageError]
    assert replies.find(key(1), 0).end is None
    with pytest.raises(NotFound):
        replies.find(key(2), 0)
    await replies.close()


async def test_the_text_of_one_that_is_listened_to_takes_nobodys_room() -> None:
    replies = kept(size=20)
    await left(replies, 0)
    source = Source()
    reply = replies.begin(KEY, source.events())
    listening = asyncio.create_task(heard(replies, reply))
    await eventually(lambda: reply.listeners)
    source.say("x" * 1000)
    await eventually(lambda: reply.text)
    assert len(replies) == 2
    source.end()
    await listening
    await eventually(lambda: len(replies) == 0)  # now it is too large to be kept


async def test_closing_ends_all() -> None:
    replies = kept()
    sources = [await left(replies, number) for number in range(3)]
    await replies.close()
    assert all(source.is_closed for source in sources)
    assert len(replies) == 0
