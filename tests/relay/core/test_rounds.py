"""relay/rounds.py: everybody's turn comes, whoever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from relay.rounds import Round


def circle(count: int) -> Round[int]:
    made = Round[int]()
    for number in range(count):
        made.add(number)
    return made


def test_everybody_has_a_turn_before_anybody_has_two() -> None:
    among = circle(5)
    assert [list(among.take(2)) for _ in range(5)] == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_nobody_has_two_at_once() -> None:
    among = circle(3)
    assert list(among.take(100)) == [0, 1, 2]
    assert list(circle(0).take(1)) == []


def test_who_is_there_twice_has_one_turn() -> None:
    among = circle(2)
    among.add(1)
    assert len(among) == 2
    assert list(among.take(9)) == [0, 1]


def test_who_has_gone_has_none() -> None:
    among = circle(4)
    for gone in (1, 3, 1, 7):
        among.discard(gone)
    assert sorted(among.take(4)) == [0, 2]
    assert len(among) == 2


def test_equals_are_the_same() -> None:
    among = Round[str]()
    among.add("".join(["a", "b"]))
    among.discard("".join(["a", "b"]))
    assert len(among) == 0


def test_all_may_go_in_the_middle_of_a_turn() -> None:
    among = circle(3)
    turns = among.take(3)
    seen = next(turns)
    for gone in range(3):
        among.discard(gone)
    assert seen == 0
    assert list(turns) == []


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "take"]), st.integers(0, 9)), max_size=60))
def test_it_holds_who_was_put_in_and_not_taken_out(changes: list[tuple[str, int]]) -> None:
    among, there = Round[int](), set[int]()
    for change, number in changes:
        if change == "add":
            among.add(number)
            there.add(number)
        elif change == "discard":
            among.discard(number)
            there.discard(number)
        else:
            assert len(list(among.take(number))) == min(number, len(there))
    assert sorted(among.take(len(among))) == sorted(there)
