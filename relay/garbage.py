"""When the relay's process looks for objects that refer to each other and to nothing else.

Python looks for them as objects are made, through all objects in the end: with ten thousand connections that
takes more than a second, in which no frame goes on, and at times of its own choosing. Here it looks through
what was made lately, ten times a second; what has lasted for some seconds is taken for granted. All objects
are looked through only when more memory is in use than connections explain, so much that it would matter:
connections leave nothing to look for behind (relay/websocket.py), so that only what a library leaves adds up.

Owner: the process (relay/commands/serve.py); it is the one place that changes the collector. Does not know
what the objects are.
"""

import gc
import sys
import time
from collections.abc import Callable

from schema.errors import CorollaError

YOUNG_SECONDS = 2e-3
"""For looking through young objects at once. If there are more, they are taken for granted earlier.

How many there are is not known: Python subtracts what is freed from what is made, and with as many heartbeats
as there were before that is nothing.
"""
YOUNG_STEPS = 100
"""For which objects are young: a statement of SQL, which refers to itself, is done by then."""
STEPS_BETWEEN_COUNTS = 600
"""Counting the blocks of memory takes a millisecond where there are millions."""
BLOCKS_OF_A_CONNECTION = 400
"""Blocks of memory that a volunteer's connection takes, as measured."""
MOST_BLOCKS = 1_000_000
"""In use beyond what is known: some 100 MB. What is larger than 512 bytes is in no block: a cycle that holds
large buffers would have to be cut where it arises."""


class GarbageCollection:
    """Collects in small steps, from `start` to `stop`.

    `connections`: says how many there are. `blocks_in_use`: of memory.
    """

    def __init__(
        self,
        connections: Callable[[], int],
        blocks_in_use: Callable[[], int] = sys.getallocatedblocks,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._connections = connections
        self._blocks_in_use = blocks_in_use
        self._clock = clock
        self._unexplained = 0
        """The least number of blocks that connections did not explain, since all was looked through: those of
        the program itself."""
        self._steps = 0
        self._young_steps = 0
        self._young_seconds = 0.0
        """That it took to look through them step by step: about as long as through all at once."""

    def start(self) -> None:
        """Have Python not collect by itself, and look through all that is there."""
        gc.disable()
        self._collect_all()

    def stop(self) -> None:
        """Have everything as it was."""
        gc.unfreeze()
        gc.enable()

    def step(self) -> None:
        """Look through the objects made since the last step, through young ones or, where needed, all."""
        self._steps += 1
        self._young_steps += 1
        if self._steps % STEPS_BETWEEN_COUNTS == 0 and self._has_too_much():
            self._collect_all()
            return
        begun = self._clock()
        gc.collect(0)
        self._young_seconds += self._clock() - begun
        if self._young_steps >= YOUNG_STEPS or self._young_seconds >= YOUNG_SECONDS:
            self._take_for_granted(youngest=1)

    def _has_too_much(self) -> bool:
        count = self._count()
        self._unexplained = min(self._unexplained, count)
        return count > self._unexplained + MOST_BLOCKS

    def _collect_all(self) -> None:
        gc.unfreeze()
        self._take_for_granted(youngest=2)
        self._unexplained = self._count()

    def _take_for_granted(self, youngest: int) -> None:
        """What a look through these generations leaves."""
        gc.collect(youngest)
        gc.freeze()
        self._young_steps, self._young_seconds = 0, 0.0

    def _count(self) -> int:
        return self._blocks_in_use() - BLOCKS_OF_A_CONNECTION * self._connections()


def without_origin(error: CorollaError) -> CorollaError:
    """The error, to be kept or sent, without where it was raised.

    That refers to all that was in use there, a connection for one, which refers to the error in turn.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
