"""schema/outbox.py: urgent first, in order within an urgency, and never more bytes than allowed."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.frames import FrameType
from schema.outbox import CONTROL_RESERVE_BYTES, URGENCY_OF_FRAME, Outbox, Urgency

MESSAGES = st.one_of(st.binary(max_size=40), st.text(max_size=40))
PUTS = st.tuples(MESSAGES, st.sampled_from(Urgency))
TAKE = st.none()


def drained(outbox: Outbox) -> list[str | bytes]:
    taken: list[str | bytes] = []
    while (message := outbox.take()) is not None:
        taken.append(message)
    return taken


def test_an_empty_outbox_gives_nothing() -> None:
    assert Outbox(10).take() is None


def test_the_most_urgent_message_is_taken_first_whenever_it_came() -> None:
    outbox = Outbox(100)
    outbox.put(b"prefill", Urgency.PREFILL)
    outbox.put(b"decode", Urgency.DECODE)
    outbox.put("control", Urgency.CONTROL)
    assert drained(outbox) == ["control", b"decode", b"prefill"]


def test_messages_of_one_urgency_keep_their_order() -> None:
    outbox = Outbox(100)
    for name in (b"1", b"2", b"3"):
        outbox.put(name, Urgency.DECODE)
    assert drained(outbox) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("urgency", [Urgency.DECODE, Urgency.PREFILL])
def test_what_would_exceed_the_limit_is_not_added(urgency: Urgency) -> None:
    outbox = Outbox(10)
    assert outbox.put(b"123456", urgency)
    assert not outbox.put(b"12345", urgency)
    assert drained(outbox) == [b"123456"]


def test_a_message_just_up_to_the_limit_is_added() -> None:
    outbox = Outbox(10)
    outbox.put(b"123456", Urgency.PREFILL)
    assert outbox.put(b"1234", Urgency.DECODE)


def test_what_was_taken_makes_room() -> None:
    outbox = Outbox(10)
    outbox.put(b"1234567890", Urgency.DECODE)
    outbox.take()
    assert outbox.put(b"1234567890", Urgency.DECODE)


def test_control_can_still_be_said_when_activations_fill_the_queue() -> None:
    outbox = Outbox(10)
    outbox.put(b"1234567890", Urgency.PREFILL)
    assert outbox.put("why", Urgency.CONTROL)


def test_control_is_bounded_too() -> None:
    outbox = Outbox(10)
    outbox.put("x" * (10 + CONTROL_RESERVE_BYTES), Urgency.CONTROL)
    assert not outbox.put("y", Urgency.CONTROL)


def test_control_beyond_the_limit_leaves_no_room_for_activations() -> None:
    outbox = Outbox(10)
    outbox.put("12345678901", Urgency.CONTROL)
    assert not outbox.put(b"", Urgency.DECODE)


@pytest.mark.parametrize("kind", FrameType)
def test_every_frame_type_has_an_urgency(kind: FrameType) -> None:
    assert URGENCY_OF_FRAME[kind] in Urgency


@given(st.lists(st.one_of(PUTS, TAKE)), st.integers(0, 100))
def test_an_outbox_is_three_queues_with_one_account(
    actions: list[tuple[str | bytes, Urgency] | None], limit: int
) -> None:
    outbox = Outbox(limit)
    model: dict[Urgency, deque[str | bytes]] = {urgency: deque() for urgency in Urgency}
    for action in actions:
        if action is None:
            expected = next((queue.popleft() for queue in model.values() if queue), None)
            assert outbox.take() == expected
        elif outbox.put(*action):
            model[action[1]].append(action[0])
        waiting = sum(len(message) for queue in model.values() for message in queue)
        assert outbox.waiting_bytes == waiting <= limit + CONTROL_RESERVE_BYTES
