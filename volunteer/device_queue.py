"""What the event loop and the device thread share: what waits, who is to be told, and who has the device.

Every field is touched by both sides, under one lock that is held for microseconds and never while
anything runs. The event loop puts in; the device thread takes turns out, or sleeps while there is
nothing. While it sleeps nobody has the device, and the event loop may borrow it (volunteer/loop_turns.py):
nothing wakes the thread then until it is given back. Has no thread and no event loop of its own, and runs
nothing.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from schema.errors import CorollaError, NotServing
from schema.frames import FrameType
from schema.ids import SessionId
from volunteer.scheduler import Batch, Limits, Scheduler
from volunteer.work import Engine, Result, Work

OnResult = Callable[[Result], None]
NOTHING = Batch([], 0)
_DECODED = (FrameType.STEP, FrameType.PROBE)


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """The device's state at one moment."""

    queued: int
    """Steps that wait."""
    queued_bytes: int
    waited: float
    """Seconds that the step taken last had waited."""
    sessions: int
    """Sessions with a KV cache."""
    kv_used: int
    """Bytes of KV cache."""
    steps: int
    """Steps computed since the start."""
    busy_seconds: float
    """Time spent in steps and calls since the start."""
    failures: Mapping[str, int]
    """Steps not computed, by error code or `stale` or `cancelled`; and sessions freed because `idle`."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function to run on the device thread, and who waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]


class Closing(NamedTuple):
    """A session that is over."""

    session: SessionId
    keeps: bool
    """Whether its KV cache stays for forks of it."""


class Turn(NamedTuple):
    """What the thread does before it takes a batch: all that waits to be closed or called."""

    closing: list[Closing]
    calls: list[Call]


class Taken(NamedTuple):
    """A batch, or for how long to sleep instead."""

    batch: Batch
    sleeps: bool
    """Whether the thread has let go of the device, and sleeps now."""
    rest: float | None
    """Seconds to sleep at most; None: until something is put in."""


class Rest(NamedTuple):
    """Who still waited when the queue ended."""

    results: list[tuple[OnResult, Result]]
    calls: list[Call]
    error: NotServing


class _Holder(Enum):
    """Who has the device."""

    THREAD = "the device thread"
    LOOP = "the event loop"
    NOBODY = "nobody"
    """The device thread sleeps."""


class _State(Enum):
    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(slots=True)
class _Counters:
    sessions: int = 0
    kv_used: int = 0
    steps: int = 0
    busy_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=lambda: Counter[str]())


class DeviceQueue:
    """Steps, calls and sessions to close, on their way to the device thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._lock = threading.Lock()
        self._state = _State.RUNNING
        self._deadline = float("inf")
        """When what still waits is given up; on the clock of `time.monotonic`."""
        self._scheduler = Scheduler(limits)
        self._callers: dict[Work, OnResult] = {}
        """Who is to be told, of work that waits or runs."""
        self._calls: list[Call] = []
        self._closing: list[Closing] = []
        self._counters = _Counters()
        self._holder = _Holder.THREAD
        self._is_thread_due = False
        """Whether the thread waits for the event loop to give the device back, with nothing that woke it."""
        self._lent: Batch = NOTHING
        """What the event loop had begun and the thread is to compute."""
        self._wake: SimpleQueue[None] = SimpleQueue()

    # ---- the event loop's side ----------------------------------------------------------------

    def put_work(self, work: Work, on_result: OnResult) -> None:
        """Raises QueueFull or SessionUnknown, as `Scheduler.add`, and NotServing at the end."""
        with self._lock:
            self._put(work, on_result)
            self._rouse()

    def put_and_borrow(self, work: Work, on_result: OnResult) -> Batch | None:
        """As `put_work`; and where nothing is ahead of it, the batch that it makes, and the device with it.

        Whoever gets one computes it, or has it computed (`hand_over`), and asks for the next (`go_on`).
        """
        with self._lock:
            is_free = self._holder is _Holder.NOBODY and not self._is_wanted()
            if is_free and self._scheduler.take_at_once(work, monotonic()):
                self._callers[work] = on_result
                self._holder = _Holder.LOOP
                return Batch([work], 0)
            self._put(work, on_result)
            self._rouse()
            return None

    def borrow(self) -> bool:
        """Whether the event loop has the device now, because nobody had it and nothing waits."""
        with self._lock:
            if self._holder is not _Holder.NOBODY or self._is_wanted():
                return False
            self._holder = _Holder.LOOP
            return True

    def count_refusal(self, error: CorollaError) -> None:
        """Counts a step that was refused before it came here."""
        with self._lock:
            self._counters.failures[error.code] += 1

    def put_call(self, call: Call) -> None:
        """Raises NotServing at the end."""
        with self._lock:
            self._check_running()
            self._calls.append(call)
            self._rouse()

    def put_close(self, session: SessionId, epoch: int, keeps: bool = False) -> None:
        with self._lock:
            self._forget(self._scheduler.cancel(session, epoch))
            self._closing.append(Closing(session, keeps))
            self._rouse()

    def drain(self, seconds: float) -> None:
        """Takes nothing more, and ends when nothing waits or `seconds` are over."""
        with self._lock:
            if self._state is _State.RUNNING:
                self._state = _State.DRAINING
                self._deadline = monotonic() + seconds
            self._rouse()

    def stats(self) -> DeviceStats:
        with self._lock:
            scheduler, counters = self._scheduler, self._counters
            return DeviceStats(
                queued=scheduler.queued,
                queued_bytes=scheduler.queued_bytes,
                waited=scheduler.waited,
                sessions=counters.sessions,
                kv_used=counters.kv_used,
                steps=counters.steps,
                busy_seconds=counters.busy_seconds,
                failures=counters.failures + Counter(scheduler.dropped),
            )

    # ---- the side that has the device: the device thread, or the event loop while it has borrowed it -

    def go_on(self) -> Batch | None:
        """What the event loop computes next; None: it has given the device back."""
        with self._lock:
            batch = NOTHING if self._is_thread_due else self._next_for_loop()
            if batch.steps:
                return batch
            self._give_back()
            return None

    def hand_over(self, batch: Batch) -> None:
        """Gives the device back, and has the thread compute this before anything else."""
        with self._lock:
            self._lent = batch
            self._give_back()

    def is_wanted(self) -> bool:
        """Whether anything waits for the device, or its end does."""
        with self._lock:
            return self._is_wanted()

    def next_turn(self) -> Turn | None:
        """What is due now, perhaps nothing. None when the thread shall end."""
        with self._lock:
            if self._state is _State.ENDED or monotonic() >= self._deadline:
                return None
            if self._lent.steps:  # what is to be closed may be what these belong to
                return Turn([], [])
            turn = Turn(self._closing, self._calls)
            self._closing, self._calls = [], []
            waits = any(turn) or self._scheduler.queued
            return None if self._state is _State.DRAINING and not waits else turn

    def take(self, may_sleep: bool) -> Taken:
        """The next batch. With `may_sleep`: if it is empty and nothing else is due, `sleep` must follow."""
        with self._lock:
            if self._lent.steps:
                batch, self._lent = self._lent, NOTHING
                return Taken(batch, False, None)
            now = monotonic()
            wait = self._scheduler.wait(now) if self._state is _State.RUNNING else 0.0
            batch = NOTHING if wait else self._scheduler.take(now)
            sleeps = may_sleep and not batch.steps and not self._closing and not self._calls
            sleeps = sleeps and self._state is _State.RUNNING
            if sleeps:
                self._holder = _Holder.NOBODY
            return Taken(batch, sleeps, wait or None)

    def sleep(self, seconds: float) -> None:
        """Returns when there is something for the thread, or after `seconds`, with the device."""
        try:
            self._wake.get(timeout=seconds)
        except Empty:
            with self._lock:
                if self._holder is _Holder.NOBODY:
                    self._holder = _Holder.THREAD
                    return
                self._is_thread_due = self._holder is _Holder.LOOP
            self._wake.get()  # it is given back; or the thread was woken in the moment before

    def computed(self, results: list[Result], seconds: float) -> list[tuple[OnResult, Result]]:
        """Counts a batch that took `seconds`; returns its results with those who wait for them.

        Slices with more to compute go back into the queue.
        """
        with self._lock:
            now = monotonic()
            decoded = [one.work.session for one in results if one.work.kind in _DECODED]
            self._scheduler.computed(decoded, sum(one.tokens for one in results), seconds, now)
            self._counters.busy_seconds += seconds
            for result in results:
                if result.is_unfinished:
                    self._forget(self._scheduler.put_back(result.work, now))
                elif result.error is None:
                    self._counters.steps += 1
                else:
                    self._counters.failures[result.error.code] += 1
            return self._pop_callers([one for one in results if not one.is_unfinished])

    def callers_of(self, results: list[Result]) -> list[tuple[OnResult, Result]]:
        """Finished results with those who wait for them, who are to be told now and not by `computed`."""
        with self._lock:
            return self._pop_callers(results)

    def called(self, seconds: float) -> None:
        """Counts a call that took `seconds`."""
        with self._lock:
            self._counters.busy_seconds += seconds

    def observe(self, engine: Engine, expired: int = 0) -> None:
        """Takes over what the engine says; `expired` sessions were just freed because they were idle."""
        with self._lock:
            self._counters.sessions = engine.sessions
            self._counters.kv_used = engine.kv_used
            self._counters.failures["idle"] += expired
            self._scheduler.is_one_pass = engine.is_one_pass

    # ---- either side --------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether nothing is computed any more; of one look without the lock, as it never changes back."""
        return self._state is _State.ENDED

    def end(self) -> Rest:
        """Takes everything out, running steps included, for good; returns who is to be told that."""
        error = NotServing("this volunteer has left before it came to this step")
        with self._lock:
            self._state = _State.ENDED
            calls, self._calls = self._calls, []
            while self._scheduler.take(monotonic()).steps:
                pass
            results = self._pop_callers([Result(work, error=error) for work in self._callers])
            self._counters.failures[error.code] += len(results)
            return Rest(results, calls, error)

    def _check_running(self) -> None:
        if self._state is not _State.RUNNING:
            raise NotServing("this volunteer is leaving: use another one")

    def _forget(self, dropped: list[Work]) -> None:
        for work in dropped:
            self._callers.pop(work, None)

    def _pop_callers(self, results: list[Result]) -> list[tuple[OnResult, Result]]:
        """Without those who were told already that the queue has ended."""
        return [
            (self._callers.pop(result.work), result) for result in results if result.work in self._callers
        ]

    def _put(self, work: Work, on_result: OnResult) -> None:
        try:
            self._check_running()
            dropped = self._scheduler.add(work, monotonic())
        except CorollaError as error:
            self._counters.failures[error.code] += 1
            raise
        self._callers[work] = on_result
        self._forget(dropped)
        if work.resumes is not None:  # what was under way in that session was given up by its driver
            self._forget(self._scheduler.cancel(work.resumes))

    def _is_wanted(self) -> bool:
        waiting = self._calls or self._closing or self._scheduler.queued or self._lent.steps
        return bool(waiting) or self._state is not _State.RUNNING

    def _next_for_loop(self) -> Batch:
        """Decode steps to compute at once; nothing where the thread has to come first."""
        if self._calls or self._closing or self._state is not _State.RUNNING:
            return NOTHING
        now = monotonic()
        if not self._scheduler.has_decode_only or self._scheduler.wait(now):
            return NOTHING
        return self._scheduler.take(now)

    def _give_back(self) -> None:
        self._holder = _Holder.NOBODY
        if self._is_wanted() or self._is_thread_due:
            self._rouse()

    def _rouse(self) -> None:
        if self._holder is _Holder.NOBODY:
            self._holder, self._is_thread_due = _Holder.THREAD, False
            self._wake.put(None)
