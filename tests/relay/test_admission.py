"""relay/admission.py: in turn, as many as heads take, and nobody more than its share."""

import asyncio
from dataclasses import replace

import pytest

from relay.admission import Admission, Limits, Place, Standing, decide
from schema.errors import InvalidRequest, Overloaded, TooManyRequests

LIMITS = Limits(per_head=2, waiting=3, per_asker=4, wait_seconds=30.0)
IDLE = Standing(capacity=2, running=0, ahead=0, waiting=0, asked=0, seconds=6.0)


@pytest.mark.parametrize(
    ("now", "count", "position", "seconds"),
    [
        (IDLE, 1, 0, 0.0),
        (IDLE, 3, 0, 0.0),
        (replace(IDLE, running=2), 1, 1, 3.0),
        (replace(IDLE, running=2, ahead=2, waiting=2), 1, 3, 9.0),
        (replace(IDLE, running=1, ahead=1, waiting=1), 1, 2, 6.0),
        (replace(IDLE, capacity=0), 1, 1, 6.0),
    ],
)
def test_who_finds_no_room_waits_behind_those_who_wait(
    now: Standing, count: int, position: int, seconds: float
) -> None:
    verdict = decide(LIMITS, now, count)
    assert (verdict.position, verdict.seconds) == (position, seconds)


def test_without_room_to_wait_one_is_told_when_to_come_back() -> None:
    with pytest.raises(Overloaded) as refusal:
        decide(LIMITS, replace(IDLE, running=2, ahead=3, waiting=3), 1)
    assert not isinstance(refusal.value, TooManyRequests)
    assert (refusal.value.position, refusal.value.retry_after) == (4, 12.0)


def test_a_token_has_its_share_and_no_more() -> None:
    with pytest.raises(TooManyRequests) as refusal:
        decide(LIMITS, replace(IDLE, asked=3), 2)
    assert refusal.value.retry_after == 6.0


def test_what_can_never_be_is_no_matter_of_waiting() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decide(LIMITS, IDLE, 5)
    assert refusal.value.param == "n"


def test_when_to_come_back_is_never_at_once() -> None:
    with pytest.raises(TooManyRequests) as refusal:
        decide(LIMITS, replace(IDLE, asked=4, seconds=0.0), 1)
    assert refusal.value.retry_after == 1.0


class Doors:
    """An admission whose heads come and go as a test says."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.heads = 1
        self.admission = Admission(limits, lambda _: self.heads)

    def come(self, asker: str = "ada") -> Place:
        (place,) = self.admission.enter("m", asker)
        return place


async def test_turns_are_taken_in_the_order_of_coming() -> None:
    doors = Doors()
    inside = [doors.come(), doors.come()]
    later = [doors.come("bob"), doors.come("bob")]
    assert [place.since is None for place in inside + later] == [False, False, True, True]
    assert [place.verdict.position for place in later] == [1, 2]
    doors.admission.leave(inside[0])
    assert [place.since is None for place in later] == [False, True]
    async with later[0]:
        pass
    async with asyncio.timeout(5), later[1]:
        pass
    doors.admission.leave(inside[1])
    assert (doors.admission.waiting, doors.admission.waited) == (0, 2)


async def test_whoever_leaves_the_line_leaves_nothing() -> None:
    doors = Doors()
    inside = [doors.come(), doors.come()]
    gone, next_one = doors.come("bob"), doors.come("bob")
    for _ in range(2):  # again does no harm
        doors.admission.leave(gone)
    doors.admission.leave(inside[0])
    assert next_one.since is not None
    for place in (*inside, next_one):
        doors.admission.leave(place)
    fresh = [doors.come() for _ in range(4)]
    assert [place.since is None for place in fresh] == [False, False, True, True]


async def test_a_new_head_lets_in_more() -> None:
    doors = Doors()
    places = [doors.come() for _ in range(4)]
    doors.heads = 2
    doors.admission.let_in()
    assert all(place.since is not None for place in places)


async def test_whose_turn_does_not_come_is_told_when_to_come_back() -> None:
    doors = Doors(replace(LIMITS, wait_seconds=0.01))
    _ = doors.come(), doors.come()
    late = doors.come()
    with pytest.raises(Overloaded, match="no head had room") as refusal:
        async with late:
            pass
    assert refusal.value.retry_after
    doors.admission.leave(late)
    assert doors.admission.waiting == 0


async def test_other_models_are_lines_of_their_own() -> None:
    doors = Doors()
    _ = doors.come(), doors.come()
    (other,) = doors.admission.enter("n", "bob")
    assert other.since is not None


async def test_lines_stand_behind_all_people_and_are_nobodys() -> None:
    doors = Doors()
    lines = [doors.admission.behind.enter("m", "ada", 1)[0] for _ in range(9)]
    assert [place.since is None for place in lines] == [False, False, *[True] * 7]
    assert (doors.admission.waiting, doors.admission.people()) == (0, {})
    person = doors.come()
    assert person.verdict.position == 1, "lines that wait are not ahead of it"
    assert (doors.admission.waiting, doors.admission.people()) == (1, {"m": 1})
    doors.admission.leave(lines[0])
    assert person.since is not None
    assert lines[2].since is None
    doors.admission.behind.leave(person)
    assert lines[2].since is not None
    assert doors.admission.people() == {}
    for place in lines:
        doors.admission.leave(place)
    with pytest.raises(InvalidRequest):
        doors.admission.behind.enter("m", "ada", LIMITS.per_asker + 1)
