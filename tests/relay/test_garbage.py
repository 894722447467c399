"""The relay's process looks for garbage in small steps, and finds all of it in the end."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from relay.garbage import SHARE, GarbageCollection

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


class Clock:
    """Time as the test says it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def garbage(clock: Clock) -> Iterator[GarbageCollection]:
    """Started; looking through all objects takes 0.01 s on its clock."""
    collection = GarbageCollection(clock)
    clock.tick = 0.01
    collection.start()
    clock.tick = 0.0
    yield collection
    collection.stop()


def test_python_does_not_collect_by_itself_meanwhile(clock: Clock) -> None:
    collection = GarbageCollection(clock)
    collection.start()
    during = gc.isenabled()
    collection.stop()
    assert (during, gc.isenabled(), gc.get_freeze_count()) == (False, True, 0)


def test_what_was_made_lately_is_freed_in_the_next_step(garbage: GarbageCollection) -> None:
    made = weakref.ref(Loop())
    assert made() is not None
    garbage.step()
    assert made() is None


def test_what_has_lasted_a_step_is_freed_when_all_is_looked_through(
    garbage: GarbageCollection, clock: Clock
) -> None:
    lasting = Loop()
    made = weakref.ref(lasting)
    garbage.step()
    del lasting
    garbage.step()
    assert made() is not None, "only what is new is looked through"
    clock.now += 0.01 / SHARE
    garbage.step()
    assert made() is None


def test_all_is_looked_through_for_a_small_part_of_the_time(garbage: GarbageCollection, clock: Clock) -> None:
    lasting = Loop()
    made = weakref.ref(lasting)
    garbage.step()
    del lasting
    clock.now += 0.9 * 0.01 / SHARE
    garbage.step()
    assert made() is not None


def test_a_relay_that_serves_collects_in_steps() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", NOTHING_BY_ITSELF], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == ["False", "0"]
