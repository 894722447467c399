"""A volunteer dies: any hop of a route, at any place of a reply, and the reply is what it would have been."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from corolla.generation import Head
from schema.frames import FrameType
from tests.chaos.driver import Driver, Told
from tests.chaos.thicket import FIRST, SECOND, SPANS, THIRD, Thicket, assert_complete

QUESTION = "3 14 159 26 5 358"
LONG = 250
"""Tokens of a reply in whose midst something happens."""
PROMPT = [(7 * number) % 509 for number in range(1200)]
"""In several slices."""
TOKENS = 32
HOPS = {"first": 0, "middle": 1, "last": 2}


@pytest.fixture
async def driver(thicket: Thicket, head: Head) -> AsyncIterator[Driver]:
    async with Driver(head).connected(thicket.garden.relay.url, thicket.garden.tokens[0]) as connected:
        yield connected


def killer(thicket: Thicket, driver: Driver, hop: int) -> Callable[[], None]:
    """Kills a hop of the route that the driver has when this is called."""
    return lambda: thicket.kill(driver.hops[hop])


@pytest.mark.parametrize("hop", HOPS.values(), ids=HOPS)
class TestAHopThatDies:
    async def test_in_prefill_is_replaced(self, thicket: Thicket, driver: Driver, hop: int) -> None:
        undisturbed = await driver.ask(PROMPT, TOKENS)
        driver.forget()
        await asyncio.to_thread(thicket.want_spares, SPANS[hop])
        routes = driver.routes
        driver.at(FrameType.PREFILL, 1, killer(thicket, driver, hop))
        told = await driver.ask(PROMPT, TOKENS)
        assert driver.routes == routes + 2
        assert (told.ids, told.text) == (undisturbed.ids, undisturbed.text)

    async def test_in_decode_is_replaced(self, thicket: Thicket, driver: Driver, hop: int) -> None:
        undisturbed = await driver.ask(PROMPT[:100], TOKENS)
        await asyncio.to_thread(thicket.want_spares, SPANS[hop])
        routes = driver.routes
        driver.at(FrameType.STEP, TOKENS // 2, killer(thicket, driver, hop))
        told = await driver.ask(PROMPT[:100], TOKENS)
        assert driver.routes == routes + 2
        assert (told.ids, told.text) == (undisturbed.ids, undisturbed.text)

    async def test_between_two_turns_is_replaced(self, thicket: Thicket, driver: Driver, hop: int) -> None:
        """The session was kept, and what its hops still hold is of no use without the one that died."""
        await asyncio.to_thread(thicket.want_spares)
        first = await driver.ask(PROMPT[:100], TOKENS)
        chat = [*PROMPT[:100], *first.ids, *PROMPT[100:150]]
        undisturbed = await driver.ask(chat, TOKENS)
        if undisturbed.cached < 100:  # a newcomer has proved to be much faster, and was given this turn
            undisturbed = await driver.ask(chat, TOKENS)
        assert undisturbed.cached >= 100
        thicket.kill(driver.hops[hop])
        told = await driver.ask(chat, TOKENS)
        assert (told.ids, told.text) == (undisturbed.ids, undisturbed.text)
        assert await driver.ask(PROMPT[:100], TOKENS)


class TestTheHopsThatAreLeft:
    @pytest.mark.parametrize("hop", HOPS.values(), ids=HOPS)
    async def test_compute_nothing_again(self, thicket: Thicket, driver: Driver, hop: int) -> None:
        """All that is sent anew as a prompt is the token that was under way."""
        driver.forget()
        prompts = await Forwarded.since(thicket, driver.ask(PROMPT, TOKENS))
        driver.forget()
        await asyncio.to_thread(thicket.want_spares, SPANS[hop])
        driver.at(FrameType.STEP, TOKENS // 2, killer(thicket, driver, hop))
        repaired = await Forwarded.since(thicket, driver.ask(PROMPT, TOKENS))
        assert repaired.told.ids == prompts.told.ids
        legs = len(SPANS) + 1
        assert (prompts.resumes, prompts.replays) == (0, 0)
        assert repaired.resumes == legs
        assert repaired.replays >= legs * 3
        assert repaired.prefills == prompts.prefills + legs

    async def test_compute_everything_again_where_one_has_kept_nothing(
        self, thicket: Thicket, driver: Driver
    ) -> None:
        driver.forget()
        undisturbed = await Forwarded.since(thicket, driver.ask(PROMPT, TOKENS))
        driver.forget()
        await asyncio.to_thread(thicket.want_spares, SECOND)
        async with forgetful(thicket):
            driver.at(FrameType.STEP, TOKENS // 2, killer(thicket, driver, HOPS["middle"]))
            repaired = await Forwarded.since(thicket, driver.ask(PROMPT, TOKENS))
            assert "poppy" in driver.hops
        assert (repaired.told.ids, repaired.told.text) == (undisturbed.told.ids, undisturbed.told.text)
        assert repaired.resumes == 1  # it was refused at once
        assert repaired.prefills >= 2 * undisturbed.prefills


@dataclass(frozen=True)
class Forwarded:
    """A reply, and how many frames the relay has passed on for it."""

    told: Told
    prefills: float
    resumes: float
    replays: float

    @classmethod
    async def since(cls, thicket: Thicket, asking: Awaitable[Told]) -> "Forwarded":
        def count() -> list[float]:
            kinds = ("prefill", "resume", "replay")
            return [thicket.metric("corolla_frames_forwarded_total", type=kind) for kind in kinds]

        before = await asyncio.to_thread(count)
        told = await asking
        after = await asyncio.to_thread(count)
        return cls(told, *(now - then for then, now in zip(before, after, strict=True)))


@asynccontextmanager
async def forgetful(thicket: Thicket) -> AsyncIterator[None]:
    """Inside of the block, the first blocks are with one who keeps nothing of what it sends on."""
    garden = thicket.garden

    def plant() -> list[str]:
        poppy = garden.plant("poppy", "--blocks", FIRST, "--repair-memory", "0")
        garden.relay.wait_until_serving(["poppy"], [poppy])
        heads = thicket.serving(FIRST)
        for name in heads:
            garden.pause(name)
        return heads

    def uproot(heads: list[str]) -> None:
        for name in heads:
            garden.resume(name)
        thicket.kill("poppy")
        del garden.volunteers["poppy"]

    heads = await asyncio.to_thread(plant)
    try:
        yield
    finally:
        await asyncio.to_thread(uproot, heads)


class TestASpan:
    def test_that_loses_both_of_its_volunteers_is_waited_for(self, thicket: Thicket) -> None:
        before = thicket.garden.say(QUESTION, LONG)
        with thicket.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            thicket.kill("bellis", "begonia")
            thicket.garden.replant()
            assert_complete(chat, before)

    def test_that_nobody_holds_any_more_breaks_the_reply_and_says_so(self, thicket: Thicket) -> None:
        thicket.want_spares(SECOND)
        with thicket.garden.chat(QUESTION) as chat:
            chat.wait_for_text()
            thicket.kill("bellis", "begonia")
            chat.wait_for_end()
        assert (chat.finish_reason, chat.is_done) == (None, False)
        assert chat.error is not None
        assert "left in the middle of the reply" in chat.error["message"]
        missing = thicket.garden.relay.swarm().models[0]
        assert not missing.complete
        assert missing.reason is not None
        assert missing.reason.startswith("blocks 4\N{EN DASH}7 have no volunteer")
        assert missing.reason in thicket.garden.refusal(QUESTION)["message"]
        thicket.garden.wait_for_no_sessions()


def test_several_deaths_under_one_reply(thicket: Thicket) -> None:
    thicket.want_spares(SECOND, THIRD)
    before = thicket.undisturbed(QUESTION, LONG)
    with thicket.garden.chat(QUESTION, LONG) as chat:
        chat.wait_for_text()
        thicket.kill(thicket.used(SECOND), thicket.used(THIRD))
        assert_complete(chat, before)
