"""Steps that overtook each other are brought back into their order, and nothing waits for ever."""

import itertools

import pytest

from corolla import step_order
from corolla.step_order import MOST_SESSIONS, StepOrder
from schema.frames import Frame, FrameType
from schema.ids import PeerId, SessionId

KEY = (PeerId("a" * 16), SessionId(b"s" * 16))


def step(number: int, kind: FrameType = FrameType.PREFILL, epoch: int = 0) -> Frame:
    return Frame(kind, 0, KEY[1], number, 0, b"", b"", epoch=epoch)


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.step for frame in frames]


@pytest.mark.parametrize("arriving", list(itertools.permutations(range(4))))
def test_slices_are_taken_in_order_however_they_arrive(arriving: tuple[int, ...]) -> None:
    order = StepOrder()
    taken = [frame for number in arriving for frame in order.arrived(KEY, step(number))]
    assert numbers(taken) == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [FrameType.FORK, FrameType.RESUME])
@pytest.mark.parametrize("second", [FrameType.PREFILL, FrameType.REPLAY])
def test_what_begins_a_session_goes_before_the_slices_behind_it(first: FrameType, second: FrameType) -> None:
    order = StepOrder()
    assert order.arrived(KEY, step(1, second)) == []
    assert numbers(order.arrived(KEY, step(0, first))) == [0, 1]


def test_a_decode_step_never_waits() -> None:
    order = StepOrder()
    assert numbers(order.arrived(KEY, step(17, FrameType.STEP))) == [17]
    assert numbers(order.arrived(KEY, step(18))) == [18]


def test_what_waits_in_vain_is_let_go_in_order() -> None:
    order = StepOrder()
    early = step(2)
    order.arrived(KEY, early)
    order.arrived(KEY, step(3))
    assert order.is_held(KEY, early)
    assert numbers(order.let_go(KEY)) == [2, 3]
    assert not order.is_held(KEY, early)
    assert order.let_go(KEY) == []
    assert numbers(order.arrived(KEY, step(4))) == [4]


def test_a_step_of_a_new_epoch_waits_for_none_of_the_old_one() -> None:
    order = StepOrder()
    assert numbers(order.arrived(KEY, step(5, epoch=1))) == [5]
    assert numbers(order.arrived(KEY, step(6, epoch=1))) == [6]


def test_a_step_that_comes_again_is_taken() -> None:
    order = StepOrder()
    order.arrived(KEY, step(0))
    assert numbers(order.arrived(KEY, step(0))) == [0]


def test_only_so_many_sessions_are_counted() -> None:
    order = StepOrder()
    for number in range(MOST_SESSIONS + 10):
        order.arrived((KEY[0], SessionId(number.to_bytes(16, "big"))), step(0))
    assert len(order) == MOST_SESSIONS
    order.forget(KEY)


def test_only_so_many_steps_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_order, "MOST_HELD", 2)
    order = StepOrder()
    assert [numbers(order.arrived(KEY, step(number))) for number in (2, 3, 4)] == [[], [], [4]]
