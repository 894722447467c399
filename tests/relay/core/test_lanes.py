"""The way to another replica: order, bounds, and what is known of what was lost."""

import pytest

from relay.bus import ReplicaKey
from relay.lanes import (
    CONTROL_RESERVE_BYTES,
    DECODE_RESERVE_BYTES,
    MAX_BODY_BYTES,
    MAX_REMEMBERED,
    Inbound,
    Lost,
    Outbound,
)
from relay.parcels import Kind, Parcel
from schema.frames import Frame, FrameType, encode_frame
from schema.ids import PeerId, new_session_id
from schema.outbox import Urgency

SENDER = ReplicaKey("a" * 16)
PEER = PeerId("b" * 16)
ROUTE = b"r" * 30


def outbound(limit: int = 1 << 24, number: int = 1) -> Outbound:
    return Outbound(SENDER, number, limit)


def frame(size: int = 10, kind: FrameType = FrameType.STEP) -> bytes:
    return encode_frame(Frame(kind, 0, new_session_id(), 0, 0, ROUTE, bytes(size)))


def put(lane: Outbound, body: bytes, urgency: Urgency = Urgency.DECODE) -> bool:
    return lane.put(Kind.FRAME, PEER, body, urgency)


def parcels(lane: Outbound) -> list[Parcel]:
    """All that waits, taken."""
    return list(iter(lane.take, None))


def test_the_urgent_goes_first_and_equals_in_order() -> None:
    lane = outbound()
    for body, urgency in (
        (b"prompt 1", Urgency.PREFILL),
        (b"step 1", Urgency.DECODE),
        (b"prompt 2", Urgency.PREFILL),
        (b"close", Urgency.CONTROL),
        (b"step 2", Urgency.DECODE),
    ):
        assert put(lane, body, urgency)
    taken = parcels(lane)
    assert [parcel.body for parcel in taken] == [b"close", b"step 1", b"step 2", b"prompt 1", b"prompt 2"]
    assert [parcel.number for parcel in taken] == [0, 1, 2, 3, 4]


def test_prompts_that_fill_a_lane_refuse_no_step_and_steps_no_control() -> None:
    lane = outbound(limit=100)
    assert put(lane, bytes(100), Urgency.PREFILL)
    assert not put(lane, b"more", Urgency.PREFILL)
    assert put(lane, bytes(DECODE_RESERVE_BYTES))
    assert not put(lane, b"more")
    assert put(lane, bytes(CONTROL_RESERVE_BYTES - DECODE_RESERVE_BYTES), Urgency.CONTROL)
    assert not put(lane, b"close", Urgency.CONTROL)
    parcels(lane)
    assert put(lane, b"more", Urgency.PREFILL)


def test_a_lane_of_which_nothing_is_confirmed_is_full() -> None:
    lane = outbound()
    for _ in range(MAX_REMEMBERED):
        put(lane, b"")
        lane.take()
    assert not put(lane, b"")
    assert put(lane, b"", Urgency.CONTROL)
    lane.acknowledged(1000)
    assert put(lane, b"")


def test_what_was_lost_is_known_by_its_header_and_route_and_control_as_a_whole() -> None:
    lane = outbound()
    step, close = frame(1000), frame(0, FrameType.CLOSE)
    put(lane, step)
    put(lane, close, Urgency.CONTROL)
    parcels(lane)
    assert lane.missed(0, 2) == [
        Lost(Kind.FRAME, PEER, Urgency.CONTROL, close),
        Lost(Kind.FRAME, PEER, Urgency.DECODE, step[:-1000]),
    ]


def test_what_has_come_is_forgotten() -> None:
    lane = outbound()
    for body in (frame(1), frame(2), frame(3)):
        put(lane, body)
    parcels(lane)
    lane.acknowledged(2)
    assert len(lane.missed(0, 3)) == 1
    assert len(lane.unsettled()) == 1


def test_what_waits_is_unsettled_too() -> None:
    lane = outbound()
    put(lane, frame())
    lane.take()
    put(lane, frame())
    assert len(lane.unsettled()) == 2


def test_a_mark_is_passed_when_all_before_it_is_taken() -> None:
    lane = outbound()
    put(lane, b"prompt", Urgency.PREFILL)
    mark = lane.mark()
    put(lane, b"later", Urgency.DECODE)
    lane.take()
    assert not lane.has_passed(mark)
    lane.take()
    assert lane.has_passed(mark)


# ---- the other end ----


def received(lane: Inbound, sent: list[Parcel]) -> list[bytes]:
    """The bodies that arrive."""
    bodies: list[bytes] = []
    for parcel in sent:
        is_new, _ = lane.accept(parcel)
        body = lane.whole(parcel) if is_new else None
        if body is not None:
            bodies.append(body)
    return bodies


def test_a_gap_is_noticed_with_the_next_parcel() -> None:
    out, into = outbound(), Inbound()
    for number in range(4):
        put(out, b"%d" % number)
    sent = parcels(out)
    assert into.accept(sent[0]) == (True, 0)
    assert into.accept(sent[3]) == (True, 2)
    assert into.accept(sent[1]) == (False, 0)


def test_the_first_of_a_lane_are_missed_too() -> None:
    out = outbound()
    put(out, b"0")
    put(out, b"1")
    assert Inbound().accept(parcels(out)[1]) == (True, 1)


def test_a_lane_that_is_opened_anew_goes_on_from_its_beginning_and_the_one_before_is_over() -> None:
    before, after, into = outbound(number=1), outbound(number=2), Inbound()
    put(before, b"old")
    put(before, b"too late")
    put(after, b"new")
    old, late = parcels(before)
    assert received(into, [old, *parcels(after), late]) == [b"old", b"new"]


def test_the_long_goes_in_parts_between_which_the_urgent_goes() -> None:
    out, into = outbound(), Inbound()
    prompt = frame(2 * MAX_BODY_BYTES, FrameType.PREFILL)
    put(out, prompt, Urgency.PREFILL)
    first = out.take()
    assert first is not None
    put(out, b"step", Urgency.DECODE)
    sent = [first, *parcels(out)]
    assert [parcel.has_more for parcel in sent] == [True, False, True, False]
    assert received(into, sent) == [b"step", prompt]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_body_of_which_a_part_is_lost_does_not_come_and_is_lost_once(lost: int) -> None:
    out, into = outbound(), Inbound()
    put(out, frame(2 * MAX_BODY_BYTES))
    put(out, b"the next")
    sent = parcels(out)
    del sent[lost]
    assert received(into, sent) == [b"the next"]
    assert len(out.missed(lost, lost + 1)) == 1
    assert len(out.unsettled()) == 2


def test_a_loss_among_parts_spares_the_body_of_another_urgency() -> None:
    out, into = outbound(), Inbound()
    prompt = frame(MAX_BODY_BYTES, FrameType.PREFILL)
    put(out, prompt, Urgency.PREFILL)
    first = out.take()
    put(out, b"lost", Urgency.DECODE)
    out.take()
    assert first is not None
    assert received(into, [first, *parcels(out)]) == [prompt]
