"""A volunteer that is told to leave finishes what it can, and waits for nothing else."""

import asyncio
import threading

import pytest

from corolla.models.span import SpanModel
from schema.errors import Unavailable
from schema.frames import FrameType
from schema.ids import new_session_id
from schema.messages import Delta, Draining, Finished, Hello, Offer
from tests.volunteer.nodes import Start, closing, generate, grant_route, whole, work
from tests.volunteer.scripted_relay import PATIENCE_SECONDS, ScriptedRelay
from volunteer import node as node_module
from volunteer.config import Config
from volunteer.loading import ReportProgress


class TestLeaving:
    async def test_with_nothing_to_do_says_so_and_goes(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        await running.leave()
        await relay.connections[-1].wait_closed()
        assert isinstance(relay.messages[-1], Draining)

    async def test_finishes_the_replies_that_it_writes(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(whole(relay, config))
        await relay.wait_until_serving()
        await relay.send(generate(max_tokens=40))
        await grant_route(relay)
        await relay.wait_for(lambda: relay.of(Delta))
        await running.leave()
        await relay.connections[-1].wait_closed()
        (end,) = relay.of(Finished)
        assert end.usage.completion_tokens == 40
        assert relay.messages.index(relay.of(Draining)[0]) < relay.messages.index(end)

    async def test_goes_on_serving_the_sessions_of_others_until_they_end(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: relay.frames)
        running.node.stop()
        await relay.wait_for(lambda: relay.of(Draining))
        await relay.send(work(session, position=3))
        await relay.wait_for(lambda: len(relay.frames) == 2)
        assert relay.frames[1].type == FrameType.STEP
        assert not running.task.done()
        await relay.send(closing(session))
        await asyncio.wait_for(running.task, PATIENCE_SECONDS)

    async def test_does_not_wait_for_ever(
        self, relay: ScriptedRelay, config: Config, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "DRAIN_SECONDS", 0.1)
        running = await start(config)
        await relay.wait_until_serving()
        await relay.send(work(new_session_id()))
        await relay.wait_for(lambda: relay.frames)
        await running.leave()

    async def test_does_not_wait_for_a_link_that_is_lost_meanwhile(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        await relay.send(work(new_session_id()))
        await relay.wait_for(lambda: relay.frames)
        running.node.stop()
        await relay.wait_for(lambda: relay.of(Draining))
        await relay.connections[-1].close(1012)
        await asyncio.wait_for(running.task, PATIENCE_SECONDS)

    async def test_does_not_wait_for_the_relay_to_answer(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        relay.answers[Hello] = None
        running = await start(config)
        await relay.wait_for(lambda: relay.of(Hello))
        await running.leave()

    async def test_does_not_wait_for_the_next_attempt(
        self, relay: ScriptedRelay, config: Config, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "backoff", lambda *_: 3600.0)
        relay.answers[Offer] = Unavailable("the database is away")
        running = await start(config)
        await relay.wait_for(lambda: relay.of(Offer))
        await running.leave()

    async def test_does_not_wait_for_its_span(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        running.loader.gate.clear()
        await running.loader.entered.wait()
        await running.leave()

    async def test_ends_the_loading_of_a_large_span(
        self, relay: ScriptedRelay, config: Config, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loading, ended = threading.Event(), threading.Event()

        def load_for_long(
            _source: object, _start: int, _end: int, _options: object, progress: ReportProgress
        ) -> None:
            loading.set()
            try:
                for done in range(10**9):
                    progress(done, 10**9)
            finally:
                ended.set()

        monkeypatch.setattr(SpanModel, "load", load_for_long)
        running = await start(config)
        assert await asyncio.to_thread(loading.wait, PATIENCE_SECONDS)
        await running.leave()
        assert await asyncio.to_thread(ended.wait, PATIENCE_SECONDS)
