"""relay/outcomes.py: what is counted, and that nothing grows without bound."""

import pytest

from relay import outcomes
from relay.outcomes import Outcomes
from relay.records import Evidence
from relay.reputation import HOUR
from schema.ids import PeerId

A, B = PeerId("a" * 16), PeerId("b" * 16)
NOON, ONE = 12 * HOUR, 13 * HOUR


def test_what_was_seen_becomes_evidence_of_the_hour() -> None:
    seen = Outcomes()
    seen.answered[A] += 3
    seen.note(A, "late", 2.5)
    seen.note(A, "late", 1.5)
    seen.note(B, "vanished", 4)
    assert set(seen.collect(NOON + 7)) == {
        Evidence(A, "answered", NOON, 3),
        Evidence(A, "late", NOON, 2, 2.5),
        Evidence(B, "vanished", NOON, 1, 4),
    }
    assert list(seen.collect(NOON + 8)) == []
    assert (seen.seen["answered"], seen.seen["late"], seen.seen["failed"]) == (3, 2, 0)


def test_whoever_counts_steps_may_hold_on_to_the_numbers() -> None:
    seen = Outcomes()
    answered = seen.answered
    answered[A] += 1
    list(seen.collect(NOON))
    answered[A] += 1
    assert list(seen.collect(NOON)) == [Evidence(A, "answered", NOON, 1)]


def test_what_nobody_asked_for_is_for_the_next_time() -> None:
    seen = Outcomes()
    for peer in (A, B):
        seen.note(peer, "late", 1.0)
        seen.answered[peer] += 1
    first = next(seen.collect(NOON))
    seen.note(A, "failed")
    rest = list(seen.collect(ONE))
    assert len(rest) == 4
    assert {one.peer for one in (first, *rest) if one.kind == "late"} == {A, B}
    assert set(seen.unwritten(9)) == {first, *rest}


def test_what_waits_is_kept_by_the_hour_until_it_was_written() -> None:
    seen = Outcomes()
    for now in (NOON, NOON + 60, ONE):
        seen.note(A, "failed")
        list(seen.collect(now))
    rows = seen.unwritten(9)
    assert rows == [Evidence(A, "failed", NOON, 2), Evidence(A, "failed", ONE, 1)]
    assert seen.unwritten(1) == rows[:1]
    assert seen.waiting == 2
    assert seen.unwritten_of([B]) == []
    seen.written(rows[:1])
    assert seen.unwritten_of([A, B]) == rows[1:]


def test_what_does_not_fit_is_counted_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_KEPT", 1)
    seen = Outcomes()
    seen.note(A, "failed")
    seen.note(A, "failed")
    seen.note(B, "failed")
    assert seen.dropped == 1
    assert list(seen.collect(NOON)) == [Evidence(A, "failed", NOON, 2)]
    seen.answered[B] += 5
    seen.note(A, "failed")
    list(seen.collect(NOON))
    assert seen.dropped == 6
    assert seen.unwritten(9) == [Evidence(A, "failed", NOON, 3)]
