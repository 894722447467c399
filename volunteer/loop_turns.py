"""The event loop in the device thread's place, for what takes less time than waking that thread.

A GPU computes a graph by itself. Through the device thread a decode step waits for that thread to wake, and
its answer for the event loop to wake, each time on a processor that has slept: together as long as a few
blocks take. So while the thread sleeps, the event loop borrows the device, starts the step's graph, and looks
whether it is done each time it has seen to everything else. Steps of the head, which are shorter, it waits
for. Whatever else is due is the thread's: prompts, what has to be recorded first, what has failed.

Where the next step is about to come, the loop does not sleep either: on one machine, or in one room, its
waking would be a good part of the way there and back. That keeps a core busy while such a reply is written.

Belongs to the event loop's thread. Knows nothing of tensors, models or frames.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from schema.awake import StayingAwake
from volunteer.device_queue import DeviceQueue, OnResult
from volunteer.scheduler import Batch
from volunteer.work import Engine, Result, Underway, Work

AWAKE_SECONDS = 0.01
"""How soon the next step has to come, as far as can be told, for it to be awaited without sleep."""

_logger = logging.getLogger(__name__)
Watch = Callable[[Sequence[Result], float], None]
"""Is told, by who has the device, what a batch has given and how many seconds it took."""


@dataclass(slots=True)
class Served:
    """What computes, and who is told of it. Belongs to who has the device; others may look at it."""

    engine: Engine | None = None
    watch: Watch | None = None


@dataclass(slots=True)
class _Run:
    """A batch that the device computes."""

    batch: Batch
    underway: Underway
    begun: float
    looked_at: float
    """When it was not done, the last time."""

    def seconds(self, now: float) -> float:
        """How long it took, as far as can be told: it has ended between two looks, perhaps far apart."""
        return (self.looked_at + now) / 2 - self.begun


class LoopTurns:
    """What the event loop computes while it has the device."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: DeviceQueue, served: Served) -> None:
        self._loop = loop
        self._queue = queue
        self._served = served
        self._awake = StayingAwake(AWAKE_SECONDS)

    @property
    def is_awake(self) -> bool:
        """Whether the loop does not sleep, since the next step is near."""
        return self._awake.is_awake

    def submit(self, work: Work, on_result: OnResult) -> None:
        """Queues one step, or computes it. Errors as `DeviceQueue.put_work`."""
        batch = self._queue.put_and_borrow(work, on_result)
        if batch is not None:
            self._start(batch)

    def call(self, function: Callable[[], None]) -> bool:
        """Runs `function` if the device is free, and then what it has put into the queue; whether it did."""
        if not self._queue.borrow():
            return False
        begun = monotonic()
        try:
            function()
        finally:
            self._queue.called(monotonic() - begun)
            self._go_on()
        return True

    def _go_on(self) -> None:
        batch = self._queue.go_on()
        if batch is not None:
            self._start(batch)

    def _start(self, batch: Batch) -> None:
        """`batch` is of decode steps alone."""
        begun = monotonic()
        self._awake.step_came(begun)
        engine = self._served.engine
        try:
            underway = None if engine is None else engine.start(batch.steps, begun)
        except Exception:
            _logger.exception("Decode steps could not be begun; they are run on the device's thread.")
            underway = None
        if underway is None:
            self._queue.hand_over(batch)
        else:
            self._loop.call_soon(self._look, _Run(batch, underway, begun, begun))

    def _look(self, run: "_Run") -> None:
        if self._queue.has_ended:  # whoever waited was told
            return
        now = monotonic()
        try:
            if not run.underway.is_done():
                run.looked_at = now
                self._loop.call_soon(self._look, run)
                return
            results = run.underway.results()
        except Exception:
            _logger.exception("Decode steps failed; they are run once more.")
            self._queue.hand_over(run.batch)
        else:
            self._finish(results, run.seconds(now))

    def _finish(self, results: list[Result], seconds: float) -> None:
        """Tells first and counts then: others wait for the answers."""
        try:
            for result in results:
                result.clocked(seconds)
            for on_result, result in self._queue.callers_of(results):
                self._tell(on_result, result)
            self._count(results, seconds)
        except Exception:
            _logger.exception("A batch could not be counted. This is a bug in the volunteer.")
        finally:
            self._awake.step_left(monotonic())
            self._go_on()

    def _count(self, results: list[Result], seconds: float) -> None:
        self._queue.computed(results, seconds)
        if self._served.engine is not None:
            self._queue.observe(self._served.engine)
        if self._served.watch is not None:
            self._served.watch(results, seconds)

    def _tell(self, on_result: OnResult, result: Result) -> None:
        try:
            on_result(result)
        except Exception:
            _logger.exception("An answer could not be handed in. This is a bug in the volunteer.")
