"""A volunteer's way in, what it serves, and what it does when things break, against a scripted relay."""

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.processes import free_port
from corolla.models.errors import ModelNotFound
from schema.errors import (
    CorollaError,
    JoinRefused,
    KVCacheFull,
    NotServing,
    Unauthorized,
    Unavailable,
    Unresponsive,
)
from schema.frames import Frame, FrameType
from schema.ids import SessionId, Span, new_session_id
from schema.messages import (
    Assignment,
    Delta,
    Failed,
    Finished,
    Heartbeat,
    Hello,
    Loaded,
    Offer,
    Probe,
    Progress,
    Quarantined,
    Ready,
    Restored,
    decode_failure,
)
from schema.routes import Hop
from schema.tensors import decode_tensors
from tests.corolla.fakes import BELLIS, ME, route_of, until
from tests.corolla.tiny_text import SHAPE
from tests.volunteer.nodes import SERVED, Start, closing, generate, grant_route, whole, work
from tests.volunteer.scripted_relay import ScriptedRelay
from volunteer.config import Config, ModelChoice
from volunteer.loading import Candidate, DeviceTooSmall
from volunteer.retrying import MAX_BACKOFF_SECONDS, backoff, is_hopeless

STEPS_IN = [
    "relay reached",
    "span given: blocks 0:2 of tiny",
    "weights loaded",
    "probe passed",
    "serving blocks 0:2 of tiny",
]


class TestTheWayIn:
    async def test_goes_step_by_step(self, relay: ScriptedRelay, config: Config, start: Start) -> None:
        await start(config)
        await relay.wait_until_serving()
        kinds = [type(message) for message in relay.messages if not isinstance(message, Progress)]
        assert kinds == [Hello, Offer, Loaded, Ready]

    async def test_is_followed_by_further_probes(
        self, relay: ScriptedRelay, config: Config, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await start(config)
        await relay.wait_until_serving()
        await until(lambda: "serving blocks" in caplog.text)
        session = new_session_id()
        hop = Hop(ME, Span(0, 2))
        await relay.send(Probe(session=session.hex(), route=route_of(hop, session=session)))
        await relay.wait_until_serving(times=2)
        assert relay.of(Ready)[-1].session == session.hex()

    async def test_is_told_in_order(
        self, relay: ScriptedRelay, config: Config, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        running = await start(config)
        await relay.wait_until_serving()
        await running.leave()
        told = [record.message for record in caplog.records if record.name == "volunteer.node"]
        steps = [next((step for step in STEPS_IN if line.startswith(step)), line) for line in told]
        assert steps[: len(STEPS_IN)] == STEPS_IN
        assert relay.url in told[0]

    async def test_says_how_far_the_loading_is(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(config)
        await relay.wait_until_serving()
        last = relay.of(Progress)[-1]
        assert (last.phase, last.done) == ("loading", last.total)

    async def test_ends_with_the_reason_when_no_model_can_be_served(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        gone = (ModelChoice("tiny", "/no/such/folder"),)
        error = await (await start(replace(config, models=gone))).error()
        assert isinstance(error, ModelNotFound)
        await relay.wait_for(lambda: relay.of(Failed))
        assert relay.of(Failed)[0].error.code == "model_not_found"

    @pytest.mark.parametrize(
        ("asked", "error"),
        [(Hello, Unauthorized("who are you")), (Offer, JoinRefused("blocks 9:12 are not in 'tiny'"))],
    )
    async def test_ends_with_the_relays_reason_where_that_is_final(
        self, relay: ScriptedRelay, config: Config, start: Start, asked: type, error: CorollaError
    ) -> None:
        relay.answers[asked] = error
        ended = await (await start(config)).error()
        assert (type(ended), ended.message) == (type(error), error.message)

    @pytest.mark.parametrize(
        "assignment",
        [
            Assignment(model="other", start=0, end=2, head=False),
            Assignment(model="tiny", start=2, end=99, head=False),
        ],
    )
    async def test_ends_by_name_when_the_assignment_cannot_be(
        self, relay: ScriptedRelay, config: Config, start: Start, assignment: Assignment
    ) -> None:
        relay.assignment = assignment
        assert is_hopeless(await (await start(config)).error())


class TestWhatBreaks:
    async def test_a_relay_that_is_away_is_tried_again(
        self,
        config: Config,
        start: Start,
        caplog: pytest.LogCaptureFixture,
        at_once: list[int],
    ) -> None:
        running = await start(replace(config, relay_url=f"http://127.0.0.1:{free_port()}"))
        await until(lambda: len(at_once) >= 3)
        await running.leave()
        assert at_once[:3] == [1, 2, 3]
        assert "no relay answers" in caplog.text
        assert "trying again" in caplog.text

    async def test_a_lost_link_brings_the_same_span_back_without_loading_it_again(
        self,
        relay: ScriptedRelay,
        config: Config,
        start: Start,
        caplog: pytest.LogCaptureFixture,
        at_once: list[int],
    ) -> None:
        caplog.set_level(logging.INFO)
        await start(config)
        await relay.wait_until_serving()
        await relay.connections[-1].close(1012)
        await relay.wait_until_serving(times=2)
        first, second = relay.of(Offer)
        assert (first.models[0].wanted_start, second.models[0].wanted_start) == (None, 0)
        assert (second.models[0].wanted_end, second.models[0].max_blocks) == (2, 2)
        assert relay.of(Hello)[0].instance == relay.of(Hello)[1].instance
        assert caplog.text.count("weights loaded") == 1

    async def test_a_lost_link_needs_no_model_files_to_come_back(
        self,
        relay: ScriptedRelay,
        config: Config,
        start: Start,
        monkeypatch: pytest.MonkeyPatch,
        at_once: list[int],
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()

        def gone(_: object) -> list[Candidate]:
            raise ModelNotFound("the disk is away")

        monkeypatch.setattr(running.loader, "consider", gone)
        await relay.connections[-1].close(1012)
        await relay.wait_until_serving(times=2)

    async def test_a_link_lost_while_loading_does_not_begin_the_loading_anew(
        self,
        relay: ScriptedRelay,
        config: Config,
        start: Start,
        caplog: pytest.LogCaptureFixture,
        at_once: list[int],
    ) -> None:
        caplog.set_level(logging.INFO)
        running = await start(config)
        running.loader.gate.clear()
        await running.loader.entered.wait()
        await relay.connections[-1].close(1012)
        await relay.wait_for(lambda: len(relay.of(Hello)) == 2)
        running.loader.gate.set()
        await relay.wait_until_serving()
        assert relay.of(Offer)[1].models[0].wanted_end == 2
        assert caplog.text.count("weights loaded") == 1

    async def test_failures_count_until_it_serves(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        relay.answers[Offer] = Unavailable("the database is away")
        await start(config)
        await relay.wait_for(lambda: len(relay.of(Offer)) == 3)
        del relay.answers[Offer]
        await relay.wait_until_serving()
        served = len(at_once)
        await relay.say_goodbye(Unresponsive("nothing was heard"))
        await relay.wait_until_serving(times=2)
        assert at_once[:served] == list(range(1, served + 1))
        assert at_once[served] == 1

    async def test_a_lost_link_frees_the_sessions_that_were_served(
        self, relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
    ) -> None:
        running = await start(config)
        await relay.wait_until_serving()
        await relay.send(work(new_session_id()))
        await running.wait_for_sessions(1)
        await relay.connections[-1].close(1012)
        await running.wait_for_sessions(0)
        assert running.device.stats().kv_used == 0

    async def test_a_load_that_does_not_fit_is_final(self) -> None:
        assert is_hopeless(DeviceTooSmall("it does not fit"))
        assert not is_hopeless(KVCacheFull("later"))


class TestServing:
    async def test_a_step_goes_on_to_its_next_stop(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: relay.frames)
        (answer,) = relay.frames
        assert (answer.type, answer.hop, answer.session) == (FrameType.STEP, 1, session)
        assert decode_tensors(answer.payload)[0].shape == (1, 1, SHAPE.hidden)

    async def test_its_owner_reads_what_an_operator_decides_and_it_serves_on(
        self, relay: ScriptedRelay, config: Config, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await start(config)
        await relay.wait_until_serving()
        assert relay.of(Hello)[0].hears_operators is True
        await relay.send(Quarantined(reason="its replies are nonsense"))
        await relay.send(Restored(reason="mended"))
        await relay.send(work(new_session_id()))
        await relay.wait_for(lambda: relay.frames)
        assert "out of new routes: its replies are nonsense" in caplog.text
        assert "in routes again: mended" in caplog.text

    async def test_what_the_last_hop_was_asked_for_is_not_asked_of_others(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        route = route_of(Hop(ME, SERVED), Hop(BELLIS, Span(2, 4)), session=session, origin=BELLIS)
        await relay.send(work(session)._replace(route=route))
        await relay.wait_for(lambda: relay.frames)
        assert decode_tensors(relay.frames[0].payload)[0].shape == (1, 3, SHAPE.hidden)

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            pytest.param(work(SessionId(b"1" * 16), span=Span(0, 4)), "not_serving", id="other blocks"),
            pytest.param(work(SessionId(b"2" * 16), position=7), "session_unknown", id="no such session"),
            pytest.param(work(SessionId(b"3" * 16))._replace(payload=b"x"), "malformed_tensor", id="garbage"),
        ],
    )
    async def test_a_step_that_cannot_be_computed_is_failed_by_name(
        self, relay: ScriptedRelay, config: Config, start: Start, frame: Frame, code: str
    ) -> None:
        await start(config)
        await relay.wait_until_serving()
        await relay.send(frame)
        await relay.wait_for(lambda: relay.frames)
        (answer,) = relay.frames
        assert answer.type == FrameType.FAILURE
        assert decode_failure(answer.payload).code == code

    async def test_heartbeats_say_how_many_sessions_there_are(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        relay.heartbeat_seconds = 0.5  # three of them without a word end the link: the test is faster
        await start(config)
        await relay.wait_until_serving()
        session = new_session_id()
        await relay.send(work(session))
        await relay.wait_for(lambda: any(beat.sessions == 1 and beat.kv_used for beat in relay.of(Heartbeat)))
        await relay.send(closing(session))
        await relay.wait_for(lambda: relay.of(Heartbeat)[-1].sessions == 0)

    async def test_a_head_that_was_assigned_writes_replies(
        self, relay: ScriptedRelay, config: Config, start: Start
    ) -> None:
        await start(whole(relay, config))
        await relay.wait_until_serving()
        await relay.send(generate(max_tokens=5))
        await grant_route(relay)
        await relay.wait_for(lambda: relay.of(Finished))
        assert relay.of(Delta)
        assert relay.frames == []  # all of it on this very volunteer


class TestBackoff:
    @given(st.integers(1, 10_000), st.none() | st.floats(0, 1e9), st.floats(0, 1))
    def test_is_bounded(self, failures: int, retry_after: float | None, jitter: float) -> None:
        assert 0 < backoff(failures, retry_after, jitter) <= MAX_BACKOFF_SECONDS

    def test_doubles(self) -> None:
        assert [backoff(failures, None, 1.0) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]

    def test_waits_as_long_as_it_was_told(self) -> None:
        assert backoff(1, 10.0, 1.0) == 10.0

    def test_spreads_those_who_were_cut_off_together(self) -> None:
        assert [backoff(1, 10.0, jitter) for jitter in (0.0, 0.5, 1.0)] == [5.0, 7.5, 10.0]


def test_a_final_error_of_the_link_is_hopeless() -> None:
    assert is_hopeless(Unauthorized("no"))
    assert not is_hopeless(NotServing("later"))
