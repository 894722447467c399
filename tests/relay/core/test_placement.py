"""relay/placement.py: holes first, never more than fits, and always the same answer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.placement import Held, Placement, common_blocks, place, typical_speed
from relay.throughputs import throughputs, with_span
from schema.errors import JoinRefused
from schema.ids import Span
from schema.messages import BlockRun, ModelOffer
from tests.relay.core.peers import FACTS, MODEL, model_offer

BLOCKS = FACTS.blocks
SPEEDS = st.floats(0.0, allow_nan=False)
SOME_SPEEDS = st.sampled_from([1.0, 3.0, 10.0])


def held(start: int, end: int, speed: float = 0.0, *, head: bool = True, model: str = MODEL) -> Held:
    return Held(model, Span(start, end), head, speed)


def placed(offer: ModelOffer, *others: Held, speed: float = 0.0) -> Placement:
    return place([offer], speed, others, [MODEL])


def other_model(name: str, **changes: Any) -> ModelOffer:
    facts = msgspec.structs.replace(FACTS, name=name)
    return msgspec.structs.replace(model_offer(facts=facts), **changes)


@st.composite
def holders(draw: st.DrawFn) -> list[Held]:
    found: list[Held] = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, BLOCKS - 1))
        end = draw(st.integers(start + 1, BLOCKS))
        found.append(held(start, end, draw(SPEEDS), head=draw(st.booleans())))
    return found


def covered(spans: list[Span]) -> set[int]:
    return {block for span in spans for block in range(span.start, span.end)}


# ---- what is promised for every swarm ----


@given(holders(), st.integers(1, BLOCKS), SPEEDS)
def test_the_span_is_as_long_as_fits_and_within_the_model(
    others: list[Held], max_blocks: int, speed: float
) -> None:
    span = placed(model_offer(max_blocks=max_blocks), *others, speed=speed).span
    assert len(span) == max_blocks
    assert span.end <= BLOCKS


@given(holders(), st.integers(1, BLOCKS), SPEEDS)
def test_no_other_span_of_that_length_fills_more_holes(
    others: list[Held], max_blocks: int, speed: float
) -> None:
    taken = covered([other.span for other in others])
    span = placed(model_offer(max_blocks=max_blocks), *others, speed=speed).span

    def filled(start: int) -> int:
        return len(covered([Span(start, start + max_blocks)]) - taken)

    assert filled(span.start) == max(filled(start) for start in range(BLOCKS - max_blocks + 1))


@given(holders(), st.integers(1, BLOCKS), SPEEDS)
def test_the_same_swarm_gives_the_same_span(others: list[Held], max_blocks: int, speed: float) -> None:
    offer = model_offer(max_blocks=max_blocks)
    assert placed(offer, *others, speed=speed) == placed(offer, *others, speed=speed)


@given(
    st.lists(st.tuples(st.integers(0, BLOCKS - 2), SOME_SPEEDS, st.integers(1, 4)), max_size=6), SOME_SPEEDS
)
def test_several_that_hold_the_same_may_be_given_as_one(
    runs: list[tuple[int, float, int]], speed: float
) -> None:
    together = [Held(MODEL, Span(start, start + 2), True, each, number) for start, each, number in runs]
    apart = [held(start, start + 2, each) for start, each, number in runs for _ in range(number)]
    before = throughputs(BLOCKS, [(one.span, one.blocks_per_second) for one in apart])
    afterwards = [
        sorted(with_span(before, placed(model_offer(max_blocks=3), *others, speed=speed).span, speed / 3))
        for others in (together, apart)
    ]
    assert afterwards[0] == pytest.approx(afterwards[1])


def test_the_unmeasured_are_taken_for_typical_of_all_and_not_of_their_groups() -> None:
    many_slow = Held(MODEL, Span(0, 2), True, 1.0, volunteers=5)
    fast = held(2, 4, 100.0), held(4, 6, 100.0)
    assert placed(model_offer(max_blocks=2), many_slow, *fast, held(6, 8)).span == Span(6, 8)


@given(st.lists(st.integers(1, BLOCKS), min_size=1, max_size=12), st.booleans())
def test_volunteers_that_join_one_after_the_other_complete_the_model_without_waste(
    sizes: list[int], head: bool
) -> None:
    joined: list[Held] = []
    for size in sizes:
        placement = placed(model_offer(max_blocks=size, head=head), *joined)
        before = covered([one.span for one in joined])
        joined.append(Held(MODEL, placement.span, placement.head, 0.0))
        gained = len(covered([one.span for one in joined])) - len(before)
        longest_hole = max((len(hole) for hole in holes(before)), default=0)
        assert gained >= min(size, longest_hole)


def holes(taken: set[int]) -> list[range]:
    """The runs of blocks that nobody holds."""
    found: list[range] = []
    start = 0
    for block in range(BLOCKS + 1):
        if block in taken or block == BLOCKS:
            if block > start:
                found.append(range(start, block))
            start = block + 1
    return found


# ---- single promises ----


def test_the_first_volunteer_gets_the_first_blocks() -> None:
    assert placed(model_offer(max_blocks=3)).span == Span(0, 3)


def test_a_volunteer_with_room_for_more_gets_the_whole_model() -> None:
    assert placed(model_offer(max_blocks=100)).span == Span(0, BLOCKS)


def test_a_hole_in_the_middle_is_filled_first() -> None:
    assert placed(model_offer(max_blocks=2), held(0, 3, 100.0), held(5, 8, 1.0)).span == Span(3, 5)


def test_a_complete_model_is_strengthened_where_it_is_slowest() -> None:
    assert placed(model_offer(max_blocks=4), held(0, 4, 400.0), held(4, 8, 4.0)).span == Span(4, 8)


def test_a_volunteer_that_measured_nothing_counts_as_one_of_many_equals() -> None:
    assert placed(model_offer(max_blocks=4), held(0, 4), held(0, 4), held(4, 8)).span == Span(4, 8)


def test_blocks_of_a_volunteer_that_calls_itself_infinitely_slow_are_no_holes() -> None:
    assert placed(model_offer(max_blocks=2), held(0, 6, 5e-324)).span == Span(6, 8)


def test_blocks_of_a_volunteer_that_boasts_are_still_strengthened_where_it_is_alone() -> None:
    others = [held(0, 4, 1e308), held(4, 8, 100.0), held(4, 8, 1e308)]
    assert placed(model_offer(max_blocks=4), *others).span == Span(0, 4)


def test_what_others_hold_of_other_models_does_not_count() -> None:
    assert placed(model_offer(max_blocks=4), held(0, 4, model="another")).span == Span(0, 4)


def test_a_span_that_its_owner_insists_on_is_given() -> None:
    assert placed(model_offer(2, 4)).span == Span(2, 4)


def test_a_wanted_span_outside_the_model_is_refused() -> None:
    with pytest.raises(JoinRefused, match=r"blocks 6:9 are not in 'llama', which has blocks 0:8"):
        placed(model_offer(6, 9, max_blocks=9))


def test_a_wanted_span_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(JoinRefused, match="are not in"):
        placed(model_offer(4, 4))


def test_a_wanted_span_that_does_not_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(JoinRefused, match="only 2 blocks fit: ask for fewer, or quantize"):
        placed(model_offer(0, 4, max_blocks=2))


@pytest.mark.parametrize(("start", "end"), [(1, None), (None, 3), (0, None)])
def test_half_a_wanted_span_is_refused(start: int | None, end: int | None) -> None:
    with pytest.raises(JoinRefused, match="both its start and its end"):
        placed(model_offer(start, end))


def test_a_volunteer_that_can_hold_nothing_is_refused_with_the_remedy() -> None:
    with pytest.raises(JoinRefused, match="free memory"):
        placed(model_offer(max_blocks=0))


def test_a_model_that_the_swarm_does_not_serve_is_refused_naming_those_it_does() -> None:
    with pytest.raises(JoinRefused, match=r"serves llama, qwen, not unknown: leave --model out"):
        place([other_model("unknown")], 0.0, [], ["llama", "qwen"])


def test_a_swarm_that_serves_nothing_says_so() -> None:
    with pytest.raises(JoinRefused, match="serves no model"):
        place([model_offer()], 0.0, [], [])


# ---- what is on disk ----


def on_disk(offer: ModelOffer, *runs: Span) -> ModelOffer:
    cached = [BlockRun(start=run.start, end=run.end) for run in runs]
    return msgspec.structs.replace(offer, cached=cached)


@given(holders(), st.integers(1, BLOCKS), SPEEDS, st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS))
def test_what_is_on_disk_makes_no_block_much_weaker(
    others: list[Held], max_blocks: int, speed: float, start: int, length: int
) -> None:
    offer = model_offer(max_blocks=max_blocks)
    cached = Span(start, min(BLOCKS, start + length))
    best, sticky = (placed(one, *others, speed=speed).span for one in (offer, on_disk(offer, cached)))
    assert common_blocks(sticky, [cached]) >= common_blocks(best, [cached])
    speeds = [one.blocks_per_second for one in others]
    typical = typical_speed(speeds)
    held = [(one.span, one.blocks_per_second or typical) for one in others]
    after = [sorted(throughputs(BLOCKS, [*held, (span, speed or typical)])) for span in (best, sticky)]
    for block_of_best, block_of_sticky in zip(*after, strict=True):
        assert block_of_sticky >= 0.89 * block_of_best - 1e-6


def test_who_comes_back_gets_the_blocks_that_it_has() -> None:
    offer = model_offer(max_blocks=4)
    assert placed(offer).span == Span(0, 4)
    assert placed(on_disk(offer, Span(3, 7))).span == Span(3, 7)


def test_a_hole_is_worth_any_download() -> None:
    offer = on_disk(model_offer(max_blocks=4), Span(0, 4))
    assert placed(offer, held(0, 4)).span == Span(4, 8)


def test_room_and_disk_go_with_the_placement() -> None:
    offer = msgspec.structs.replace(on_disk(model_offer(max_blocks=4), Span(0, 4)), room=6)
    placement = placed(offer)
    assert (placement.room, placement.cached) == (6, (Span(0, 4),))


@pytest.mark.parametrize("runs", [[(4, 4)], [(0, 9)], [(4, 6), (0, 2)], [(0, 4), (3, 6)]])
def test_runs_that_cannot_be_are_refused(runs: list[tuple[int, int]]) -> None:
    cached = [BlockRun(start=start, end=end) for start, end in runs]
    with pytest.raises(JoinRefused, match="no run of blocks in order"):
        placed(msgspec.structs.replace(model_offer(max_blocks=4), cached=cached))


# ---- which model ----


def test_the_most_wanted_model_is_completed_first() -> None:
    offers = [other_model("second"), other_model("first")]
    assert place(offers, 0.0, [], ["first", "second"]).model == "first"


def test_an_incomplete_model_comes_before_a_more_wanted_complete_one() -> None:
    offers = [other_model("first"), other_model("second")]
    everything = held(0, BLOCKS, 1.0, model="first")
    assert place(offers, 0.0, [everything], ["first", "second"]).model == "second"


def test_among_complete_models_the_one_with_the_weakest_block_is_strengthened() -> None:
    offers = [other_model("first"), other_model("second")]
    fast, slow = held(0, BLOCKS, 100.0, model="first"), held(0, BLOCKS, 1.0, model="second")
    assert place(offers, 0.0, [fast, slow], ["first", "second"]).model == "second"


def test_a_model_of_which_nothing_fits_is_passed_over() -> None:
    offers = [other_model("first", max_blocks=0), other_model("second")]
    assert place(offers, 0.0, [], ["first", "second"]).model == "second"


# ---- the head ----


def test_whoever_holds_the_first_blocks_holds_the_head_if_it_can() -> None:
    assert placed(model_offer(max_blocks=4, head=True), held(4, 8)).head


def test_a_head_that_is_missing_is_given_to_anybody_who_can_hold_it() -> None:
    assert placed(model_offer(max_blocks=4, head=True), held(0, 4, head=False)).head


def test_a_head_that_is_there_is_not_given_again_to_the_later_blocks() -> None:
    assert not placed(model_offer(max_blocks=4, head=True), held(0, 4, head=True)).head


def test_who_cannot_hold_the_head_is_not_given_it() -> None:
    assert not placed(model_offer(max_blocks=4, head=False)).head


def test_who_has_not_measured_yet_does_not_look_slow_beside_those_who_have() -> None:
    """Else whoever comes while it loads would double its blocks, and not those that need it more."""
    loading = held(0, 4)
    slow, fast = held(4, 8, 50.0), held(0, 8, 100.0)
    assert placed(model_offer(max_blocks=4), loading, slow, fast).span == Span(4, 8)


def test_where_nobody_has_measured_the_number_of_holders_counts() -> None:
    assert placed(model_offer(max_blocks=4), held(0, 4), held(0, 8)).span == Span(4, 8)
