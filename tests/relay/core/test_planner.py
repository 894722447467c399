"""relay/planner.py: a step takes the least time on a route, and gaps are told in words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.candidates import Candidates
from relay.planner import NO_WISHES, Wishes, describe_gaps, gaps_in, plan
from relay.prices import PREFERRED_SESSIONS, Holder, price_of
from schema.errors import ModelUnavailable
from schema.ids import PeerId, Span
from schema.limits import MAX_HOPS
from schema.routes import Hop

BLOCKS = 6
WHOLE = Span(0, BLOCKS)
DRIVER = PeerId("d" * 16)


def peer(number: int) -> PeerId:
    return PeerId(f"{number:016x}")


def holder(number: int, start: int, end: int, sessions: int = 0) -> Holder:
    return Holder(peer(number), Span(start, end), sessions)


def missing_blocks(holders: Iterable[Holder], wanted: Span) -> list[Span]:
    """The parts of `wanted` that nobody holds, in order."""
    return gaps_in(Candidates(holders).held(), wanted)


def plan_route(
    holders: Iterable[Holder], wanted: Span, origin: PeerId, wishes: Wishes = NO_WISHES
) -> tuple[Hop, ...]:
    """As `plan`, the hops alone."""
    return plan(Candidates(holders), wanted, origin, wishes).hops


def peers_of(hops: Sequence[Hop]) -> list[PeerId]:
    return [hop.peer for hop in hops]


@st.composite
def spans(draw: st.DrawFn, blocks: int = BLOCKS) -> Span:
    start = draw(st.integers(0, blocks - 1))
    return Span(start, draw(st.integers(start + 1, blocks)))


@st.composite
def swarms(draw: st.DrawFn) -> list[Holder]:
    """Up to six volunteers, the driver's own perhaps among them, of any speed, load, distance and score."""
    holders: list[Holder] = []
    for number in range(draw(st.integers(0, 6))):
        is_own = number == 0 and draw(st.booleans())
        holders.append(
            Holder(
                DRIVER if is_own else peer(number),
                draw(spans()),
                sessions=draw(st.integers(0, 20)),
                blocks_per_second=draw(st.sampled_from([0.0, 1.0, 10.0, 100.0, 1000.0]) | st.floats(1, 1e4)),
                rtt=draw(st.none() | st.floats(0, 0.5)),
                score=draw(st.floats(0, 1)),
            )
        )
    return holders


def chains(holders: Sequence[Holder], start: int, end: int) -> Iterator[list[tuple[Holder, int]]]:
    """Every way of covering `[start, end)`, each volunteer used at most once and for any of its blocks."""
    if start >= end:
        yield []
        return
    for one in holders:
        if one.span.start <= start < one.span.end:
            rest = [other for other in holders if other is not one]
            for reached in range(start + 1, min(one.span.end, end) + 1):
                for chain in chains(rest, reached, end):
                    yield [(one, reached - start), *chain]


def seconds(chain: Sequence[tuple[Holder, int]]) -> float:
    return sum(price_of(one, is_own=one.peer == DRIVER).of(blocks) for one, blocks in chain)


# ---- what is promised for every swarm ----


@given(swarms(), spans())
def test_a_route_covers_exactly_the_blocks_that_are_wanted(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    hops = plan_route(holders, wanted, DRIVER)
    assert [block for hop in hops for block in range(hop.span.start, hop.span.end)] == list(
        range(wanted.start, wanted.end)
    )


@given(swarms(), spans())
def test_every_hop_holds_the_blocks_that_it_is_given(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    held = {one.peer: one.span for one in holders}
    for hop in plan_route(holders, wanted, DRIVER):
        assert held[hop.peer].start <= hop.span.start < hop.span.end <= held[hop.peer].end


@given(swarms(), spans())
def test_no_other_route_takes_less_than_a_tenth_less(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    by_peer = {one.peer: one for one in holders}
    planned = [(by_peer[hop.peer], len(hop.span)) for hop in plan(Candidates(holders), wanted, DRIVER).hops]
    least = min(seconds(chain) for chain in chains(holders, wanted.start, wanted.end))
    assert seconds(planned) <= 1.1 * least


@given(swarms(), spans())
def test_the_seconds_told_are_those_of_the_route(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    found = plan(Candidates(holders), wanted, DRIVER)
    by_peer = {one.peer: one for one in holders}
    assert found.seconds == pytest.approx(seconds([(by_peer[hop.peer], len(hop.span)) for hop in found.hops]))


@given(swarms(), spans())
def test_nobody_is_on_a_route_twice(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    peers = peers_of(plan_route(holders, wanted, DRIVER))
    assert len(set(peers)) == len(peers)


@given(swarms(), spans(), st.data())
def test_excluded_volunteers_are_never_used(holders: list[Holder], wanted: Span, data: st.DataObject) -> None:
    excluded = frozenset(one.peer for one in holders if data.draw(st.booleans()))
    left = [one for one in holders if one.peer not in excluded]
    assume(not missing_blocks(left, wanted))
    assert excluded.isdisjoint(peers_of(plan_route(holders, wanted, DRIVER, Wishes(exclude=excluded))))


@given(swarms(), spans())
def test_missing_blocks_are_those_that_nobody_holds(holders: list[Holder], wanted: Span) -> None:
    held = {block for one in holders for block in range(one.span.start, one.span.end)}
    gaps = missing_blocks(holders, wanted)
    told = [block for gap in gaps for block in range(gap.start, gap.end)]
    assert told == [block for block in range(wanted.start, wanted.end) if block not in held]


@given(swarms(), spans())
def test_there_is_a_route_whenever_every_block_has_a_volunteer(holders: list[Holder], wanted: Span) -> None:
    if missing_blocks(holders, wanted):
        with pytest.raises(ModelUnavailable):
            plan_route(holders, wanted, DRIVER)
    else:
        assert plan_route(holders, wanted, DRIVER)


@given(swarms(), st.randoms())
def test_the_same_swarm_gives_the_same_route_in_whatever_order_it_came(
    holders: list[Holder], random: Random
) -> None:
    holders.append(holder(9, *random.choice([(0, 6), (0, 4)])))
    holders.append(holder(8, 3, 6))
    others = random.sample(holders, len(holders))
    assert plan_route(holders, WHOLE, DRIVER) == plan_route(others, WHOLE, DRIVER)


# ---- single promises ----


def test_one_volunteer_with_everything_is_better_than_two_with_halves() -> None:
    holders = [holder(1, 0, 3), holder(2, 3, 6), holder(3, 0, 6)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [peer(3)]


def test_load_is_worth_another_hop_once_waiting_takes_longer_than_the_way() -> None:
    def hops(sessions: int) -> int:
        holders = [replace(holder(1, 0, 6, sessions), rtt=0.05), replace(holder(2, 0, 3), rtt=0.05)]
        return len(plan_route([*holders, replace(holder(3, 3, 6), rtt=0.05)], WHOLE, DRIVER))

    assert (hops(0), hops(2), hops(100)) == (1, 1, 2)


def test_speed_is_worth_another_hop_where_volunteers_are_near_and_not_where_they_are_far() -> None:
    def hops(rtt: float) -> int:
        slow = replace(holder(1, 0, 6), blocks_per_second=50.0, rtt=rtt)
        fast = [replace(holder(n, 3 * n - 6, 3 * n - 3), blocks_per_second=500.0, rtt=rtt) for n in (2, 3)]
        return len(plan_route([slow, *fast], WHOLE, DRIVER))

    assert (hops(0.01), hops(0.2)) == (2, 1)


def test_the_nearer_of_two_is_taken() -> None:
    holders = [replace(holder(1, 0, 6), rtt=0.2), replace(holder(2, 0, 6), rtt=0.02)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [peer(2)]


def test_who_is_trusted_more_is_taken_unless_it_takes_much_longer() -> None:
    def used(speed: float) -> list[PeerId]:
        doubtful = replace(holder(1, 0, 6), blocks_per_second=100.0, score=0.5)
        return peers_of(
            plan_route([doubtful, replace(holder(2, 0, 6), blocks_per_second=speed)], WHOLE, DRIVER)
        )

    assert (used(90.0), used(10.0)) == ([peer(2)], [peer(1)])


def test_a_slow_volunteer_hands_over_in_the_middle_of_its_span_to_a_faster_one() -> None:
    slow = replace(holder(1, 0, 5), blocks_per_second=5.0)
    fast = replace(holder(2, 2, 6), blocks_per_second=500.0)
    assert plan_route([slow, fast], WHOLE, DRIVER) == (
        Hop(peer(1), Span(0, 2)),
        Hop(peer(2), Span(2, 6)),
    )


def test_a_slow_volunteer_is_not_left_and_come_back_to() -> None:
    slow = replace(holder(1, 0, 6), blocks_per_second=1.0, rtt=0.0)
    fast = replace(holder(2, 2, 4), blocks_per_second=1000.0, rtt=0.0)
    assert peers_of(plan_route([slow, fast], WHOLE, DRIVER)) == [peer(1)]


def test_among_equals_the_drivers_own_volunteer_is_taken() -> None:
    holders = [holder(1, 0, 6), Holder(DRIVER, WHOLE, sessions=3)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [DRIVER]


def test_among_equals_the_least_loaded_is_taken() -> None:
    holders = [holder(1, 0, 6, sessions=2), holder(2, 0, 6, sessions=1), holder(3, 0, 6, sessions=3)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [peer(2)]


def test_a_hop_may_use_a_part_of_its_span() -> None:
    hops = plan_route([holder(1, 0, 4), holder(2, 2, 6)], WHOLE, DRIVER)
    assert hops == (Hop(peer(1), Span(0, 4)), Hop(peer(2), Span(4, 6)))


def test_a_route_may_be_over_some_blocks_only() -> None:
    hops = plan_route([holder(1, 0, 6)], Span(2, 3), DRIVER)
    assert hops == (Hop(peer(1), Span(2, 3)),)


def preferred(*numbers: int) -> Wishes:
    return Wishes(prefer=frozenset(map(peer, numbers)))


def test_among_equals_the_preferred_volunteer_is_used() -> None:
    holders = [holder(number, 0, 6, sessions=3) for number in (1, 2, 3)]
    for number in (1, 2, 3):
        assert peers_of(plan_route(holders, WHOLE, DRIVER, preferred(number))) == [peer(number)]


def test_a_preferred_volunteer_may_have_a_few_sessions_more_and_not_many() -> None:
    def used(more: int) -> list[PeerId]:
        return peers_of(plan_route([holder(1, 0, 6), holder(2, 0, 6, more)], WHOLE, DRIVER, preferred(2)))

    assert used(PREFERRED_SESSIONS) == [peer(2)]
    assert used(PREFERRED_SESSIONS + 10) == [peer(1)]


def test_a_preferred_volunteer_may_cost_half_as_much_again_and_not_twice_as_much() -> None:
    def used(rtt: float) -> list[PeerId]:
        holders = [replace(holder(1, 0, 6), rtt=0.1), replace(holder(2, 0, 6), rtt=rtt)]
        return peers_of(plan_route(holders, WHOLE, DRIVER, preferred(2)))

    assert (used(0.15), used(0.4)) == ([peer(2)], [peer(1)])


# ---- thousands ----


def crowd(count: int) -> list[Holder]:
    """Volunteers of a large model, each with another span, speed, load, distance and score."""
    random = Random(5)
    return [
        Holder(
            peer(number),
            Span(start := random.randrange(60), start + random.randint(4, 20)),
            random.randrange(8),
            100 * random.lognormvariate(0, 0.8),
            random.lognormvariate(-3, 0.8),
            random.uniform(0.5, 1),
        )
        for number in range(count)
    ]


def test_among_thousands_a_route_is_as_good_as_when_all_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidates = Candidates(crowd(2000))
    some = plan(candidates, Span(0, 64), DRIVER)
    monkeypatch.setattr("relay.candidates.ENOUGH", 10_000)
    assert some.seconds <= 1.1 * plan(candidates, Span(0, 64), DRIVER).seconds


def test_a_plan_looks_at_a_few_of_thousands() -> None:
    assert len(Candidates(crowd(2000)).best(DRIVER)) < 200


@given(st.data())
def test_what_changes_one_by_one_is_what_is_built_at_once(data: st.DataObject) -> None:
    kept = Candidates()
    now: dict[PeerId, Holder] = {}
    for _ in range(data.draw(st.integers(0, 12))):
        one = holder(
            data.draw(st.integers(0, 4)), *data.draw(spans().map(lambda span: (span.start, span.end)))
        )
        if data.draw(st.booleans()):
            one = replace(one, sessions=data.draw(st.integers(0, 3)))
            kept.put(one)
            now[one.peer] = one
        else:
            kept.drop(one.peer)
            now.pop(one.peer, None)
    fresh = Candidates(now.values())
    assert kept.best(DRIVER) == fresh.best(DRIVER)
    assert missing_blocks(kept.holders(), WHOLE) == missing_blocks(now.values(), WHOLE)


def test_what_is_nothing_new_about_a_volunteer_changes_nothing() -> None:
    """Most heartbeats are that: new prices, and a search in a list of thousands, would be wasted on them."""
    candidates = Candidates([holder(1, 0, 6, sessions=3), holder(2, 0, 6)])
    before = candidates.best(DRIVER)
    candidates.put(holder(1, 0, 6, sessions=3))
    assert all(now is then for now, then in zip(candidates.best(DRIVER), before, strict=True))
    candidates.put(holder(1, 0, 6, sessions=4))
    assert [one.holder.sessions for one in candidates.best(DRIVER)] == [0, 4]


# ---- refusals ----


def test_a_missing_block_is_named_with_when_to_ask_again() -> None:
    with pytest.raises(ModelUnavailable, match="block 3 has no volunteer") as refusal:
        plan_route([holder(1, 0, 3), holder(2, 4, 6)], WHOLE, DRIVER)
    assert refusal.value.retry_after


def test_blocks_of_which_all_volunteers_are_excluded_are_missing() -> None:
    with pytest.raises(ModelUnavailable, match="blocks 0\N{EN DASH}5 have no volunteer"):
        plan_route([holder(1, 0, 6)], WHOLE, DRIVER, Wishes(exclude=frozenset({peer(1)})))


def test_a_route_of_more_hops_than_a_frame_can_carry_is_refused_by_name() -> None:
    holders = [holder(number, number, number + 1) for number in range(MAX_HOPS + 1)]
    with pytest.raises(ModelUnavailable, match=f"at most {MAX_HOPS} hops"):
        plan_route(holders, Span(0, MAX_HOPS + 1), DRIVER)


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ([Span(3, 4)], "block 3 has"),
        ([Span(4, 8)], "blocks 4\N{EN DASH}7 have"),
        ([Span(3, 4), Span(5, 6)], "blocks 3 and 5 have"),
        ([Span(0, 2), Span(4, 5), Span(8, 12)], "blocks 0\N{EN DASH}1, 4 and 8\N{EN DASH}11 have"),
    ],
)
def test_gaps_are_told_in_words_that_count_the_last_block(gaps: list[Span], words: str) -> None:
    assert describe_gaps(gaps) == words
