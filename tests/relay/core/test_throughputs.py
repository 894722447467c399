"""relay/throughputs.py: what volunteers compute for each block, and how strong that makes a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.throughputs import holes, share_of, strength, throughputs, with_span
from schema.ids import Span

EACH = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12)


def test_a_volunteers_speed_is_shared_by_its_blocks() -> None:
    assert throughputs(6, [(Span(0, 4), 100.0), (Span(2, 4), 10.0)]) == [25.0, 25.0, 30.0, 30.0, 0.0, 0.0]


def test_blocks_beyond_the_model_do_not_count() -> None:
    assert throughputs(2, [(Span(1, 5), 40.0), (Span(3, 5), 40.0)]) == [0.0, 10.0]


@given(EACH, st.data())
def test_who_comes_and_goes_leaves_nothing_behind(each: list[float], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(each) - 1))
    span = Span(start, data.draw(st.integers(start + 1, len(each))))
    share = share_of(data.draw(st.floats(1e-3, 1e6)), len(span))
    assert with_span(with_span(each, span, share), span, -share) == pytest.approx(each, rel=1e-3, abs=1e-6)


def test_a_block_that_its_only_volunteer_leaves_is_a_hole() -> None:
    each = throughputs(3, [(Span(0, 3), 0.1), (Span(1, 2), 7.0)])
    assert holes(with_span(each, Span(0, 3), -share_of(0.1, 3))) == 2


@given(EACH)
def test_strength_is_near_the_weakest_block(each: list[float]) -> None:
    assert min(each) <= strength(each) * (1 + 1e-9)
    assert strength(each) <= min(each) * len(each) ** (1 / 8) * (1 + 1e-9)


def test_strength_tells_that_one_of_two_weak_places_was_mended() -> None:
    assert strength([1.0, 9.0, 1.0]) < strength([1.0, 9.0, 9.0])


def test_a_hole_is_no_strength_at_all() -> None:
    assert strength([5.0, 0.0]) == 0.0


def test_a_hole_beside_the_fastest_is_a_hole_however_many_there_are() -> None:
    held = [(Span(0, 1 + number % 3), 1e6 / (number + 1)) for number in range(1000)]
    assert holes(throughputs(4, held)) == 1
