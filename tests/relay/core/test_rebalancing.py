"""relay/rebalancing.py: a move brings more than it costs, opens no hole, and nothing goes in circles."""

from collections import defaultdict
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.chains import moves_ahead
from relay.moves import LastMove, Move, Resident, members_of
from relay.rebalancing import PATIENCE_SECONDS, SETTLE_SECONDS, is_strong_enough, next_move
from relay.records import HeldTogether
from relay.throughputs import holes, places, strength, throughputs, with_span
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


def due(residents: list[Resident], last: list[LastMove] | None = None) -> Move | None:
    return next_move(residents, FACTS, last or [], NOW)


def settled(residents: list[Resident]) -> list[tuple[list[Resident], Move]]:
    """All moves until none is due, each with the swarm before it; nobody comes or goes."""
    made: list[tuple[list[Resident], Move]] = []
    last: list[LastMove] = []
    while (move := due(residents, last)) is not None:
        made.append((residents, move))
        last.insert(0, LastMove(move.peer, NOW, move.members))
        residents = after(residents, move)
        assert len(made) <= BLOCKS + len(residents), "it goes on for ever"
    return made


def together(residents: list[Resident]) -> list[HeldTogether]:
    """As the database puts them together."""
    groups = defaultdict[tuple[Span, int | None], list[float]](list)
    for one in residents:
        groups[one.span, one.room].append(one.blocks_per_second)
    return [
        HeldTogether(span.start, span.end, room, sum(speeds), max(speeds))
        for (span, room), speeds in groups.items()
    ]


@st.composite
def crowds(draw: st.DrawFn) -> list[Resident]:
    """So many that most of them matter little."""
    halves = (Span(0, BLOCKS // 2), Span(BLOCKS // 2, BLOCKS))
    speeds = draw(st.lists(st.sampled_from([0.0, 80.0, 100.0, 120.0, 2_000.0]), min_size=1, max_size=3))
    count = draw(st.integers(60, 200))
    chance = draw(st.randoms(use_true_random=False))
    return [
        Resident(peer(number), chance.choice(halves), chance.choice(speeds), chance.choice((None, 1, BLOCKS)))
        for number in range(count)
    ]


# ---- what is promised for every swarm ----


@settings(max_examples=50, deadline=None)
@given(crowds() | swarms())
def test_where_the_sums_say_that_all_are_strong_enough_no_move_is_due(residents: list[Resident]) -> None:
    if is_strong_enough(together(residents), FACTS):
        assert due(residents) is None


def test_thousands_are_strong_enough() -> None:
    half = BLOCKS // 2
    crowd = [resident(number, number % 2 * half, number % 2 * half + half) for number in range(400)]
    assert is_strong_enough(together(crowd), FACTS)
    assert not is_strong_enough(together(crowd[::2]), FACTS), "of the second half there is nobody"
    slow = [replace(one, blocks_per_second=0.0) for one in crowd]
    assert not is_strong_enough(together(slow), FACTS), "nobody knows how fast they are"
    mighty = resident(500, 0, half, speed=5_000.0)
    assert not is_strong_enough(together([*crowd, mighty]), FACTS), "one could make a difference"


def test_nobody_is_not_strong_enough() -> None:
    assert not is_strong_enough([], FACTS)


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
@settings(deadline=None)  # many moves, each searched for
def test_moves_make_an_incomplete_model_less_so_and_a_complete_one_stronger(
    residents: list[Resident],
) -> None:
    measured = [replace(one, blocks_per_second=one.blocks_per_second or 1.0) for one in residents]
    made = settled(measured)
    if not made:
        return
    before, then = each(measured), each(after(*made[-1]))
    if holes(before):
        assert holes(each(after(*made[0]))) < holes(before)
    else:
        assert strength(then) > strength(before)


@given(swarms(), st.data())
@settings(deadline=None)
def test_a_swarm_that_stays_the_same_ends_moving_whatever_speeds_are_measured(
    residents: list[Resident], data: st.DataObject
) -> None:
    last: list[LastMove] = []
    moves: list[Move] = []
    before_complete = 0
    for _ in range(BLOCKS + len(residents) + 1):
        noise = [data.draw(st.floats(0.2, 5)) for _ in residents]
        noisy = [
            replace(one, blocks_per_second=one.blocks_per_second * factor)
            for one, factor in zip(residents, noise, strict=True)
        ]
        move = due(noisy, last)
        if move is None:
            return
        before_complete += bool(holes(each(residents)))
        moves.append(move)
        last.insert(0, LastMove(move.peer, NOW, move.members))
        residents = after(residents, move)
        since_complete = [one.peer for one in moves[before_complete:]]
        assert len(set(since_complete)) == len(since_complete), "one moved twice in a complete model"
        left = [(one.peer, one.before) for one in moves[before_complete:]]
        assert (move.peer, move.after) not in left, "it went back"
    raise AssertionError("it goes on for ever")


@given(swarms())
@settings(deadline=None)  # many moves, each searched for
def test_no_swarm_is_ever_as_it_was_before(residents: list[Resident]) -> None:
    seen = [tuple(one.span for one in swarm) for swarm, _ in settled(residents)]
    assert len(set(seen)) == len(seen)


@given(swarms())
def test_what_is_served_stays_so_while_a_move_is_on_its_way(residents: list[Resident]) -> None:
    move = due(residents)
    serving = [one for one in residents if one.is_serving]
    if move is not None and not holes(each(serving)):
        assert not holes(each([one for one in serving if one.peer != move.peer]))


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
    assert next_move(swarm, HUGE, [], NOW) is None


def test_what_is_on_disk_need_not_be_downloaded() -> None:
    large = msgspec.structs.replace(FACTS, parameters=10**12)
    swarm = [*(resident(number, 0, 4) for number in range(3)), resident(9, 4, 8)]
    assert next_move(swarm, large, [], NOW) is None
    swarm[1] = replace(swarm[1], cached=(Span(3, 8),))
    move = next_move(swarm, large, [], NOW)
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
    strong = [*(resident(number, 0, 4) for number in range(8)), *moving[4:]]
    assert due(strong, [changed]) is None
    assert due(strong, [changed._replace(at=NOW - PATIENCE_SECONDS)]) is not None


@pytest.mark.parametrize("joins", [True, False])
def test_while_the_same_volunteers_are_there_nobody_moves_twice(joins: bool) -> None:
    swarm = [*(resident(number, 0, 4) for number in range(8)), resident(9, 4, 8)]
    moved = [LastMove(one.peer, NOW - 60, members_of(swarm)) for one in swarm]
    assert due(swarm, moved[1:]) is not None
    assert due(swarm, moved) is None
    other = [*swarm, resident(10, 0, 4)] if joins else swarm[1:]
    assert due(other, moved) is not None


def test_who_has_joined_anew_among_the_same_may_be_moved_again() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(8)), resident(9, 4, 8)]
    long_ago = [LastMove(one.peer, 1000.0, members_of(swarm)) for one in swarm]
    assert due([replace(one, settled_at=2000.0) for one in swarm], long_ago) is not None


def test_a_swarm_that_stays_the_same_makes_all_moves_that_are_worth_their_while() -> None:
    made = settled([*(resident(number, 0, 4) for number in range(6)), resident(9, 4, 8)])
    assert len(made) == 2
    assert min(each(after(*made[-1]))) == 3 * 25


# ---- several moves ahead ----


def test_one_doubles_the_blocks_of_another_so_that_this_one_can_leave_them() -> None:
    strong, weak = resident(1, 0, 4, 400.0), resident(2, 4, 8, 200.0)
    swarm = [strong, weak, resident(3, 0, 4, 160.0, moves=False)]
    made = settled(swarm)
    assert [(move.peer, move.after) for _, move in made] == [(peer(1), Span(4, 8)), (peer(2), Span(0, 4))]
    weakest = [min(each(before)) for before, _ in made]
    assert [*weakest, min(each(after(*made[-1])))] == pytest.approx([50, 40, 90])


def test_a_chain_is_not_begun_whose_downloads_cost_more_than_it_brings() -> None:
    swarm = [resident(1, 0, 4, 400.0), resident(2, 4, 8, 200.0), resident(3, 0, 4, 160.0, moves=False)]
    large = msgspec.structs.replace(FACTS, parameters=10**10)
    assert next_move(swarm, large, [], NOW) is not None
    assert next_move(swarm, msgspec.structs.replace(FACTS, parameters=10**11), [], NOW) is None


def test_among_many_no_chain_is_looked_for() -> None:
    pair = [resident(1, 0, 4, 400.0), resident(2, 4, 8, 200.0), resident(3, 0, 4, 160.0)]
    assert moves_ahead(pair, BLOCKS) > 1
    assert moves_ahead([resident(number, 0, 4) for number in range(100)], BLOCKS) == 1


def test_nobody_leaves_what_is_served_by_others_that_only_load() -> None:
    swarm = [*(resident(number, 0, 4) for number in range(4)), resident(9, 4, 8)]
    loading = [swarm[0], *(replace(one, is_serving=False) for one in swarm[1:4]), swarm[4]]
    assert due(loading) is None
    assert due([*swarm[:2], *(replace(one, is_serving=False) for one in swarm[2:4]), swarm[4]]) is not None


def test_while_no_reply_is_possible_one_may_leave_blocks_that_nobody_else_serves() -> None:
    served = [resident(1, 0, 2, 100.0), resident(2, 2, 5, 600.0)]
    newcomer = resident(3, 3, 8, 1000.0)
    move = due([*served, replace(newcomer, is_serving=False)])
    assert move is not None
    assert (move.peer, move.after) == (peer(2), Span(0, 3))
    assert due([*served, newcomer]) is None


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
