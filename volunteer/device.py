"""The thread that has the device, and the only way to it from the event loop.

    event loop                         device thread
    submit(work, on_result) ─> queue ─> engine.run(batch) ──> on_result(result), on the event loop
    await call(function) ────> queue ─> function() ─────────> its value, or its error
    close(session) ──────────> queue ─> engine.close(session)

Between two batches the thread closes what is to be closed and runs every call that waits; what these
put into the queue goes with the next batch. It sleeps while there is nothing to do. Meanwhile the event loop
may borrow the device for what takes less time than waking the thread (volunteer/loop_turns.py). Knows
nothing of tensors, models or frames: the engine does.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Self, TypeVar

from schema.errors import CorollaError, NotServing, StepFailed
from schema.ids import SessionId
from volunteer.device_queue import Call, Closing, DeviceQueue, DeviceStats, OnResult, Turn
from volunteer.loop_turns import LoopTurns, Served, Watch
from volunteer.scheduler import Batch, Limits
from volunteer.work import Engine, Result, Work

STOP_SECONDS = 10.0
"""How long `stop` lets queued work run, unless told otherwise."""
GRACE_SECONDS = 2.0
"""How long after that the step that is running may take before the thread is given up."""
HOUSEKEEPING_SECONDS = 5.0
"""How often idle sessions are looked for."""

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_E = TypeVar("_E", bound=Engine)


class DeviceThread:
    """Runs work and calls, one after the other, on a thread of its own.

    An async context manager, for one use: the thread lives inside the block. Public methods are for
    the event loop that entered it, but for `submit` and `refused`, which are for any thread.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._queue = DeviceQueue(limits)
        self._served = Served()
        # The device thread's.
        self._housekeeping_at = 0.0
        # The event loop's, set on entering.
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread: int
        self._turns: LoopTurns
        self._finished: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turns = LoopTurns(self._loop, self._queue, self._served)
        self._finished = self._loop.create_future()
        threading.Thread(target=self._main, name="device", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- the event loop -----------------------------------------------------------------------

    async def install(self, build: Callable[[], _E]) -> _E:
        """Builds an engine on the device thread and serves with it from then on, in place of another."""

        def replace() -> _E:
            engine = build()
            if self._served.engine is not None:
                self._served.engine.close_all()
            self._served.engine = engine
            return engine

        return await self.call(replace)

    async def uninstall(self) -> None:
        """Lets go of the engine, with all that it holds. What is asked of it from then on is refused."""

        def remove() -> None:
            if self._served.engine is not None:
                self._served.engine.close_all()
                self._queue.observe(self._served.engine)
            self._served.engine = self._served.watch = None

        await self.call(remove)

    async def watch(self, watch: Watch) -> None:
        """Tells `watch` of every batch from now on, after those who wait for its results."""

        def replace() -> None:
            self._served.watch = watch

        await self.call(replace)

    def submit(self, work: Work, on_result: OnResult) -> None:
        """Queues one step, from any thread. `on_result` is called once, on the event loop.

        It is not called for work that is dropped because its session was closed or went on to a higher
        epoch: nobody waits for that any more.

        Raises:
            QueueFull: too much waits.
            SessionUnknown: the session was closed.
            NotServing: the thread is stopping.
        """
        engine = self._served.engine
        if engine is not None and engine.starts_steps and threading.get_ident() == self._loop_thread:
            self._turns.submit(work, on_result)
        else:
            self._queue.put_work(work, on_result)

    def refused(self, error: CorollaError) -> None:
        """Counts a step that was refused before it could be submitted, from any thread."""
        self._queue.count_refusal(error)

    def call(self, function: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Runs `function` on the device thread, before the next batch; its value, or its error.

        Raises:
            NotServing: the thread is stopping.
        """
        future: asyncio.Future[_T] = self._loop.create_future()
        self._queue.put_call(Call(function, future))
        return future

    def call_at_once(self, function: Callable[[], None]) -> bool:
        """Runs `function` on the event loop if the device is free; whether it did. For what takes less time
        than waking the thread."""
        return threading.get_ident() == self._loop_thread and self._turns.call(function)

    def close(self, session: SessionId, epoch: int = 0, *, keep: bool = False) -> None:
        """Frees the session's KV cache after the batch that is running, and drops what waits of it.

        With `keep` the cache stays for forks of it.

        Later steps of it are refused, unless their epoch is above `epoch` and above all seen so far.
        """
        self._queue.put_close(session, epoch, keep)

    def stats(self) -> DeviceStats:
        return self._queue.stats()

    async def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """Lets queued work run for up to `seconds`, fails the rest by name, frees all, ends the thread.

        Returns whether it has ended: False when a step is stuck, which only the process's end can end.
        """
        self._queue.drain(seconds)
        limit = seconds + GRACE_SECONDS
        done, _ = await asyncio.wait([self._finished], timeout=limit)
        if not done:
            _logger.error("The device thread did not end in %.1f s: a step is stuck.", limit)
            self._end([])
        return bool(done)

    # ---- the device thread --------------------------------------------------------------------

    def is_wanted(self) -> bool:
        """Whether anything waits: for calls that are long, and make way."""
        return self._queue.is_wanted()

    def _main(self) -> None:
        turn: Turn | None = None
        try:
            while (turn := self._queue.next_turn()) is not None:
                self._do(turn)
        except Exception:
            _logger.exception("The device thread died. This is a bug in the volunteer.")
        finally:
            self._end(turn.calls if turn else [])
            if self._served.engine is not None:
                self._served.engine.close_all()
                self._queue.observe(self._served.engine)
            self._post(_resolve, self._finished, None)

    def _do(self, turn: Turn) -> None:
        for call in turn.calls:
            self._run_call(call)
        if self._served.engine is not None:
            self._tidy(self._served.engine, turn.closing)
        batch, sleeps, rest = self._queue.take(may_sleep=not any(turn))
        if batch.steps:
            self._run(batch)
        elif sleeps:
            self._queue.sleep(HOUSEKEEPING_SECONDS if rest is None else rest)

    def _tidy(self, engine: Engine, closing: list[Closing]) -> None:
        now, expired = monotonic(), 0
        for session, keeps in closing:
            if keeps:
                engine.keep(session, now)
            else:
                engine.close(session)
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_SECONDS
            expired = len(engine.expire(now))
        self._queue.observe(engine, expired)

    def _run_call(self, call: Call) -> None:
        if call.future.cancelled():
            return
        begun = monotonic()
        try:
            value = call.function()
        except Exception as error:  # noqa: BLE001 - it is raised where the call is awaited
            self._post(_fail, call.future, error)
        else:
            self._post(_resolve, call.future, value)
        self._queue.called(monotonic() - begun)

    def _run(self, batch: Batch) -> None:
        begun = monotonic()
        results = self._compute(batch, begun)
        seconds = monotonic() - begun
        for result in results:
            result.clocked(seconds)
        answers = self._queue.computed(results, seconds)
        if self._served.engine is not None:
            self._queue.observe(self._served.engine)
        if len(answers) == 1:
            self._post(*answers[0])
        elif answers:
            self._post(self._answer, answers)
        if self._served.watch is not None:
            self._served.watch(results, seconds)

    def _answer(self, answers: list[tuple[OnResult, Result]]) -> None:
        """On the event loop: tells all of a batch at once, so that their next steps come together too."""
        for on_result, result in answers:
            self._loop.call_soon(on_result, result)

    def _compute(self, batch: Batch, now: float) -> list[Result]:
        engine = self._served.engine
        if engine is None:
            missing = NotServing("no blocks are loaded here yet")
            return [Result(work, error=missing) for work in batch.steps]
        try:
            return engine.run(batch.steps, batch.prefill_tokens, now)
        except Exception as error:
            _logger.exception("A batch failed as a whole.")
            for work in batch.steps:
                engine.close(work.session)
            failed = StepFailed(f"the batch could not be computed ({type(error).__name__})")
            return [Result(work, error=failed) for work in batch.steps]

    # ---- either side --------------------------------------------------------------------------

    def _end(self, begun: list[Call]) -> None:
        """Ends the queue: whoever still waits for a step or a call is told by name."""
        rest = self._queue.end()
        for on_result, result in rest.results:
            self._post(on_result, result)
        for call in begun + rest.calls:
            self._post(_fail, call.future, rest.error)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            _logger.warning("A result came after the event loop had ended.")


def _resolve(future: "asyncio.Future[Any]", value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
