"""relay/rebalancing.py: a move brings more than it costs, opens no hole, and nothing goes in circles."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rebalancing import (
    LEAST_GAIN,
    PATIENCE_SECONDS,
    SETTLE_SECONDS,
    LastMove,
    Move,
    Resident,
    members_of,
    next_move,
    places,
)
from relay.throughputs import holes, strength, throughputs, with_span
from schema.ids import PeerId, Span
from tests.relay.core.peers import FACTS

BLOCKS = FACTS.blocks
NOW = 10_000.0
HUGE = msgspec.structs.replace(FACTS, parameters=10**13)
"""A model whose blocks take days to download."""


def peer(number: int) -> PeerId:
    return PeerId(f"{number:016x}")


def resident(number: int, start: int, end: int, speed: float = 100.0, *, moves: bool = True) -> Resident:
    return Resident(peer(number), Span(start, end), speed, room=end - start if moves else None)


@st.composite
def swarms(draw: st.DrawFn) -> list[Resident]:
    found: list[Resident] = []
    for number in range(draw(st.integers(1, 7))):
        start = draw(st.integers(0, BLOCKS - 1))
        span = Span(start, draw(st.integers(start + 1, BLOCKS)))
        room = draw(st.none() | st.integers(1, BLOCKS))
        speed = draw(st.sampled_from([0.0, 1.0, 50.0, 100.0]) | st.floats(1, 1000))
        settled_at = draw(st.sampled_from([0.0, NOW - 1]))
        found.append(Resident(peer(number), span, speed, room, (), settled_at, draw(st.booleans())))
    return found


def after(residents: list[Resident], move: Move) -> list[Resident]:
    return [replace(one, span=move.after) if one.peer == move.peer else one for one in residents]


def each(residents: list[Resident]) -> list[float]:
    """As one that has measured would be counted: of the others nobody knows."""
    return throughputs(BLOCKS, ((one.span, one.blocks_per_second or 1.0) for one in residents))


def due(residents: list[Resident], last: LastMove | None = None) -> Move | None:
    return next_move(residents, FACTS, last, NOW)


def last_move(residents: list[Resident], number: int = 99, at: float = NOW - 60) -> LastMove:
    return LastMove(peer(number), at, members_of(residents))


# ---- what is promised for every swarm ----


@given(swarms())
def test_only_who_may_be_moved_is_moved_and_to_as_many_blocks_as_it_has_room_for(
    residents: list[Resident],
) -> None:
    move = due(residents)
    if move is None:
        return
    (one,) = [one for one in residents if one.peer == move.peer]
    assert one.is_serving
    assert one.room is not None
    assert len(move.after) == min(one.room, BLOCKS)
    assert move.after != move.before == one.span


@given(swarms())
def test_no_move_opens_a_hole_in_a_complete_model(some: list[Resident]) -> None:
    residents = [*some, resident(50, 0, 5), resident(51, 3, 8)]
    move = due(residents)
    if move is not None:
        assert not holes(each([one for one in residents if one.peer != move.peer]))
        assert not holes(each(after(residents, move)))


@given(swarms())
def test_a_move_makes_an_incomplete_model_less_so_and_a_complete_one_stronger(
    residents: list[Resident],
) -> None:
    measured = [replace(one, blocks_per_second=one.blocks_per_second or 1.0) for one in residents]
    move = due(measured)
    if move is None:
        return
    before, then = each(measured), each(after(measured, move))
    if holes(before):
        assert holes(then) < holes(before)
    else:
        assert min(then) >= min(before) * (1 - 1e-9)
        assert strength(then) >= (1 + LEAST_GAIN) * strength(before)


@given(swarms())
def test_moves_come_to_an_end_and_none_goes_back(residents: list[Resident]) -> None:
    seen: set[tuple[Span, ...]] = set()
    last: LastMove | None = None
    for _ in range(10 * BLOCKS):
        spans = tuple(one.span for one in residents)
        assert spans not in seen, "the swarm is as it was before"
        seen.add(spans)
        move = due(residents, last)
        if move is None:
            return
        last = last_move(residents, number=int(move.peer, 16))
        residents = after(residents, move)
    raise AssertionError("it went on for ever")


@given(swarms(), st.data())
def test_one_death_moves_one_survivor_at_most_where_no_hole_is_left(
    residents: list[Resident], data: st.DataObject
) -> None:
    dead = data.draw(st.sampled_from(residents))
    survivors = [*(one for one in residents if one is not dead), resident(50, 0, 5), resident(51, 3, 8)]
    move = due(survivors, last_move(residents))
    if move is None:
        return
    moved = after(survivors, move)
    if not holes(each(moved)):
        assert due(moved, last_move(survivors, number=int(move.peer, 16))) is None


# ---- single promises ----


def test_a_hole_is_filled_by_whoever_leaves_the_model_strongest() -> None:
    swarm = [resident(1, 0, 4, 40.0), resident(2, 0, 4, 100.0), resident(3, 0, 4, 80.0)]
    move = due(swarm)
    assert move is not None
    assert (move.peer, move.after) == (peer(2), Span(4, 8))


def test_nobody_leaves_a_hole_for_a_hole() -> None:
    assert due([resident(1, 0, 4)]) is None
    assert due([resident(1, 0, 4), resident(2, 0, 4, moves=False)]) is not None


def test_nobody_leaves_blocks_that_nobody_else_holds_however_much_that_would_bring() -> None:
    alone = replace(resident(1, 0, 4, 400.0), room=8)
    assert due([alone, resident(2, 4, 8, 10.0, moves=False)]) is None
    move = due([alone, resident(2, 4, 8, 10.0, moves=False), resident(3, 0, 4, 1.0, moves=False)])
    assert move is not None
    assert move.after == Span(0, 8)


def test_a_weak_place_is_strengthened_from_a_strong_one() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(4)), resident(9, 4, 8)]
    move = due(swarm)
    assert move is not None
    assert move.after == Span(4, 8)


def test_a_balanced_swarm_stays_as_it_is() -> None:
    assert due([resident(number, 4 * (number % 2), 4 * (number % 2) + 4) for number in range(6)]) is None


def test_a_pinned_volunteer_is_never_moved() -> None:
    assert due([resident(number, 0, 4, moves=False) for number in range(3)]) is None


def test_a_gain_that_the_download_would_cost_more_than_is_let_go() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(4)), resident(9, 4, 8)]
    assert next_move(swarm, HUGE, None, NOW) is None


def test_what_is_on_disk_need_not_be_downloaded() -> None:
    large = msgspec.structs.replace(FACTS, parameters=10**12)
    swarm = [*(resident(number, 0, 4) for number in range(3)), resident(9, 4, 8)]
    assert next_move(swarm, large, None, NOW) is None
    swarm[1] = replace(swarm[1], cached=(Span(3, 8),))
    move = next_move(swarm, large, None, NOW)
    assert move is not None
    assert (move.peer, move.after) == (peer(1), Span(4, 8))


def test_who_was_just_put_somewhere_stays_a_while() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(4)), resident(9, 4, 8)]
    fresh = [replace(one, settled_at=NOW - SETTLE_SECONDS + 1) for one in swarm]
    assert due(fresh) is None
    assert due([fresh[0], replace(fresh[1], settled_at=0.0), *fresh[2:]]) is not None


def test_a_hole_does_not_wait_for_anybody_to_settle() -> None:
    swarm = [replace(resident(number, 0, 4), settled_at=NOW) for number in range(2)]
    assert due(swarm) is not None


def test_the_next_move_waits_for_the_last_one_and_not_for_ever() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(4)), resident(9, 4, 8)]
    moving = [*swarm, replace(resident(10, 4, 8), is_serving=False)]
    changed = LastMove(peer(10), NOW - 60, "others were there")
    assert due(moving[:4] + moving[4:], changed) is None
    forgotten = changed._replace(at=NOW - PATIENCE_SECONDS)
    strong = [*(resident(number, 0, 4) for number in range(8)), *moving[4:]]
    assert due(strong, forgotten) is not None


@pytest.mark.parametrize("joins", [True, False])
def test_while_the_same_volunteers_are_there_nobody_moves_twice(joins: bool) -> None:
    swarm = [*(resident(number, 0, 4) for number in range(8)), resident(9, 4, 8)]
    assert due(swarm, last_move(swarm)) is None
    other = [*swarm, resident(10, 0, 4)] if joins else swarm[1:]
    assert due(other, last_move(swarm)) is not None


@given(
    st.lists(st.just(0.0) | st.floats(1e-3, 1e4), min_size=1, max_size=10), st.floats(1e-2, 1e4), st.data()
)
def test_every_place_is_weighed_as_if_it_were_looked_at_alone(
    each: list[float], share: float, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, len(each)))
    for start, place in enumerate(places(each, length, share)):
        then = with_span(each, Span(start, start + length), share)
        assert (place.holes, place.strength) == (holes(then), pytest.approx(strength(then), rel=1e-3))
