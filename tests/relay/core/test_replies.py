"""relay/replies.py: a reply is one head's to write and one reader's to read, and ends in exactly one way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from relay import replies, told
from schema.errors import (
    ContextTooLong,
    CorollaError,
    GenerationFailed,
    ModelUnavailable,
    NotFound,
    NotServing,
    QueueFull,
    TooLarge,
)
from schema.generation import GenerationRequest, Message, Pause, Sampling, Timing, Usage
from schema.ids import PeerId
from schema.limits import MAX_CONTROL_BYTES
from schema.messages import Cancel, Delta, Embed, Embedded, ErrorInfo, Failed, Finished, Generate
from schema.outbox import Urgency
from tests.relay.core.peers import FACTS, MODEL, ScriptedPeer, answer, fail, finish, say_texts
from tests.relay.core.support import RunningRelay
from tests.relay.core.vectors import packed, vector
from tests.relay.core.waiting import DEADLINE, eventually

QUESTION = GenerationRequest(
    model=MODEL, messages=[Message("user", "hello")], sampling=Sampling(temperature=0)
)


async def test_a_reply_is_the_heads_deltas_and_then_its_end(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await answer(head, "Hel", "lo", reason="length")
        events = [event async for event in reply.events(DEADLINE)]
    assert asked.body == QUESTION
    assert [event.text for event in events if isinstance(event, Delta)] == ["Hel", "lo"]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"


async def test_a_finished_reply_is_not_cancelled(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await answer(head, "Hi")
        async for _ in reply.events(DEADLINE):
            pass
    await head.is_served()  # and heard no `cancel`
    assert len(relay.services.replies) == 0


async def test_a_reader_that_leaves_early_cancels_on_the_head(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION):
        asked = await head.hear(Generate)
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert len(relay.services.replies) == 0


async def test_a_head_that_fails_ends_the_reply_with_its_error(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await fail(head, await head.hear(Generate), ContextTooLong("too long"))
        with pytest.raises(ContextTooLong, match="too long"):
            await anext(reply.events(DEADLINE))
    await head.is_served()  # and heard no `cancel`


async def test_a_reply_that_takes_too_long_ends_with_an_error_and_is_cancelled(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await head.hear(Generate)
        with pytest.raises(GenerationFailed, match="not finished within"):
            await anext(reply.events(0.01))
    await head.hear(Cancel)


async def test_the_time_of_a_reply_is_not_begun_anew_by_every_delta(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async def chatter() -> None:
        asked = await head.hear(Generate)
        while True:
            await say_texts(head, asked, "more")

    async with relay.services.replies.start(QUESTION) as reply:
        chattering = asyncio.create_task(chatter())
        with pytest.raises(GenerationFailed, match="not finished within"):
            async for _ in reply.events(0.1):
                pass
        chattering.cancel()


async def test_a_reply_can_only_be_written_by_its_head(relay: RunningRelay, head: ScriptedPeer) -> None:
    stranger = await relay.serving(0, 4)
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await head.hear(Generate)
        await say_texts(stranger, asked, "spam")
        await finish(stranger, asked)
        await stranger.is_served()
        await say_texts(head, asked, "right")
        await finish(head, asked)
        events = [event async for event in reply.events(DEADLINE)]
    assert [event.text for event in events if isinstance(event, Delta)] == ["right"]


async def test_what_comes_after_the_end_is_ignored(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await answer(head, "done")
        async for _ in reply.events(DEADLINE):
            pass
    await say_texts(head, asked, "late")
    await head.say(Failed(request=asked.request, error=ErrorInfo.of(CorollaError("late"))))
    await head.is_served()


async def test_a_reply_is_finished_once_however_slow_its_reader(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await answer(head, "done")
        for _ in range(3):
            await finish(head, asked)
        await head.is_served()
        assert [type(event).__name__ async for event in reply.events(DEADLINE)] == ["Delta", "Finished"]
    assert await relay.metric("reply_seconds_count") == 1


async def test_a_finished_reply_is_timed_here_and_its_tokens_are_counted(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await head.hear(Generate)
        await say_texts(head, asked, "one", "two", "three")
        boast = Timing(first_token=-1e9, total=1e300)
        usage = Usage(prompt_tokens=1, completion_tokens=3, total_tokens=4)
        await head.say(Finished(request=asked.request, reason="stop", usage=usage, timing=boast))
        async for _ in reply.events(DEADLINE):
            pass
    assert await relay.metric("tokens_total") == 3
    assert await relay.metric("reply_seconds_count") == 1
    assert 0 <= await relay.metric("first_token_seconds_sum") <= await relay.metric("reply_seconds_sum")
    assert await relay.metric("reply_seconds_sum") < DEADLINE


async def test_a_head_that_never_stops_writing_is_stopped(
    relay: RunningRelay, head: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told, "MAX_REPLY_CHARS", 1000)
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await head.hear(Generate)
        await say_texts(head, asked, *["x" * 100] * 20)
        assert await head.hear(Cancel) == Cancel(request=asked.request)
        with pytest.raises(GenerationFailed, match="more than any reply may hold"):
            async for _ in reply.events(DEADLINE):
                pass
    await head.is_served()  # and heard no second `cancel`


async def test_deltas_without_text_count_too(
    relay: RunningRelay, head: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told, "MAX_REPLY_CHARS", 1000)
    async with relay.services.replies.start(QUESTION):
        await say_texts(head, await head.hear(Generate), *[""] * 20)
        await head.hear(Cancel)


async def test_what_the_next_head_tells_again_does_not_make_a_reply_too_long(
    relay: RunningRelay, head: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out, and so waits for no reader."""
    monkeypatch.setattr(told, "MAX_REPLY_CHARS", 1000)
    other = await relay.serving(head=True)
    async with relay.services.replies.start(QUESTION) as reply:
        first, second = (head, other) if reply.head == head.id else (other, head)
        reading = asyncio.create_task(text_of(reply.events(DEADLINE)))
        await say_texts(first, await first.hear(Generate), "x" * 800)
        await eventually(lambda: reply.first_token is not None)
        await first.close()
        again = await second.hear(Generate)
        await say_texts(second, again, "x" * 800)
        await finish(second, again)
        assert await reading == "x" * 800


# ---- a head that leaves ----


async def say_ids(head: ScriptedPeer, asked: Generate, *said: tuple[str, list[int]]) -> None:
    for text, ids in said:
        await head.say(Delta(request=asked.request, text=text, tokens=len(ids), ids=ids))


async def all_of(events: AsyncIterator[Delta | Finished]) -> list[Delta | Finished]:
    return [event async for event in events]


async def text_of(events: AsyncIterator[Delta | Finished]) -> str:
    """The rest of a reply that ends well."""
    heard = await all_of(events)
    assert isinstance(heard[-1], Finished)
    return "".join(event.text for event in heard if isinstance(event, Delta))


async def test_another_head_goes_on_where_the_first_has_left(relay: RunningRelay, head: ScriptedPeer) -> None:
    question = replace(QUESTION, sampling=Sampling(temperature=1.0))
    other = await relay.serving(head=True)
    async with relay.services.replies.start(question, "ada") as reply:
        first, second = (head, other) if reply.head == head.id else (other, head)
        asked = await first.hear(Generate)
        assert asked.generated is UNSET
        await say_ids(first, asked, ("Hel", [1, 2]), ("lo", [3]))
        events = reply.events(DEADLINE)
        assert [(await anext(events)).text for _ in range(2)] == ["Hel", "lo"]  # type: ignore[union-attr]
        first.reset()
        rest = asyncio.create_task(text_of(events))
        again = await second.hear(Generate)
        assert again.generated == [1, 2, 3]
        assert again.body == asked.body
        assert isinstance(again.body.sampling.seed, int)
        assert again.request != asked.request
        assert again.asker != asked.asker  # a name is for one head
        await say_ids(second, again, ("Hell", [1, 2, 3]), ("o, ", [4]), ("world", [5]))
        await finish(second, again)
        assert await rest == ", world"
    assert await relay.metric("continued_replies_total") == 1


async def test_another_head_goes_on_where_the_first_says_that_it_serves_no_more(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    """It has let go of its blocks, and was asked before that was known here."""
    other = await relay.serving(head=True)
    async with relay.services.replies.start(QUESTION) as reply:
        first, second = (head, other) if reply.head == head.id else (other, head)
        asked = await first.hear(Generate)
        moving = relay.services.hub.get(first.id)
        assert moving is not None
        relay.services.joining.draining(moving)
        gone = NotServing("this volunteer has no head of 'llama'")
        await first.say(Failed(request=asked.request, error=ErrorInfo.of(gone)))
        rest = asyncio.create_task(text_of(reply.events(DEADLINE)))
        again = await second.hear(Generate)
        await say_ids(second, again, ("hello", [1]))
        await finish(second, again)
        assert await rest == "hello"


async def test_a_reply_that_stops_for_a_hop_says_so_once_and_for_how_long(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await head.hear(Generate)
        await say_texts(head, asked, "one ")
        for _ in range(2):
            await head.say(Delta(request=asked.request, text="", tokens=0, is_repairing=True))
        await say_texts(head, asked, "two")
        await finish(head, asked)
        events = [event async for event in reply.events(DEADLINE)]
    shown = [event.text or event.is_repairing for event in events if isinstance(event, Delta)]
    assert shown == ["one ", True, "two"]
    end = events[-1]
    assert isinstance(end, Finished)
    (pause,) = end.timing.pauses
    assert 0 <= pause.at <= reply.age
    assert 0 <= pause.seconds <= reply.age - pause.at
    assert (end.timing.first_token, end.timing.total) == (0.1, 0.2)  # as its head says


async def test_a_reply_of_two_heads_has_the_time_that_both_took(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    """The second one knows only its own."""
    async with relay.services.replies.start(QUESTION) as reply:
        await say_ids(head, await head.hear(Generate), ("one ", [1]))
        await head.is_served()
        began = reply.age
        head.reset()
        other = await relay.serving(head=True)
        reading = asyncio.create_task(all_of(reply.events(DEADLINE)))
        again = await other.hear(Generate)
        await say_ids(other, again, ("one two", [1, 2]))
        await finish(other, again)
        events = await reading
    assert [event.is_repairing for event in events if isinstance(event, Delta)] == [UNSET, True, UNSET]
    end = events[-1]
    assert isinstance(end, Finished)
    timing = end.timing
    assert timing.repairs == 1
    (pause,) = timing.pauses
    assert timing.first_token <= began <= pause.at <= pause.at + pause.seconds <= timing.total <= reply.age


async def test_a_head_does_not_say_where_a_reply_stood_still(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        asked = await head.hear(Generate)
        timing = Timing(first_token=0, total=1, pauses=[Pause(at=0, seconds=1)])
        await head.say(Finished(request=asked.request, reason="stop", usage=Usage(1, 0, 1), timing=timing))
        (end,) = await all_of(reply.events(DEADLINE))
    assert isinstance(end, Finished)
    assert end.timing.pauses == []


async def test_what_waits_for_a_slow_reader_counts_as_told(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await say_ids(head, await head.hear(Generate), ("on", [1]), ("e", [2]))
        await head.is_served()
        head.reset()
        other = await relay.serving(head=True)
        rest = asyncio.create_task(text_of(reply.events(DEADLINE)))
        again = await other.hear(Generate)
        await say_ids(other, again, ("one two", [1, 2, 3]))
        await finish(other, again)
        assert await rest == "one two"
    assert again.generated == [1, 2]


async def test_a_head_that_tells_no_tokens_is_followed_from_the_beginning(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await say_texts(head, await head.hear(Generate), "one ")
        await head.is_served()
        head.reset()
        other = await relay.serving(head=True)
        rest = asyncio.create_task(text_of(reply.events(DEADLINE)))
        again = await answer(other, "on", "e two")
        assert await rest == "one two"
    assert again.generated is UNSET


@pytest.mark.usefixtures("one_head_only")
async def test_a_head_is_waited_for_but_not_for_long(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await say_texts(head, await head.hear(Generate), "half")
        events = reply.events(DEADLINE)
        assert isinstance(await anext(events), Delta)
        head.reset()
        with pytest.raises(GenerationFailed, match="has left"):
            await all_of(events)
    assert len(relay.services.replies) == 0


async def test_a_reply_has_so_many_heads_and_no_more(
    relay: RunningRelay, head: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "MOST_HEADS", 2)
    second, third = await relay.serving(head=True), await relay.serving(head=True)
    async with relay.services.replies.start(QUESTION) as reply:
        reading = asyncio.create_task(text_of(reply.events(DEADLINE)))
        for heads in (1, 2):
            await eventually(lambda heads=heads: reply.heads == heads and reply.head is not None)
            next(peer for peer in (head, second, third) if peer.id == reply.head).reset()
        with pytest.raises(GenerationFailed, match="has left"):
            await reading


async def test_a_reader_that_leaves_while_a_head_is_waited_for_leaves_nothing(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION) as reply:
        await head.hear(Generate)
        reading = asyncio.create_task(text_of(reply.events(DEADLINE)))
        head.reset()
        await eventually(lambda: reply.head is None)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    other = await relay.serving(head=True)
    await other.is_served()  # and heard no `generate`
    assert len(relay.services.replies) == 0


# ---- who is asked ----


async def test_replies_are_shared_among_heads_before_they_tell_their_load(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    other = await relay.serving(head=True)
    async with relay.services.replies.start(QUESTION), relay.services.replies.start(QUESTION):
        await head.hear(Generate)
        await other.hear(Generate)


async def test_an_askers_replies_go_to_the_same_head_while_it_is_not_busier(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    await relay.serving(head=True)
    chosen: dict[str, PeerId] = {}
    start = relay.services.replies.start
    for asker in [f"asker {number}" for number in range(16)]:
        heads: set[PeerId] = set()
        for _ in range(3):
            async with start(QUESTION, asker) as reply:
                assert reply.head is not None
                heads.add(reply.head)
        (chosen[asker],) = heads
        async with start(QUESTION, asker) as first, start(QUESTION, asker) as second:
            assert first.head == chosen[asker] != second.head
    assert len(set(chosen.values())) == 2


async def test_a_head_knows_an_asker_by_a_name_that_is_made_up(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    names: list[object] = []
    for asker in ("ada", "bob", "ada", ""):
        async with relay.services.replies.start(QUESTION, asker):
            names.append((await head.hear(Generate)).asker)
        await head.hear(Cancel)
    assert names[0] == names[2] != names[1]
    assert names[3] is UNSET
    assert not {"ada", "bob"} & set(names)


def test_a_made_up_name_is_another_for_another_head_time_or_secret() -> None:
    secret, head = bytes(32), PeerId("a" * 16)
    names = [
        replies.made_up_name(secret, "ada", head, 1),
        replies.made_up_name(secret, "ada", PeerId("b" * 16), 1),
        replies.made_up_name(secret, "ada", head, 2),
        replies.made_up_name(bytes([1] * 32), "ada", head, 1),
        replies.made_up_name(secret, "bob", head, 1),
    ]
    assert len(set(names)) == len(names)


async def test_a_head_whose_queue_is_full_is_passed_over(relay: RunningRelay, head: ScriptedPeer) -> None:
    other = await relay.serving(head=True)
    fill_queue(relay, head)
    async with relay.services.replies.start(QUESTION) as reply:
        assert reply.head == other.id


async def test_without_a_head_that_reads_a_reply_is_refused_with_when_to_ask_again(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    fill_queue(relay, head)
    with pytest.raises(QueueFull) as refusal:
        relay.services.replies.start(QUESTION)
    assert refusal.value.retry_after
    assert len(relay.services.replies) == 0


def fill_queue(relay: RunningRelay, head: ScriptedPeer) -> None:
    """Let as much wait for a head, within one step of the loop, as its queue holds."""
    peer = relay.services.hub.get(head.id)
    assert peer is not None
    while peer.enqueue("x" * MAX_CONTROL_BYTES, Urgency.CONTROL):
        pass
    while peer.enqueue("x", Urgency.CONTROL):
        pass


async def test_a_request_that_is_too_large_to_be_handed_on_leaves_nothing_behind(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    with pytest.raises(TooLarge):
        relay.services.replies.start(GenerationRequest(model=MODEL, prompt="x" * MAX_CONTROL_BYTES))
    assert len(relay.services.replies) == 0
    await head.is_served()


async def test_a_model_that_is_not_served_is_not_found(relay: RunningRelay) -> None:
    with pytest.raises(NotFound):
        relay.services.replies.start(GenerationRequest(model="other", prompt="hello"))


async def test_an_incomplete_model_is_unavailable(relay: RunningRelay) -> None:
    await relay.serving(0, 4, head=True)
    with pytest.raises(ModelUnavailable, match="blocks 4\N{EN DASH}7 have no volunteer"):
        relay.services.replies.start(QUESTION)


async def test_a_head_that_drains_gets_no_new_replies(relay: RunningRelay, head: ScriptedPeer) -> None:
    volunteer = relay.services.swarm.get(head.id)
    assert volunteer is not None
    volunteer.state = "draining"
    relay.services.swarm.refresh(volunteer)
    with pytest.raises(ModelUnavailable):
        relay.services.replies.start(QUESTION)


async def test_a_cancel_that_nobody_waits_for_does_no_harm(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.start(QUESTION):
        await head.hear(Generate)
        await head.close()
        await eventually(lambda: len(relay.services.hub) == 0)
    assert len(relay.services.replies) == 0


# ---- what is counted ----


async def replies_counted(relay: RunningRelay) -> list[tuple[int, int]]:
    """Of one asker: how many replies, and how many tokens they have written."""
    used = await relay.services.usage.of(relay.services.store, "asker", 0)
    return [(one.replies, one.completion_tokens) for one in used]


async def test_a_reply_whose_reader_leaves_before_it_has_read_the_end_is_counted_once(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION, "asker"):
        asked = await head.hear(Generate)
        await head.say(Delta(request=asked.request, text="Hi", tokens=1, ids=[7]))
        await finish(head, asked, tokens=1)
        await head.is_served()
    await head.is_served()  # and heard no `cancel`
    assert await replies_counted(relay) == [(1, 1)]


async def test_a_reply_that_is_left_in_the_middle_is_counted_as_far_as_it_was_told(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION, "asker"):
        asked = await head.hear(Generate)
        await head.say(Delta(request=asked.request, text="Hi", tokens=1, ids=[7]))
        await head.is_served()
    assert await head.hear(Cancel) == Cancel(request=asked.request)
    assert await replies_counted(relay) == [(1, 1)]


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=FACTS.context, completion_tokens=1, total_tokens=2),
        Usage(prompt_tokens=1, completion_tokens=1, total_tokens=FACTS.context + 1),
    ],
)
async def test_a_head_that_counts_more_than_there_can_be_charges_nobody(
    relay: RunningRelay, head: ScriptedPeer, usage: Usage
) -> None:
    async with relay.services.replies.start(QUESTION, "asker") as reply:
        asked = await head.hear(Generate)
        timing = Timing(first_token=0, total=0)
        await head.say(Finished(request=asked.request, reason="stop", usage=usage, timing=timing))
        with pytest.raises(GenerationFailed, match="more tokens"):
            await anext(reply.events(DEADLINE))
    assert await replies_counted(relay) == []
    assert await relay.metric("tokens_total") == 0


async def test_a_head_that_tells_more_tokens_than_there_can_be_is_stopped(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.start(QUESTION, "asker") as reply:
        asked = await head.hear(Generate)
        ids = [1] * (FACTS.context + 1)
        await head.say(Delta(request=asked.request, text="a", tokens=1, ids=ids))
        assert await head.hear(Cancel) == Cancel(request=asked.request)
        with pytest.raises(GenerationFailed, match="more tokens"):
            await anext(reply.events(DEADLINE))
    assert await replies_counted(relay) == [(1, FACTS.context)]


async def test_a_vector_of_more_tokens_than_there_can_be_is_none(
    relay: RunningRelay, head: ScriptedPeer
) -> None:
    async with relay.services.replies.embed(MODEL, ["a", "b"], "asker") as reply:
        asked = await head.hear(Embed)
        raw, tokens = packed(vector(1.0)), FACTS.context + 1
        await head.say(Embedded(request=asked.request, index=0, tokens=tokens, vector=raw))
        with pytest.raises(GenerationFailed, match="more tokens"):
            await anext(reply.events(DEADLINE))
    assert await replies_counted(relay) == []


async def test_an_end_that_is_none_is_not_counted(relay: RunningRelay, head: ScriptedPeer) -> None:
    async with relay.services.replies.embed(MODEL, ["a", "b"], "asker") as reply:
        asked = await head.hear(Embed)
        usage = Usage(prompt_tokens=9, completion_tokens=0, total_tokens=9)
        await head.say(
            Finished(request=asked.request, reason="stop", usage=usage, timing=Timing(first_token=0, total=0))
        )
        with pytest.raises(GenerationFailed, match="fewer vectors"):
            await anext(reply.events(DEADLINE))
    assert await replies_counted(relay) == []
