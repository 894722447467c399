"""relay/lateness.py: who is late, and who never answers."""

import pytest

from relay import lateness
from relay.lateness import LATE_FACTOR, MAX_SAMPLES, SAMPLES_PER_DRAW, UNANSWERED_SECONDS, StepTimes
from schema.ids import PeerId, SessionId

HOP = PeerId("00000000000000aa")
PLACE = SessionId(b"s" * 16), 1


def taking(times: StepTimes, seconds: float, step: int = 0) -> float | None:
    """What is said of a step that takes so long."""
    times.sent(HOP, PLACE, step, 0, now=100.0)
    return times.answered(PLACE, step, now=100.0 + seconds)


def used_to(seconds: float) -> StepTimes:
    times = StepTimes()
    for _ in range(50):
        taking(times, seconds)
    return times


def test_late_is_late_for_this_volunteer() -> None:
    assert taking(used_to(0.05), 1.9) is None
    assert taking(used_to(0.05), 2.5) == pytest.approx(2.5)
    assert taking(used_to(4.0), 2.5) is None
    assert taking(used_to(4.0), 4.1 * LATE_FACTOR) == pytest.approx(4.1 * LATE_FACTOR)


def test_a_first_step_is_given_more_time() -> None:
    assert taking(StepTimes(), 9.0) is None
    assert taking(StepTimes(), 11.0) == pytest.approx(11.0)


def test_one_late_step_hardly_changes_what_is_usual() -> None:
    times = used_to(0.05)
    assert taking(times, 1000.0) is not None
    assert taking(times, 2.5) is not None


def test_what_was_usual_is_forgotten_with_the_volunteer() -> None:
    times = used_to(0.05)
    times.peer_left(HOP)
    assert taking(times, 9.0) is None


def test_only_the_sampled_step_ends_its_sample() -> None:
    times = StepTimes()
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    assert times.answered(PLACE, 6, now=99.0) is None
    assert times.answered((PLACE[0], 0), 7, now=99.0) is None
    assert times.answered(PLACE, 7, now=99.0) == 99.0
    assert times.answered(PLACE, 7, now=99.0) is None


def test_a_step_that_was_never_answered_is_told_when_the_session_is_closed() -> None:
    times = StepTimes()
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    times.sent(HOP, PLACE, 8, 0, now=5.0)
    assert times.closed(PLACE, 0, now=UNANSWERED_SECONDS + 1) == (HOP, UNANSWERED_SECONDS + 1)
    assert times.closed(PLACE, 0, now=UNANSWERED_SECONDS + 1) is None


def test_not_if_there_was_no_time_to_answer() -> None:
    times = StepTimes()
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    assert times.closed(PLACE, 0, now=UNANSWERED_SECONDS) is None


def test_nor_if_the_driver_has_given_the_step_up() -> None:
    times = StepTimes()
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    assert times.closed(PLACE, 1, now=99.0) is None
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    times.sent(HOP, PLACE, 8, 1, now=98.0)
    assert times.closed(PLACE, 1, now=99.0) is None


def test_nor_if_a_reason_was_told() -> None:
    times = StepTimes()
    times.sent(HOP, PLACE, 7, 0, now=0.0)
    times.forget(PLACE)
    assert times.closed(PLACE, 0, now=99.0) is None


def test_which_steps_are_sampled_changes() -> None:
    drawn: set[int] = set()
    times = StepTimes()
    for _ in range(40 * SAMPLES_PER_DRAW):
        drawn.add(times.drawn)
        taking(times, 0.01)
    assert len(drawn) > 5
    assert drawn <= set(range(lateness.SAMPLED_STEPS))


def test_samples_under_way_are_forgotten_when_another_step_is_drawn() -> None:
    times = StepTimes()
    times.sent(HOP, (SessionId(b"t" * 16), 0), 1, 0, now=0.0)
    for _ in range(SAMPLES_PER_DRAW):
        taking(times, 0.01)
    assert times.closed((SessionId(b"t" * 16), 0), 0, now=1e6) is None


def test_there_are_never_more_samples_than_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "SAMPLES_PER_DRAW", 10**9)
    times = StepTimes()
    for number in range(MAX_SAMPLES + 10):
        times.sent(HOP, (SessionId(number.to_bytes(16, "big")), 0), 1, 0, now=0.0)
    assert len(times._samples) == MAX_SAMPLES
