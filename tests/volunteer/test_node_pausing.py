"""A volunteer that pauses tells the relay, wherever it joins, and goes on with what it has."""

import logging

import pytest

from schema.errors import Unavailable
from schema.ids import new_session_id
from schema.messages import Delta, Finished, FromPeer, Heartbeat, Hello, Ready
from tests.volunteer.nodes import Start, closing, generate, grant_route, whole, work
from tests.volunteer.scripted_relay import ScriptedRelay
from volunteer.config import Config


def pauses(relay: ScriptedRelay) -> list[bool]:
    """What its heartbeats have said so far."""
    return [message.paused is True for message in relay.of(Heartbeat)]


class TestPausing:
    async def test_is_told_at_once_and_once(
        self, relay: ScriptedRelay, config: Config, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        with caplog.at_level(logging.INFO):
            for reason in ("it is late", "it is later", None, None):
                running.node.set_pause(reason)
            await relay.wait_for(lambda: len(relay.of(Heartbeat)) == 2)
        assert pauses(relay) == [True, False]
        told = [line for line in caplog.messages if "paused" in line or "resumed" in line]
        assert told == [
            "paused (it is late): no new sessions; 0 replies to finish, 0 sessions to serve",
            "resumed: new sessions are taken again",
        ]

    async def test_lets_the_sessions_of_others_go_on(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: relay.frames)
        running.node.set_pause("it is late")
        await relay.wait_for(lambda: relay.of(Heartbeat))
        assert relay.of(Heartbeat)[0].sessions == 1
        await relay.send(work(session, position=3))
        await relay.wait_for(lambda: len(relay.frames) == 2)
        assert relay.frames[1].type == relay.frames[0].type
        await relay.send(closing(session))
        await running.wait_for_sessions(0)

    async def test_lets_the_replies_that_it_writes_go_on(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(whole(relay, config))
        await relay.wait_until_serving()
        await relay.send(generate(max_tokens=40))
        await grant_route(relay)
        await relay.wait_for(lambda: relay.of(Delta))
        running.node.set_pause("it is late")
        await relay.wait_for(lambda: relay.of(Finished))
        (end,) = relay.of(Finished)
        assert end.usage.completion_tokens == 40

    async def test_before_it_serves_keeps_it_out_of_every_route(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        relay.answers[Hello] = None
        running = await start(config)
        await relay.wait_for(lambda: relay.of(Hello))
        running.node.set_pause("it is late")
        del relay.answers[Hello]
        await relay.say_goodbye(Unavailable("try again", retry_after=0.0))
        await relay.wait_until_serving()
        assert is_pause(last_before_ready(relay))

    async def test_outlives_a_lost_link(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        running.node.set_pause("it is late")
        await relay.wait_for(lambda: relay.of(Heartbeat))
        await relay.connections[-1].close(1012)
        await relay.wait_until_serving(times=2)
        assert is_pause(last_before_ready(relay))
        running.node.set_pause(None)
        await relay.wait_for(lambda: pauses(relay)[-1] is False)

    async def test_does_not_keep_it_from_leaving(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        running.node.set_pause("it is late")
        await running.leave()


def last_before_ready(relay: ScriptedRelay) -> FromPeer:
    """What it said before it last became ready."""
    ready = max(index for index, message in enumerate(relay.messages) if isinstance(message, Ready))
    return relay.messages[ready - 1]


def is_pause(message: FromPeer) -> bool:
    """Whatever else it says: the session of the probe may still be open."""
    return isinstance(message, Heartbeat) and message.paused is True
