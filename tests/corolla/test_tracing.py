"""Where a step's time went: the arithmetic, and a session that is told by its hops."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.exchange import Exchange
from corolla.session import RemoteSession, open_session
from corolla.tracing import MOST_OPEN, TRACED_STEPS, Report, RouteTimes, Share, shares
from schema.frames import Flags, Frame, FrameType
from schema.trace import HopTrace, encode_trace
from tests.corolla.fakes import Hops, deliver, hidden, returned

SMALL = st.floats(0.0, 1.0)
STEP, PREFILL = FrameType.STEP, FrameType.PREFILL


class Clock:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def journey(drivers_way: float, hops: list[tuple[float, HopTrace]]) -> tuple[float, list[Report]]:
    """A step that begins at 0 over a network that is never late: when it is back, and what the hops say.

    `drivers_way`, and each hop's first figure: seconds from there to the relay, and back as long.
    """
    at, reports = drivers_way, list[Report]()
    for way, trace in hops:
        at += way + sum(trace) + way
        reports.append(Report(at + drivers_way, trace))
    return at + drivers_way, reports


class TestShares:
    def test_each_hops_wire_is_its_way_to_the_relay_and_back_and_the_firsts_has_the_drivers_too(self) -> None:
        traces = [HopTrace(0.001, 0.02), HopTrace(0.0, 0.03), HopTrace(0.004, 0.01)]
        answered, reports = journey(0.05, list(zip((0.01, 0.1, 0.02), traces, strict=True)))
        found = shares(0.0, answered, reports)
        assert found is not None
        assert [share.wire for share in found] == pytest.approx([0.02 + 0.1, 0.2, 0.04])
        assert [(share.queue, share.compute) for share in found] == traces

    @given(st.lists(st.tuples(SMALL, st.builds(HopTrace, SMALL, SMALL)), min_size=1, max_size=8), SMALL)
    def test_all_together_are_the_whole_step(
        self, hops: list[tuple[float, HopTrace]], drivers_way: float
    ) -> None:
        answered, reports = journey(drivers_way, hops)
        found = shares(0.0, answered + 1e-6, reports)
        assert found is not None
        assert sum(map(sum, found)) == pytest.approx(answered, abs=1e-5)

    @given(
        st.lists(
            st.builds(Report, st.floats(-5, 50), st.builds(HopTrace, SMALL, SMALL)), min_size=1, max_size=8
        ),
        st.floats(0.0, 20.0),
    )
    def test_whatever_comes_late_or_early_they_are_never_more_and_never_less_than_nothing(
        self, reports: list[Report], answered: float
    ) -> None:
        found = shares(0.0, answered, reports)
        if found is None:
            assert sum(sum(report.trace) for report in reports) > answered
        else:
            assert sum(map(sum, found)) <= answered * (1 + 1e-9) + 1e-12
            assert all(part >= 0 for share in found for part in share)

    def test_hops_that_say_they_took_longer_than_the_step_are_not_believed(self) -> None:
        assert shares(0.0, 1.0, [Report(0.5, HopTrace(0.0, 0.6)), Report(1.0, HopTrace(0.0, 0.6))]) is None


class TestRouteTimes:
    def test_every_slice_and_few_decode_steps_are_marked(self, clock: Clock) -> None:
        times = RouteTimes(1, clock)
        assert all(times.is_due(PREFILL, step) for step in range(3))
        due = [step for step in range(3, 3 + 3 * TRACED_STEPS) if times.is_due(STEP, step)]
        assert due == [4, 4 + TRACED_STEPS, 4 + 2 * TRACED_STEPS]
        assert times.is_due(STEP, 4)  # asked again: it was not sent
        assert not times.is_due(FrameType.FORWARD, 4)

    def test_means_are_over_the_steps_of_a_kind(self, clock: Clock) -> None:
        times = RouteTimes(1, clock)
        for step, (kind, compute, wire) in enumerate(
            [(STEP, 1.0, 0.5), (STEP, 3.0, 1.5), (PREFILL, 9.0, 0.0)]
        ):
            times.sent(kind, step)
            clock.now += compute + wire
            times.answered(step)
            times.reported(step, 0, HopTrace(0.0, compute))
        assert times.decode() == [(pytest.approx(Share(2.0, 0.0, 1.0)), 2)]
        assert times.prefill() == [(pytest.approx(Share(9.0, 0.0, 0.0)), 1)]

    @pytest.mark.parametrize(
        "said", [(), (0,), (0, 2), (0, 0)], ids=["nobody", "one", "a stranger", "one twice"]
    )
    def test_a_step_of_which_not_all_hops_tell_counts_for_nothing(
        self, clock: Clock, said: tuple[int, ...]
    ) -> None:
        times = RouteTimes(2, clock)
        times.sent(STEP, 1)
        for hop in said:
            times.reported(1, hop, HopTrace(0.0, 0.0))
        times.answered(1)
        assert times.decode() == []

    def test_steps_that_are_never_told_of_do_not_pile_up(self, clock: Clock) -> None:
        times = RouteTimes(1, clock)
        for step in range(3 * MOST_OPEN):
            times.sent(STEP, step)
        assert len(times._open) == MOST_OPEN

    def test_a_step_that_was_not_sent_after_all_is_forgotten(self, clock: Clock) -> None:
        times = RouteTimes(1, clock)
        times.sent(STEP, 1)
        times.forget(1)
        times.answered(1)
        times.reported(1, 0, HopTrace(0.0, 0.0))
        assert times.decode() == []

    def test_a_prepared_step_begins_when_it_is_launched(self, clock: Clock) -> None:
        times, sent = RouteTimes(1, clock), list[bytes]()
        launch = times.timed(STEP, 1, sent.append)
        clock.now += 10
        launch(b"x")
        clock.now += 1
        times.answered(1)
        times.reported(1, 0, HopTrace(0.25, 0.5))
        assert (times.decode(), sent) == ([(pytest.approx(Share(0.5, 0.25, 0.25)), 1)], [b"x"])


class TestSessions:
    """Driven over hops that say how long they took, or do not."""

    @pytest.fixture
    def exchange(self) -> Exchange:
        return Exchange()

    @pytest.fixture
    def hops(self, exchange: Exchange) -> Hops:
        return Hops(exchange)

    async def decode(self, session: RemoteSession, count: int) -> None:
        await session.prefill([hidden(4)])
        for _ in range(count):
            await session.decode(hidden())

    def telling(self, exchange: Exchange, hops: Hops, *payloads: bytes) -> Callable[[Frame], Frame]:
        """An answer to a step of which each hop tells something first."""

        def answer(frame: Frame) -> Frame:
            if frame.flags & Flags.TIMED:
                for hop, payload in enumerate(payloads):
                    deliver(exchange, frame._replace(type=FrameType.TRACE, hop=hop, payload=payload, flags=0))
            return returned(frame, bytes(frame.payload))

        return answer

    async def test_what_hops_say_is_known_at_the_end(self, exchange: Exchange, hops: Hops) -> None:
        nothing = encode_trace(HopTrace(0.0, 0.0))
        hops.by_kind = {STEP: self.telling(exchange, hops, nothing, nothing)}
        async with await open_session(exchange, "tiny") as session:
            await self.decode(session, 2 * TRACED_STEPS)
            (first, steps), (second, _) = session.times.decode()
            assert (steps, first.compute, second.queue) == (2, 0.0, 0.0)
            assert session.times.prefill() == []  # of which they have said nothing
        decoded = [frame for frame in hops.frames if frame.type == STEP]
        assert [bool(frame.flags & Flags.TIMED) for frame in decoded].count(True) == 2

    @pytest.mark.parametrize("payload", [b"", b"\xff" * 8, b"x" * 9], ids=["nothing", "an hour", "too much"])
    async def test_hops_that_say_nonsense_break_nothing(
        self, exchange: Exchange, hops: Hops, payload: bytes
    ) -> None:
        hops.by_kind = {STEP: self.telling(exchange, hops, payload, payload)}
        async with await open_session(exchange, "tiny") as session:
            await self.decode(session, 3)
            assert session.times.decode() == []
