"""When the relay's process looks for objects that refer to each other and to nothing else.

Python looks for them as objects are made, through all objects in the end: with ten thousand connections that
takes more than a second, in which no frame goes on, and at times of its own choosing. Here it looks through
what was made lately, ten times a second, and takes what is left for granted. All objects are looked through
when that is due: at most a ten-thousandth of the time goes into it, since frames wait meanwhile and what a
connection leaves behind is small.

Owner: the process (relay/commands/serve.py); it is the one place that changes the collector. Does not know
what the objects are.
"""

import gc
import time
from collections.abc import Callable

SHARE = 1e-4
"""Of the time, for looking through all objects: half a second of it in an hour and a half."""


class GarbageCollection:
    """Collects in small steps, from `start` to `stop`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._due = 0.0

    def start(self) -> None:
        """Have Python not collect by itself, and look through all that is there."""
        gc.disable()
        self._collect_all()

    def stop(self) -> None:
        """Have everything as it was."""
        gc.unfreeze()
        gc.enable()

    def step(self) -> None:
        """Look through the objects made since the last step; through all when that is due."""
        if self._clock() >= self._due:
            self._collect_all()
        else:
            gc.collect(0)  # the youngest are all that is not frozen
            gc.freeze()

    def _collect_all(self) -> None:
        begun = self._clock()
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        ended = self._clock()
        self._due = ended + (ended - begun) / SHARE
