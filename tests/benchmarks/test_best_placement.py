"""benchmarks/best_placement.py: a search finds what trying all finds, and moves reach no more than that."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.best_placement import Machine, best_found, best_of_all, best_reached, weakest

BLOCKS = 6
machines = st.lists(st.builds(Machine, st.integers(1, BLOCKS), st.floats(1, 1000)), min_size=1, max_size=4)


@given(machines)
@settings(max_examples=30, deadline=None)
def test_no_search_finds_better_than_the_best_of_all(some: list[Machine]) -> None:
    starts = [0] * len(some)
    best = best_of_all(BLOCKS, some) * (1 + 1e-9)
    found = best_found(BLOCKS, some, starts, 5, random.Random(1))
    assert weakest(BLOCKS, some, starts) <= found <= best
    assert weakest(BLOCKS, some, starts) <= best_reached(BLOCKS, some, starts) <= best


def test_where_all_are_in_one_place_the_search_spreads_them() -> None:
    three = [Machine(2, 20.0)] * 3
    assert best_found(BLOCKS, three, [0, 0, 0], 5, random.Random(1)) == best_of_all(BLOCKS, three) == 10.0


def test_nothing_is_reached_over_a_hole() -> None:
    swap = [Machine(3, 30.0), Machine(4, 400.0)]
    assert best_reached(BLOCKS, swap, [0, 2]) == weakest(BLOCKS, swap, [0, 2]) == 10.0
