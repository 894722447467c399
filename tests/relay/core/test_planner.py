"""relay/planner.py: a route covers what is wanted with the fewest hops, and gaps are told in words."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.planner import PREFERRED_SESSIONS, Holder, Wishes, describe_gaps, missing_blocks, plan_route
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


def peers_of(hops: Sequence[Hop]) -> list[PeerId]:
    return [hop.peer for hop in hops]


@st.composite
def spans(draw: st.DrawFn, blocks: int = BLOCKS) -> Span:
    start = draw(st.integers(0, blocks - 1))
    return Span(start, draw(st.integers(start + 1, blocks)))


@st.composite
def swarms(draw: st.DrawFn) -> list[Holder]:
    """Up to seven volunteers, the driver's own perhaps among them, with any load."""
    found = draw(st.lists(st.tuples(spans(), st.integers(0, 2000)), max_size=7))
    holders = [Holder(peer(number), span, sessions) for number, (span, sessions) in enumerate(found)]
    if holders and draw(st.booleans()):
        holders[0] = Holder(DRIVER, holders[0].span, holders[0].sessions)
    return holders


def chains(holders: Sequence[Holder], start: int, end: int) -> Iterator[list[Holder]]:
    """Every way of covering `[start, end)`, each volunteer used at most once and to any of its blocks."""
    if start >= end:
        yield []
        return
    for one in holders:
        if one.span.start <= start < one.span.end:
            rest = [other for other in holders if other is not one]
            for reached in range(start + 1, one.span.end + 1):
                for chain in chains(rest, reached, end):
                    yield [one, *chain]


def cost(chain: Sequence[Holder]) -> tuple[int, int, int]:
    """Hops; among equals, those elsewhere than at the driver; among equals, load."""
    return (
        len(chain),
        sum(one.peer != DRIVER for one in chain),
        sum(one.sessions for one in chain),
    )


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
def test_no_other_route_is_cheaper(holders: list[Holder], wanted: Span) -> None:
    assume(not missing_blocks(holders, wanted))
    by_peer = {one.peer: one for one in holders}
    planned = [by_peer[hop.peer] for hop in plan_route(holders, wanted, DRIVER)]
    assert cost(planned) == min(cost(chain) for chain in chains(holders, wanted.start, wanted.end))


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


@given(swarms())
def test_the_same_swarm_gives_the_same_route(holders: list[Holder]) -> None:
    assume(not missing_blocks(holders, WHOLE))
    assert plan_route(holders, WHOLE, DRIVER) == plan_route(iter(holders), WHOLE, DRIVER)


# ---- single promises ----


def test_one_volunteer_with_everything_is_better_than_two_with_halves() -> None:
    holders = [holder(1, 0, 3), holder(2, 3, 6), holder(3, 0, 6)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [peer(3)]


def test_no_load_is_worth_another_hop() -> None:
    five_busy = [(0, 3), (3, 5), (5, 7), (7, 9), (9, 12)]
    six_idle = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    holders = [holder(start, start, end, sessions=10**6) for start, end in five_busy]
    holders += [holder(100 + start, start, end) for start, end in six_idle]
    assert len(plan_route(holders, Span(0, 12), DRIVER)) == 5


def test_among_equals_the_drivers_own_volunteer_is_taken() -> None:
    holders = [holder(1, 0, 6), Holder(DRIVER, WHOLE, sessions=1000)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [DRIVER]


def test_the_drivers_own_volunteer_is_not_worth_another_hop() -> None:
    holders = [Holder(DRIVER, Span(0, 3)), holder(1, 3, 6), holder(2, 0, 6)]
    assert peers_of(plan_route(holders, WHOLE, DRIVER)) == [peer(2)]


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
    assert used(PREFERRED_SESSIONS + 1) == [peer(1)]


@given(swarms(), spans(), st.data())
def test_a_wish_costs_no_hop_and_no_way(holders: list[Holder], wanted: Span, data: st.DataObject) -> None:
    assume(not missing_blocks(holders, wanted))
    wishes = Wishes(prefer=frozenset(one.peer for one in holders if data.draw(st.booleans())))
    with_wishes = peers_of(plan_route(holders, wanted, DRIVER, wishes))
    without = peers_of(plan_route(holders, wanted, DRIVER))
    assert (len(with_wishes), with_wishes.count(DRIVER)) == (len(without), without.count(DRIVER))


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
