"""The relay's process looks for garbage in small steps, and finds all of it where it would matter."""

import gc
import itertools
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from relay.garbage import (
    BLOCKS_OF_A_CONNECTION,
    MOST_BLOCKS,
    STEPS_BETWEEN_COUNTS,
    YOUNG_SECONDS,
    YOUNG_STEPS,
    GarbageCollection,
)

NOTHING_BY_ITSELF = """
import asyncio, gc, os, relay.commands.serve as serve
seen = []
gc.callbacks.append(lambda phase, about: seen.append(about["generation"]) if phase == "stop" else None)
async def app(scope, receive, send): ...
async def main():
    server = serve.RelayServer(serve.uvicorn.Config(app, port=0, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    while not server.started or len(seen) < 5:
        await asyncio.sleep(0.01)
    print(gc.isenabled(), seen[-1], flush=True)
    os._exit(0)  # it has nothing to hand over
asyncio.run(main())
"""


class Loop:
    """Something that only a collector can free."""

    def __init__(self) -> None:
        self.me = self


class Process:
    """What is connected and in use, as the test says."""

    def __init__(self) -> None:
        self.connections = 10
        self.blocks = 500_000


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def garbage(process: Process) -> Iterator[GarbageCollection]:
    """Started, with nothing that is young, and nothing takes any time."""
    collection = GarbageCollection(lambda: process.connections, lambda: process.blocks, lambda: 0.0)
    collection.start()
    yield collection
    collection.stop()


def steps(garbage: GarbageCollection, count: int) -> None:
    for _ in range(count):
        garbage.step()


def lasting(garbage: GarbageCollection) -> "weakref.ref[Loop]":
    """What nothing refers to any more, and was needed while it was young."""
    needed = Loop()
    made = weakref.ref(needed)
    steps(garbage, YOUNG_STEPS)
    del needed
    return made


def test_python_does_not_collect_by_itself_meanwhile() -> None:
    collection = GarbageCollection(lambda: 0)
    collection.start()
    during = gc.isenabled()
    collection.stop()
    assert (during, gc.isenabled(), gc.get_freeze_count()) == (False, True, 0)


def test_what_was_made_lately_is_freed_in_the_next_step(garbage: GarbageCollection) -> None:
    made = weakref.ref(Loop())
    assert made() is not None
    garbage.step()
    assert made() is None


def test_what_was_needed_for_some_steps_is_freed_while_it_is_young(garbage: GarbageCollection) -> None:
    needed = Loop()
    made = weakref.ref(needed)
    garbage.step()
    del needed
    garbage.step()
    assert made() is not None
    steps(garbage, YOUNG_STEPS)
    assert made() is None


def test_many_young_objects_are_taken_for_granted_earlier(process: Process) -> None:
    """So many that looking through them takes long; here it is the clock that says so."""
    ticks = itertools.count(step=0.6 * YOUNG_SECONDS)
    garbage = GarbageCollection(lambda: process.connections, lambda: process.blocks, lambda: next(ticks))
    garbage.start()
    needed = Loop()
    made = weakref.ref(needed)
    garbage.step()
    before = gc.get_freeze_count()
    garbage.step()
    frozen = gc.get_freeze_count()
    del needed
    steps(garbage, YOUNG_STEPS)
    garbage.stop()
    assert frozen > before
    assert made() is not None, "it was no longer young"


def test_what_has_lasted_is_taken_for_granted(garbage: GarbageCollection) -> None:
    made = lasting(garbage)
    steps(garbage, 3 * STEPS_BETWEEN_COUNTS)
    assert made() is not None


def test_all_is_looked_through_when_more_memory_is_in_use_than_is_known(
    garbage: GarbageCollection, process: Process
) -> None:
    made = lasting(garbage)
    process.blocks += MOST_BLOCKS
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is not None, "not so much"
    process.blocks += 1
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is None


def test_what_connections_take_is_no_garbage(garbage: GarbageCollection, process: Process) -> None:
    made = lasting(garbage)
    process.connections += 10_000
    process.blocks += MOST_BLOCKS + 10_000 * BLOCKS_OF_A_CONNECTION
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is not None
    process.connections -= 1
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is None


def test_what_was_in_use_for_a_while_is_not_allowed_for_ever(
    garbage: GarbageCollection, process: Process
) -> None:
    process.blocks += MOST_BLOCKS + 1
    steps(garbage, STEPS_BETWEEN_COUNTS)  # looks through all, and finds nothing
    process.blocks -= MOST_BLOCKS
    steps(garbage, STEPS_BETWEEN_COUNTS)
    made = lasting(garbage)
    process.blocks += MOST_BLOCKS + 1
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is None


def test_what_a_look_through_all_leaves_is_known(garbage: GarbageCollection, process: Process) -> None:
    process.blocks += MOST_BLOCKS + 1
    steps(garbage, STEPS_BETWEEN_COUNTS)
    made = lasting(garbage)
    steps(garbage, STEPS_BETWEEN_COUNTS)
    assert made() is not None


def test_a_relay_that_serves_collects_in_steps() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", NOTHING_BY_ITSELF], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == ["False", "0"]
