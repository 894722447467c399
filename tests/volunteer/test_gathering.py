"""Who is waited for before a batch starts, and for how long at most."""

from schema.ids import SessionId
from volunteer.gathering import MOST_SECONDS, SHARE, Gathering

A, B, C = (SessionId(bytes([number]) * 16) for number in range(3))
BATCH = 0.04
LIMIT = min(SHARE * BATCH, MOST_SECONDS)


def together(rounds: int = 30) -> tuple[Gathering, float]:
    """A and B have come back 1 and 2 ms after each batch, for some rounds; also the last batch's end."""
    gathering, now = Gathering(), 0.0
    for _ in range(rounds):
        gathering.done([A, B], BATCH, now)
        gathering.arrived(A, now + 0.001)
        gathering.arrived(B, now + 0.002)
        now += 0.002 + BATCH
    gathering.done([A, B], BATCH, now)
    return gathering, now


def test_at_first_nobody_is_waited_for() -> None:
    gathering = Gathering()
    gathering.arrived(A, 0.0)
    assert gathering.wait([A], 0.0) == 0


def test_who_came_back_together_is_waited_for() -> None:
    gathering, end = together()
    gathering.arrived(A, end + 0.001)
    assert gathering.wait([A], end + 0.001) > 0


def test_when_all_are_here_it_starts_at_once() -> None:
    gathering, end = together()
    gathering.arrived(A, end + 0.001)
    gathering.arrived(B, end + 0.002)
    assert gathering.wait([A, B], end + 0.002) == 0


def test_the_wait_ends_where_it_was_said_to() -> None:
    gathering, end = together()
    gathering.arrived(A, end + 0.001)
    wait = gathering.wait([A], end + 0.001)
    assert 0 < wait <= LIMIT
    assert gathering.wait([A], end + 0.001 + wait) == 0


def test_a_prompt_waits_for_the_replies_that_it_goes_with() -> None:
    gathering, end = together()
    assert gathering.wait([], end) > 0


def test_who_comes_back_late_is_not_waited_for() -> None:
    """A's driver is a hundred milliseconds away: B does not wait for it."""
    gathering = Gathering()
    for start in range(30):
        gathering.done([A, B], BATCH, float(start))
        gathering.arrived(B, start + 0.001)
        gathering.arrived(A, start + 0.1)
    gathering.done([A, B], BATCH, 30.0)
    gathering.arrived(B, 30.001)
    assert gathering.wait([B], 30.001) == 0


def test_who_has_ended_is_waited_for_once_and_not_again() -> None:
    gathering, end = together()
    gathering.arrived(A, end + 0.001)
    assert gathering.wait([A], end + 0.001) > 0
    gathering.done([A], BATCH, end + 0.05)
    gathering.arrived(A, end + 0.051)
    assert gathering.wait([A], end + 0.051) == 0


def test_who_is_forgotten_is_not_waited_for() -> None:
    gathering, end = together()
    gathering.forget(B)
    gathering.arrived(A, end + 0.001)
    assert gathering.wait([A], end + 0.001) == 0


def test_a_newcomer_is_not_waited_for() -> None:
    gathering, end = together()
    gathering.done([C], BATCH, end)
    gathering.arrived(A, end + 0.001)
    gathering.arrived(B, end + 0.002)
    assert gathering.wait([A, B], end + 0.002) == 0
