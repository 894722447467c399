"""Whether an emulated network is what it is said to be: its round trips and its rate, by real TCP.

Sockets belong to the namespace in which they were made, so that one process can be at both ends.
Does not know who will use the network.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

from benchmarks.link import Account, Conditions
from benchmarks.namespaces import Node, Nodes, entered

CONNECTIONS = 5
"""Of each pair of nodes. The quickest counts: what a busy processor adds to one it does not add to all."""
TOLERANCE_SECONDS = 0.002
LATE_SECONDS = 0.001
"""How late frames may be, in the mean of all."""
LEAST_SHARE = 0.9
"""Of the rate, that a long transfer's content has to reach; headers and acknowledgements are the rest."""
WARM_UP_BYTES = 8 << 20
"""By then TCP sends as fast as it can."""
MEASURED_BYTES = 16 << 20
PIECE = bytes(64 << 10)
PORT = 7
PATIENCE_SECONDS = 30.0
REMEDY = "something else uses this machine's processors; try again when it has ended"


class LinkOff(Exception):
    """The emulated network is not what it is said to be, so nothing that is measured on it counts."""


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """What a network was found to be."""

    shortest_round_trip: float
    longest_round_trip: float
    """Milliseconds, of the pairs of nodes that differ most."""
    rate: float
    """Megabits a second of a long transfer's content."""


def check(nodes: Nodes, conditions: Conditions) -> LinkFigures:
    """Measure a network before it is used.

    Raises:
        LinkOff: a round trip or the rate is off.
    """
    pairs = list(combinations(nodes.by_name.values(), 2))
    trips = [round_trip(one, other) for one, other in pairs]
    rate = transfer_rate(*pairs[-1])
    figures = LinkFigures(1000 * min(trips), 1000 * max(trips), rate * 8 / 1e6)
    aim, megabits = conditions.round_trip, conditions.rate * 8 / 1e6
    if max(abs(trip - aim) for trip in trips) > TOLERANCE_SECONDS:
        raise LinkOff(
            f"round trips are {figures.shortest_round_trip:.1f} to {figures.longest_round_trip:.1f} ms "
            f"instead of {1000 * aim:g} ± {1000 * TOLERANCE_SECONDS:g} ms: {REMEDY}"
        )
    if not LEAST_SHARE * conditions.rate <= rate <= conditions.rate:
        raise LinkOff(
            f"a transfer reaches {figures.rate:.1f} Mbit/s instead of {LEAST_SHARE * megabits:g} "
            f"to {megabits:g}: {REMEDY}"
        )
    return figures


def require_punctual(account: Account) -> None:
    """Raises LinkOff when frames were late on the whole while the network was used."""
    if account.late > LATE_SECONDS:
        raise LinkOff(f"frames were late by {1000 * account.late:.1f} ms in the mean: {REMEDY}")


def round_trip(one: Node, other: Node) -> float:
    """The fewest seconds in which a connection opens, which takes one round trip."""
    times: list[float] = []
    with _listener(other) as listener:
        for _ in range(CONNECTIONS):
            begun = time.perf_counter()
            with _connection(one, other):
                times.append(time.perf_counter() - begun)
                listener.accept()[0].close()
    return min(times)


def transfer_rate(one: Node, other: Node) -> float:
    """Bytes a second of a transfer that has got up to speed."""
    with _listener(other) as listener, _connection(one, other) as sender:
        receiver, _ = listener.accept()
        receiver.settimeout(PATIENCE_SECONDS)
        pump = threading.Thread(target=_send, args=(sender, WARM_UP_BYTES + MEASURED_BYTES))
        pump.start()
        try:
            with receiver:
                warm = _receive(receiver, WARM_UP_BYTES)
                begun = time.perf_counter()
                measured = _receive(receiver, MEASURED_BYTES + WARM_UP_BYTES - warm)
                return measured / (time.perf_counter() - begun)
        finally:
            pump.join()


def _send(sender: socket.socket, size: int) -> None:
    for _ in range(size // len(PIECE)):
        sender.sendall(PIECE)


def _receive(receiver: socket.socket, size: int) -> int:
    """Receive at least `size` bytes; how many it were."""
    received = 0
    while received < size:
        piece = receiver.recv(len(PIECE))
        if not piece:
            raise LinkOff("a transfer over the emulated network broke off: try again")
        received += len(piece)
    return received


@contextmanager
def _listener(node: Node) -> Iterator[socket.socket]:
    with entered(node.namespace):
        listener = socket.create_server((node.address, PORT))
    with listener:
        listener.settimeout(PATIENCE_SECONDS)
        yield listener


@contextmanager
def _connection(one: Node, other: Node) -> Iterator[socket.socket]:
    with entered(one.namespace):
        connection = socket.create_connection((other.address, PORT), timeout=PATIENCE_SECONDS)
    with connection:
        yield connection
