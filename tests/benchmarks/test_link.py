"""The emulated network's arithmetic: rate, delay, order and loss, with times that are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.link import Account, Arrival, Conditions, Line, Network, address

RATE = 1000.0
CONDITIONS = Conditions(delay=2.0, rate=RATE, queue=3000)
KIBI = 1000


def frame(to: int, size: int = KIBI) -> bytes:
    return address(to).ljust(size, b"x")


def arrivals(network: Network) -> list[Arrival]:
    """Everything that is under way, at last."""
    return list(network.arrivals(float("inf")))


def test_a_line_sends_one_frame_after_the_other() -> None:
    line = Line(RATE, queue=10 * KIBI)
    assert [line.take(KIBI, 5.0) for _ in range(3)] == [6.0, 7.0, 8.0]


def test_an_idle_line_saves_nothing_up() -> None:
    line = Line(RATE, queue=10 * KIBI)
    line.take(KIBI, 0.0)
    assert line.take(KIBI, 100.0) == 101.0


def test_what_does_not_fit_the_queue_is_lost_until_there_is_room() -> None:
    line = Line(RATE, queue=2 * KIBI)
    assert [line.take(KIBI, 0.0) for _ in range(4)] == [1.0, 2.0, 3.0, None]
    assert line.take(KIBI, 1.0) == 4.0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 2000)), min_size=1))
def test_a_line_is_never_faster_than_its_rate(sent: list[tuple[float, int]]) -> None:
    line, now, left = Line(RATE, queue=4 * KIBI), 0.0, 0.0
    for pause, size in sent:
        now += pause
        taken = line.take(size, now)
        if taken is not None:
            assert taken - max(now, left) == pytest.approx(size / RATE)
            left = taken


def test_a_frame_takes_both_lines_and_the_delay() -> None:
    network = Network(2, CONDITIONS)
    network.send(0, frame(to=1), now=10.0)
    assert arrivals(network) == [Arrival(14.0, 1, frame(to=1))]


def test_nothing_arrives_before_it_is_due() -> None:
    network = Network(2, CONDITIONS)
    assert network.next_due is None
    network.send(0, frame(to=1), now=10.0)
    assert network.next_due == 13.0
    assert list(network.arrivals(13.5)) == []
    assert network.next_due == 14.0
    assert [arrival.due for arrival in network.arrivals(14.0)] == [14.0]
    assert network.next_due is None


def test_looking_late_makes_nothing_later() -> None:
    network = Network(2, CONDITIONS)
    network.send(0, frame(to=1), now=10.0)
    network.send(0, frame(to=1), now=10.0)
    assert [arrival.due for arrival in network.arrivals(500.0)] == [14.0, 15.0]


def test_two_senders_share_the_line_of_the_one_they_send_to() -> None:
    network = Network(3, CONDITIONS)
    network.send(0, frame(to=2), now=0.0)
    network.send(1, frame(to=2), now=0.0)
    assert [arrival.due for arrival in arrivals(network)] == [4.0, 5.0]


def test_one_sender_does_not_hold_up_another() -> None:
    network = Network(4, CONDITIONS)
    network.send(0, frame(to=2), now=0.0)
    network.send(1, frame(to=3), now=0.0)
    assert [arrival.due for arrival in arrivals(network)] == [4.0, 4.0]


def test_frames_of_one_node_stay_in_order() -> None:
    network = Network(2, Conditions(delay=2.0, rate=RATE, queue=100 * KIBI))
    sizes = [900, 60, 1400, 60, 200]
    for size in sizes:
        network.send(0, frame(to=1, size=size), now=0.0)
    assert [len(arrival.frame) for arrival in arrivals(network)] == sizes


def test_lost_frames_are_counted_on_either_line() -> None:
    network = Network(3, CONDITIONS)
    for _ in range(5):
        network.send(0, frame(to=2), now=0.0)
    assert network.lost == 1
    for _ in range(4):
        network.send(1, frame(to=2), now=0.0)
    assert network.lost == 1
    came = arrivals(network)
    assert network.lost > 1
    assert len(came) + network.lost == 9


@pytest.mark.parametrize("target", [b"\xff" * 6, address(7), address(0)])
def test_a_frame_for_nobody_else_goes_nowhere(target: bytes) -> None:
    network = Network(2, CONDITIONS)
    network.send(0, target + b"x", now=0.0)
    assert network.next_due is None


def test_an_account_tells_mean_and_worst() -> None:
    account = Account()
    for late in (1.0, 2.0, 6.0):
        account.count(late)
    assert (account.carried, account.late, account.latest) == (3, 3.0, 6.0)
