"""A volunteer that is given other blocks while it serves: it finishes what it has, and serves those."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from msgspec import UNSET

from schema.frames import FrameType
from schema.ids import Span, new_session_id
from schema.messages import (
    Assignment,
    BlockRun,
    Delta,
    Finished,
    GoElsewhere,
    Loaded,
    Moving,
    Offer,
    Ready,
)
from tests.corolla.tiny_text import SHAPE
from tests.volunteer.nodes import Start, closing, generate, grant_route, whole, work
from tests.volunteer.scripted_relay import PATIENCE_SECONDS, ScriptedRelay
from volunteer import node as node_module
from volunteer.config import Config
from volunteer.device import DeviceThread
from volunteer.loading import Candidate

OTHER = Span(1, 3)


async def move(relay: ScriptedRelay, *, head: bool = False) -> None:
    await relay.send(Assignment(model="tiny", start=OTHER.start, end=OTHER.end, head=head))


class TestMoving:
    async def test_serves_the_other_blocks(self, relay: ScriptedRelay, config: Config, start: Start) -> None:
        await start(config)
        await relay.wait_until_serving()
        await move(relay)
        await relay.wait_until_serving(times=2)
        loaded = relay.of(Loaded)[-1]
        assert (loaded.start, loaded.end) == (OTHER.start, OTHER.end)
        await relay.send(work(new_session_id(), span=OTHER))
        await relay.wait_for(lambda: relay.frames)
        assert relay.frames[0].type == FrameType.STEP
        assert len(relay.connections) == 1

    async def test_finishes_the_sessions_of_others_first(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: relay.frames)
        await move(relay)
        await relay.send(work(session, position=3))
        await relay.wait_for(lambda: len(relay.frames) == 2)
        assert relay.frames[1].type == FrameType.STEP
        assert len(relay.of(Loaded)) == 1
        await relay.send(closing(session))
        await relay.wait_until_serving(times=2)
        await running.wait_for_sessions(0)

    async def test_finishes_the_replies_that_it_writes_first(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(whole(relay, config))
        await relay.wait_until_serving()
        await relay.send(generate(max_tokens=40))
        await grant_route(relay)
        await relay.wait_for(lambda: relay.of(Delta))
        await move(relay, head=True)
        await relay.wait_until_serving(times=2)
        (end,) = relay.of(Finished)
        assert end.usage.completion_tokens == 40
        assert relay.messages.index(end) < relay.messages.index(relay.of(Loaded)[-1])

    async def test_does_not_wait_for_ever_and_hands_over_what_is_left(
        self, relay: ScriptedRelay, config: Config, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "MOVE_SECONDS", 0.1)
        await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: relay.frames)
        await move(relay)
        await relay.wait_until_serving(times=2)
        await relay.send(work(session, position=3))
        await relay.wait_for(lambda: len(relay.frames) == 2)
        assert relay.frames[1].type == FrameType.FAILURE

    async def test_refuses_by_name_while_it_holds_nothing(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        running.loader.entered.clear()
        running.loader.gate.clear()
        await move(relay)
        await running.loader.entered.wait()
        await relay.send(work(new_session_id()))
        await relay.wait_for(lambda: relay.frames)
        assert relay.frames[0].type == FrameType.FAILURE
        assert b"not_serving" in bytes(relay.frames[0].payload)
        running.loader.gate.set()
        await relay.wait_until_serving(times=2)

    async def test_comes_back_with_the_other_blocks_after_its_link_broke(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        running.loader.entered.clear()
        running.loader.gate.clear()
        await move(relay)
        await running.loader.entered.wait()
        await relay.connections[-1].close(1012)
        relay.assignment = Assignment(model="tiny", start=OTHER.start, end=OTHER.end, head=False)
        await relay.wait_for(lambda: len(relay.connections) == 2)
        running.loader.gate.set()
        await relay.wait_until_serving(times=2)
        assert relay.early == []
        (model,) = relay.of(Offer)[-1].models
        assert (model.wanted_start, model.wanted_end) == (OTHER.start, OTHER.end)

    async def test_frees_its_memory_before_it_offers_anything_though_its_link_broke_meanwhile(
        self,
        relay: ScriptedRelay,
        config: Config,
        start: Start,
        at_once: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        order: list[str] = []
        is_freeing, may_free = asyncio.Event(), asyncio.Event()
        release, consider = running.loader.release, running.loader.consider

        async def release_slowly(device: DeviceThread) -> None:
            is_freeing.set()
            await may_free.wait()
            await release(device)
            order.append("freed")

        def note(wanted: Sequence[str]) -> list[Candidate]:
            order.append("offered")
            return consider(wanted)

        monkeypatch.setattr(running.loader, "release", release_slowly)
        monkeypatch.setattr(running.loader, "consider", note)
        await move(relay)
        await asyncio.wait_for(is_freeing.wait(), PATIENCE_SECONDS)
        lost = running.node._mail
        await relay.connections[-1].close(1012)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.node._mail is lost:
                await asyncio.to_thread(lambda: None)
        for _ in range(10):  # it would look what it has on these threads, too
            await asyncio.to_thread(lambda: None)
        assert order == []
        may_free.set()
        await relay.wait_until_serving(times=2)
        assert order == ["freed", "offered"]

    async def test_joins_anew_when_its_replica_stops_meanwhile(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        running.loader.entered.clear()
        running.loader.gate.clear()
        await move(relay)
        await running.loader.entered.wait()
        relay.assignment = Assignment(model="tiny", start=OTHER.start, end=OTHER.end, head=False)
        await relay.send(GoElsewhere(within_seconds=0.0))
        await relay.wait_for(lambda: len(relay.connections) == 2)
        running.loader.gate.set()
        await relay.wait_until_serving(times=2)
        assert relay.of(Moving) == []
        assert relay.early == []
        (model,) = relay.of(Offer)[-1].models
        assert (model.wanted_start, model.wanted_end) == (OTHER.start, OTHER.end)

    async def test_can_be_told_to_leave_while_it_moves(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        await relay.send(work(new_session_id()))
        await relay.wait_for(lambda: relay.frames)
        await move(relay)
        running.node.stop()
        await asyncio.sleep(0)
        await relay.send(closing(relay.frames[0].session))
        await running.leave()
        assert len(relay.of(Ready)) == 1


class TestOffering:
    async def test_says_how_much_it_could_hold_elsewhere_and_what_is_on_disk(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        await start(config)
        await relay.wait_until_serving()
        await relay.connections[-1].close(1012)
        await relay.wait_until_serving(times=2)
        first, again = (offer.models[0] for offer in relay.of(Offer))
        assert first.room == again.room == first.max_blocks == SHAPE.blocks
        assert first.cached == again.cached == [BlockRun(start=0, end=SHAPE.blocks)]

    async def test_a_pinned_one_has_no_room_elsewhere(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(replace(config, blocks=Span(0, 2)))
        await relay.wait_until_serving()
        assert relay.of(Offer)[0].models[0].room is UNSET
