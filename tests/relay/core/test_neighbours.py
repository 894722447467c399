"""Other replicas, heard over a bus: what fails with one of them, or once, does not stop the rest."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.bus import Crossing
from relay.lanes import Lost
from relay.metrics import Metrics
from relay.neighbours import Neighbour, Neighbours
from relay.parcels import Kind, Notice
from schema.ids import PeerId
from schema.outbox import Urgency
from tests.relay.core.buses import UnsteadyBus
from tests.relay.core.waiting import eventually

PEER = PeerId("b" * 16)


class RecordingOffice:
    """Writes down what it is told, and fails where it is asked to."""

    def __init__(self) -> None:
        self.opened: list[Neighbour] = []
        self.closed: list[Neighbour] = []
        self.bodies: list[bytes] = []
        self.failing: Neighbour | None = None

    def on_opened(self, neighbour: Neighbour) -> None:
        self.opened.append(neighbour)

    def on_closed(self, neighbour: Neighbour, lost: list[Lost]) -> None:
        self.closed.append(neighbour)
        if neighbour is self.failing:
            raise ValueError("the office made a mistake")

    def on_body(self, neighbour: Neighbour, kind: int, peer: PeerId, body: bytes) -> None:
        self.bodies.append(body)

    def on_notice(self, neighbour: Neighbour, notice: Notice) -> None: ...
    def on_gap(self, neighbour: Neighbour) -> None: ...
    def on_lost(self, neighbour: Neighbour, lost: list[Lost]) -> None: ...


class FailingBus(UnsteadyBus):
    """Raises once where it should publish."""

    fails = False

    async def publish(self, subject: str, message: bytes) -> bool:
        if self.fails:
            self.fails = False
            raise ValueError("the bus made a mistake")
        return await super().publish(subject, message)


class Replica:
    """One replica without peers."""

    def __init__(self, crossing: Crossing, name: str) -> None:
        self.bus = FailingBus(crossing)
        self.office = RecordingOffice()
        self.neighbours = Neighbours(self.bus, self.office, Metrics(), name, 1 << 20)


@pytest.fixture
async def three() -> AsyncIterator[list[Replica]]:
    """Replicas that know each other."""
    crossing = Crossing()
    replicas = [Replica(crossing, name) for name in ("one", "another", "third")]
    for replica in replicas:
        await replica.neighbours.open()
    await eventually(lambda: all(len(replica.neighbours) == 2 for replica in replicas))
    yield replicas
    for replica in replicas:
        replica.office.failing = None
        await replica.neighbours.close()


async def test_what_fails_with_one_replica_does_not_keep_the_others(
    three: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    one = three[0]
    one.office.failing = one.office.opened[0]
    one.bus.set_away(True)
    assert one.office.closed == one.office.opened
    assert not len(one.neighbours)
    assert "the office made a mistake" in caplog.text


async def test_publishing_goes_on_after_a_failure(
    three: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    one, another = three[:2]
    (to_another,) = [there for there in one.neighbours if there.key == another.neighbours.key]
    await one.neighbours.flush()
    one.bus.fails = True
    to_another.send(Kind.TEXT, PEER, b"lost", Urgency.CONTROL)
    await eventually(lambda: not one.bus.fails)
    to_another.send(Kind.TEXT, PEER, b"the next", Urgency.CONTROL)
    await eventually(lambda: another.office.bodies == [b"the next"])
    assert "the bus made a mistake" in caplog.text
    await asyncio.wait_for(one.neighbours.flush(), 30)
