"""Frames reach whom they are for, in this process or over the link, and what cannot be used does no harm."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.exchange import Exchange
from schema.errors import (
    CorollaError,
    KVCacheFull,
    MalformedTensor,
    ModelUnavailable,
    NotServing,
    PeerGone,
    QueueFull,
    Unauthorized,
    Unavailable,
)
from schema.frames import Flags, Frame, FrameType, encode_frame, parse_header
from schema.ids import PeerId, SessionId, Span, session_at_hop
from schema.messages import ErrorInfo, HopLost, Refused, Serving, decode_failure
from schema.outbox import Urgency
from schema.resuming import Replay, Resume, encode_replay, encode_resume
from schema.routes import Hop
from tests.corolla.fakes import (
    ANEMONE,
    BELLIS,
    CROCUS,
    FAR_AWAY,
    ME,
    SESSION,
    RecordingInbox,
    RecordingLink,
    RecordingServer,
    deliver,
    failure,
    grant_of,
    returned,
    route_of,
    step,
    until,
)

LOCAL_FIRST = (Hop(ME, Span(0, 2)), Hop(ANEMONE, Span(2, 4)))
ALONE = (Hop(ME, Span(0, 4)),)
OTHER = SessionId(b"o" * 16)


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


@pytest.fixture
def server() -> RecordingServer:
    return RecordingServer()


@pytest.fixture
def exchange(link: RecordingLink, server: RecordingServer) -> Exchange:
    """Of a volunteer that serves blocks."""
    made = Exchange()
    made.serve(server)
    made.attach(link)
    return made


@pytest.fixture
def inbox(exchange: Exchange) -> RecordingInbox:
    """A session that is driven here."""
    made = RecordingInbox()
    exchange.open(SESSION, made)
    return made


class TestFramesOut:
    def test_a_step_for_this_very_peer_never_touches_the_link(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer
    ) -> None:
        frame = step(route_of(*LOCAL_FIRST))
        exchange.post(frame)
        assert link.frames == []
        assert [work for work, _ in server.work] == [frame]

    def test_a_probe_goes_over_the_link_even_to_this_very_peer(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer
    ) -> None:
        frame = step(route_of(*ALONE), FrameType.PROBE)
        exchange.post(frame)
        exchange.answer(frame, b"answer")
        assert [sent.hop for sent in link.frames] == [0, 1]
        assert server.work == []

    @pytest.mark.parametrize(
        ("kind", "urgency"), [(FrameType.STEP, Urgency.DECODE), (FrameType.PREFILL, Urgency.PREFILL)]
    )
    def test_a_step_for_another_peer_goes_over_the_link_by_its_urgency(
        self, exchange: Exchange, link: RecordingLink, kind: FrameType, urgency: Urgency
    ) -> None:
        frame = step(route_of(*FAR_AWAY), kind)
        exchange.post(frame)
        assert link.frames == [frame]
        assert link.urgencies == [urgency]

    def test_an_answer_goes_to_the_next_stop(self, exchange: Exchange, link: RecordingLink) -> None:
        frame = step(route_of(*LOCAL_FIRST, origin=BELLIS))
        exchange.answer(frame, b"answer")
        assert link.frames == [frame._replace(hop=1, payload=b"answer")]

    def test_the_last_answer_to_a_session_driven_here_never_touches_the_link(
        self, exchange: Exchange, link: RecordingLink, inbox: RecordingInbox
    ) -> None:
        exchange.answer(step(route_of(*ALONE)), b"answer")
        assert [output.payload for output in inbox.outputs] == [b"answer"]
        assert link.frames == []

    def test_a_failure_goes_to_the_driver_with_its_reason_and_hop(
        self, exchange: Exchange, link: RecordingLink
    ) -> None:
        frame = step(route_of(Hop(ANEMONE, Span(0, 2)), Hop(ME, Span(2, 4)), origin=BELLIS), hop=1)
        exchange.fail(frame, KVCacheFull("no memory", retry_after=3.0))
        (sent,) = link.frames
        told = decode_failure(sent.payload)
        assert (sent.type, sent.hop, sent.session) == (FrameType.FAILURE, 1, SESSION)
        assert (told.code, told.message, told.retry_after, told.hop) == ("kv_cache_full", "no memory", 3.0, 1)

    def test_a_failure_for_a_session_driven_here_never_touches_the_link(
        self, exchange: Exchange, link: RecordingLink, inbox: RecordingInbox
    ) -> None:
        exchange.fail(step(route_of(*LOCAL_FIRST)), NotServing("not these"))
        assert [error.code for error in inbox.failures] == ["not_serving"]
        assert link.frames == []

    def test_what_the_link_refuses_is_raised_by_name(self, exchange: Exchange, link: RecordingLink) -> None:
        link.refusal = QueueFull("full")
        with pytest.raises(QueueFull):
            exchange.post(step(route_of(*FAR_AWAY)))

    def test_without_a_link_nothing_can_be_sent(self, exchange: Exchange) -> None:
        exchange.detach(Unavailable("gone"))
        with pytest.raises(Unavailable):
            exchange.post(step(route_of(*FAR_AWAY)))


class TestWorkOrders:
    def test_say_the_blocks_and_whether_the_output_is_the_drivers(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        hops = (Hop(ME, Span(0, 2)), Hop(ANEMONE, Span(2, 3)), Hop(ME, Span(3, 4)))
        for hop in (0, 2):
            deliver(exchange, step(route_of(*hops, origin=BELLIS), hop=hop))
        assert [(order.span, order.is_last) for _, order in server.work] == [
            (Span(0, 2), False),
            (Span(3, 4), True),
        ]

    def test_name_a_session_by_its_driver_too(self, exchange: Exchange, server: RecordingServer) -> None:
        for origin in (ANEMONE, BELLIS):
            deliver(exchange, step(route_of(*ALONE, origin=origin)))
        assert [order.session for _, order in server.work] == [
            session_at_hop(ANEMONE, SESSION),
            session_at_hop(BELLIS, SESSION),
        ]


class TestClosing:
    def test_frees_the_kv_cache_here_and_on_all_other_hops(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer, inbox: RecordingInbox
    ) -> None:
        route = route_of(*LOCAL_FIRST)
        exchange.close(SESSION, route)
        assert server.closed == [session_at_hop(ME, SESSION)]
        assert [(sent.type, sent.session, sent.route) for sent in link.frames] == [
            (FrameType.CLOSE, SESSION, route)
        ]
        assert link.urgencies == [Urgency.CONTROL]

    def test_may_have_it_kept_on_every_hop(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer, inbox: RecordingInbox
    ) -> None:
        exchange.close(SESSION, route_of(*LOCAL_FIRST), keep=True)
        assert (server.closed, server.kept) == ([], [session_at_hop(ME, SESSION)])
        assert [(sent.type, sent.flags) for sent in link.frames] == [(FrameType.CLOSE, Flags.KEEP)]

    def test_frees_what_was_kept_later(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer, inbox: RecordingInbox
    ) -> None:
        route = route_of(*LOCAL_FIRST)
        exchange.close(SESSION, route, keep=True)
        exchange.release(SESSION, route)
        assert server.closed == server.kept
        assert [sent.flags for sent in link.frames] == [Flags.KEEP, Flags.NONE]

    def test_by_a_driver_elsewhere_may_have_it_kept(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        route = route_of(*ALONE, origin=BELLIS)
        deliver(exchange, Frame(FrameType.CLOSE, 0, SESSION, 0, 0, route, b"", Flags.KEEP))
        assert server.kept == [session_at_hop(BELLIS, SESSION)]

    def test_needs_no_link_when_all_blocks_are_here(
        self, exchange: Exchange, link: RecordingLink, server: RecordingServer, inbox: RecordingInbox
    ) -> None:
        exchange.close(SESSION, route_of(*ALONE))
        assert server.closed == [session_at_hop(ME, SESSION)]
        assert link.frames == []

    def test_frees_the_kv_cache_here_even_without_a_link(
        self, exchange: Exchange, server: RecordingServer, inbox: RecordingInbox
    ) -> None:
        exchange.detach(Unavailable("gone"))
        exchange.close(SESSION, route_of(*LOCAL_FIRST))
        assert server.closed == [session_at_hop(ME, SESSION)]

    def test_raises_nothing_when_the_hops_cannot_be_told(
        self, exchange: Exchange, link: RecordingLink, inbox: RecordingInbox
    ) -> None:
        link.refusal = QueueFull("full")
        exchange.close(SESSION, route_of(*FAR_AWAY))

    def test_twice_is_once(self, exchange: Exchange, link: RecordingLink, inbox: RecordingInbox) -> None:
        exchange.close(SESSION, route_of(*FAR_AWAY))
        exchange.close(SESSION, route_of(*FAR_AWAY))
        assert len(link.frames) == 1

    def test_ends_what_the_session_receives(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        route = route_of(*FAR_AWAY)
        exchange.close(SESSION, route)
        deliver(exchange, returned(step(route), b"late"))
        assert inbox.outputs == []

    def test_by_a_driver_elsewhere_frees_the_kv_cache_that_its_name_says(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        deliver(exchange, Frame(FrameType.CLOSE, 0, SESSION, 0, 0, route_of(*ALONE, origin=BELLIS), b""))
        assert server.closed == [session_at_hop(BELLIS, SESSION)]


class TestForks:
    """Of a session that the hops have kept."""

    def fork(self, payload: bytes = OTHER, origin: PeerId = BELLIS) -> Frame:
        return Frame(FrameType.FORK, 0, SESSION, 0, 5, route_of(*ALONE, origin=origin), payload)

    def test_find_it_under_the_name_of_their_own_driver(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        for origin in (BELLIS, ANEMONE):
            deliver(exchange, self.fork(origin=origin))
        assert [order.forks for _, order in server.work] == [
            session_at_hop(BELLIS, OTHER),
            session_at_hop(ANEMONE, OTHER),
        ]

    def test_that_name_none_are_no_work(self, exchange: Exchange, server: RecordingServer) -> None:
        deliver(exchange, self.fork(payload=OTHER[:-1]))
        assert server.work == []

    def test_are_never_overtaken_by_the_slices_behind_them(
        self, exchange: Exchange, link: RecordingLink
    ) -> None:
        route = route_of(*FAR_AWAY)
        exchange.post(Frame(FrameType.FORK, 0, SESSION, 0, 5, route, OTHER))
        exchange.post(step(route, FrameType.PREFILL))
        assert link.urgencies == [Urgency.PREFILL] * 2


class TestBrokenSessions:
    """That go on over a route of which some stops are new."""

    def resume(self, origin: PeerId, new: frozenset[int]) -> Frame:
        route = route_of(Hop(ME, Span(0, 2)), Hop(CROCUS, Span(2, 4)), origin=origin)
        return Frame(FrameType.RESUME, 0, SESSION, 0, 5, route, encode_resume(Resume(OTHER, new)))

    def replay(self, new: frozenset[int]) -> Frame:
        payload = encode_replay(Replay(new, 7, b"states"))
        return self.resume(BELLIS, new)._replace(type=FrameType.REPLAY, payload=payload)

    def test_are_found_under_the_name_of_their_own_driver(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        for origin in (BELLIS, ANEMONE):
            deliver(exchange, self.resume(origin, frozenset({1})))
        assert [(order.resumes, order.is_next_new) for _, order in server.work] == [
            (session_at_hop(BELLIS, OTHER), True),
            (session_at_hop(ANEMONE, OTHER), True),
        ]

    def test_are_not_looked_for_at_a_stop_that_is_new(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        deliver(exchange, self.resume(BELLIS, frozenset({0})))
        ((_, order),) = server.work
        assert (order.resumes, order.is_next_new) == (None, False)

    @pytest.mark.parametrize(("new", "states"), [(frozenset({0}), b"states"), (frozenset({1}), b"")])
    def test_are_replayed_to_the_stops_that_are_new_alone(
        self, exchange: Exchange, server: RecordingServer, new: frozenset[int], states: bytes
    ) -> None:
        deliver(exchange, self.replay(new))
        ((_, order),) = server.work
        assert order.replay == Replay(new, 7, states)
        assert order.is_next_new is (1 in new)

    @pytest.mark.parametrize("kind", [FrameType.RESUME, FrameType.REPLAY])
    def test_that_name_nothing_are_no_work(
        self, exchange: Exchange, server: RecordingServer, kind: FrameType
    ) -> None:
        deliver(exchange, self.resume(BELLIS, frozenset())._replace(type=kind, payload=b"short"))
        assert server.work == []


class TestFramesIn:
    def test_an_output_reaches_its_session(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        frame = returned(step(route_of(*FAR_AWAY)), b"output")
        deliver(exchange, frame)
        assert inbox.outputs == [frame]

    def test_a_failure_fails_its_session_by_name(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        deliver(exchange, failure(step(route_of(*FAR_AWAY)), KVCacheFull("no memory")))
        assert [(type(error), error.message) for error in inbox.failures] == [(KVCacheFull, "no memory")]

    @pytest.mark.parametrize("kind", [PeerGone, QueueFull, NotServing])
    def test_what_can_happen_to_a_step_keeps_its_name(
        self, exchange: Exchange, inbox: RecordingInbox, kind: type[CorollaError]
    ) -> None:
        deliver(exchange, failure(step(route_of(*FAR_AWAY)), kind("why")))
        assert [type(error) for error in inbox.failures] == [kind]

    def test_a_hop_cannot_blame_another(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        blaming = failure(step(route_of(*FAR_AWAY), hop=1), KVCacheFull("not me"))
        deliver(exchange, blaming._replace(hop=0))  # as the relay has seen it
        assert inbox.failed_hops == [0]

    def test_what_a_hop_could_not_read_is_of_a_wrong_shape(
        self, exchange: Exchange, inbox: RecordingInbox
    ) -> None:
        """Its own code is for readers who break the contract themselves."""
        deliver(exchange, failure(step(route_of(*FAR_AWAY)), MalformedTensor("no list of tensors")))
        assert [error.code for error in inbox.failures] == ["shape_mismatch"]

    @pytest.mark.parametrize("kind", [Unauthorized, CorollaError])
    def test_a_hop_cannot_blame_the_reader(
        self, exchange: Exchange, inbox: RecordingInbox, kind: type[CorollaError]
    ) -> None:
        deliver(exchange, failure(step(route_of(*FAR_AWAY)), kind("your token is wrong")))
        assert [error.code for error in inbox.failures] == ["generation_failed"]

    def test_a_lost_hop_is_told_to_its_session_alone(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        other = RecordingInbox()
        exchange.open(OTHER, other)
        assert exchange.on_message(HopLost(session=SESSION.hex(), peer=ANEMONE))
        assert (inbox.lost, other.lost) == ([ANEMONE], [])

    def test_unknown_sessions_are_ignored(self, exchange: Exchange, inbox: RecordingInbox) -> None:
        frame = step(route_of(*FAR_AWAY, session=OTHER), session=OTHER)
        deliver(exchange, returned(frame, b"output"))
        deliver(exchange, failure(frame, KVCacheFull("no memory")))
        exchange.on_message(HopLost(session=OTHER.hex(), peer=ANEMONE))
        assert (inbox.outputs, inbox.failures, inbox.lost) == ([], [], [])

    def test_messages_about_other_things_are_left_to_others(self, exchange: Exchange) -> None:
        assert not exchange.on_message(Serving())

    def test_a_client_that_serves_nothing_ignores_work(self, link: RecordingLink) -> None:
        exchange = Exchange()
        exchange.attach(link)
        route = route_of(*ALONE, origin=BELLIS)
        deliver(exchange, step(route))
        deliver(exchange, Frame(FrameType.CLOSE, 0, SESSION, 0, 0, route, b""))
        assert link.frames == []

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(step(route_of(*FAR_AWAY), hop=3), id="a stop after the last"),
            pytest.param(step(route_of(*FAR_AWAY), hop=1), id="a stop that is another peer"),
            pytest.param(step(b"no route"), id="a route that is none"),
            pytest.param(
                step(route_of(*FAR_AWAY))._replace(type=FrameType.FAILURE, payload=b"{"),
                id="a failure that cannot be read",
            ),
        ],
    )
    def test_a_frame_that_cannot_be_used_does_no_harm(
        self, exchange: Exchange, server: RecordingServer, inbox: RecordingInbox, frame: Frame
    ) -> None:
        deliver(exchange, frame)
        assert server.work == []
        assert (inbox.outputs, inbox.failures) == ([], [])

    def test_a_frame_that_comes_after_the_link_has_ended_does_no_harm(
        self, exchange: Exchange, server: RecordingServer
    ) -> None:
        exchange.detach(Unavailable("gone"))
        deliver(exchange, step(route_of(*ALONE, origin=BELLIS)))
        assert server.work == []

    @given(
        kind=st.sampled_from(FrameType),
        hop=st.integers(0, 64),
        flags=st.integers(0, 255),
        route=st.one_of(st.binary(max_size=120), st.just(route_of(*FAR_AWAY)), st.just(route_of(*ALONE))),
        payload=st.binary(max_size=200),
    )
    def test_no_frame_whatever_raises(
        self, kind: FrameType, hop: int, flags: int, route: bytes, payload: bytes
    ) -> None:
        exchange = Exchange()
        exchange.serve(RecordingServer())
        exchange.attach(RecordingLink())
        exchange.open(SESSION, RecordingInbox())
        message = encode_frame(Frame(kind, hop, SESSION, 7, 9, route, payload, flags=flags))

        async def arrive() -> None:
            exchange.on_frame(parse_header(message), message)

        asyncio.run(arrive())


class TestRoutes:
    async def test_are_asked_for_and_granted(self, exchange: Exchange, link: RecordingLink) -> None:
        asking = asyncio.create_task(exchange.request_route("tiny", SESSION, frozenset({BELLIS, ANEMONE})))
        await until(lambda: link.messages)
        (request,) = link.messages
        assert (request.model, request.session, request.exclude) == (  # type: ignore[union-attr]
            "tiny",
            SESSION.hex(),
            [ANEMONE, BELLIS],
        )
        grant = grant_of(route_of(*FAR_AWAY), request.request)  # type: ignore[union-attr]
        assert exchange.on_message(grant)
        assert await asking == grant

    async def test_are_refused_by_name(self, exchange: Exchange, link: RecordingLink) -> None:
        asking = asyncio.create_task(exchange.request_route("tiny", SESSION))
        await until(lambda: link.messages)
        gap = ErrorInfo.of(ModelUnavailable("blocks 0-3 have no volunteer", retry_after=5.0))
        assert exchange.on_message(Refused(request="0", error=gap))
        with pytest.raises(ModelUnavailable, match="blocks 0-3") as caught:
            await asking
        assert caught.value.retry_after == 5.0

    async def test_fail_when_the_link_is_lost(self, exchange: Exchange, link: RecordingLink) -> None:
        asking = asyncio.create_task(exchange.request_route("tiny", SESSION))
        await until(lambda: link.messages)
        exchange.detach(Unavailable("the relay has gone"))
        with pytest.raises(Unavailable, match="the relay has gone"):
            await asking

    async def test_fail_at_once_without_a_link(self) -> None:
        with pytest.raises(Unavailable):
            await Exchange().request_route("tiny", SESSION)

    async def test_nobody_waits_for_any_more_are_ignored(
        self, exchange: Exchange, link: RecordingLink
    ) -> None:
        asking = asyncio.create_task(exchange.request_route("tiny", SESSION))
        await until(lambda: link.messages)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        exchange.on_message(grant_of(route_of(*FAR_AWAY), "0"))
        exchange.on_message(Refused(request="1", error=ErrorInfo.of(Unavailable("late"))))


async def test_a_lost_link_fails_every_session_by_name(exchange: Exchange, inbox: RecordingInbox) -> None:
    other = RecordingInbox()
    exchange.open(OTHER, other)
    exchange.detach(Unavailable("the relay has gone"))
    assert [error.code for error in inbox.failures + other.failures] == ["unavailable", "unavailable"]


def test_flags_arrive_as_they_were_sent(exchange: Exchange, server: RecordingServer) -> None:
    deliver(exchange, step(route_of(*ALONE, origin=BELLIS))._replace(flags=Flags.LAST_ONLY))
    assert [work.flags for work, _ in server.work] == [Flags.LAST_ONLY]
