"""Serves blocks: frames from the exchange become work for the device thread, and its results frames.

Knows which sessions it serves, so that a leaving volunteer can wait for their end, and so that none of them
outlives the link: without it their drivers cannot use or close them any more. Owned by the event loop's
thread. Does not know how blocks are computed (volunteer/stage.py).
"""

import asyncio
import logging
from functools import partial
from time import monotonic

from corolla.exchange import Exchange, Launch, WorkOrder
from schema.errors import CorollaError, MalformedFrame
from schema.frames import Flags, Frame, FrameType, is_timed
from schema.ids import SessionId
from schema.resuming import Replay, decode_replay, encode_replay
from schema.trace import HopTrace
from volunteer.device import DeviceThread
from volunteer.work import Result, Stopwatch, Work, tokens_of

_SESSION_STEPS = frozenset({FrameType.STEP, FrameType.PREFILL, FrameType.REPLAY})
_TIMED = frozenset({FrameType.STEP, FrameType.PREFILL})
_KINDS = {int(kind): kind for kind in FrameType}
"""Making a member of an enum takes ten times as long as finding it."""

log = logging.getLogger(__name__)


class SpanService:
    """The blocks that this volunteer serves, as the exchange sees them (`corolla.exchange.SpanServer`)."""

    def __init__(self, exchange: Exchange, device: DeviceThread) -> None:
        self._exchange = exchange
        self._device = device
        self._sessions: set[SessionId] = set()
        """Those that were given work and not closed; the device may have freed an idle one earlier."""
        self._idle = asyncio.Event()
        """Set while there is none."""
        self._idle.set()

    def __len__(self) -> int:
        """Sessions that are served."""
        return len(self._sessions)

    async def finish(self) -> None:
        """Wait until no session is served."""
        await self._idle.wait()

    def close_all(self) -> None:
        """Free every session's KV cache."""
        for session in list(self._sessions):
            self.on_close(session)

    def on_work(self, frame: Frame, order: WorkOrder) -> None:
        try:
            self._submit(frame, order, frame.payload)
        except CorollaError as error:
            self._fail(frame, error)
        else:
            self._count(order.session)

    def on_malformed(self, frame: Frame, error: MalformedFrame) -> None:
        self._device.refused(error)
        self._fail(frame, error)

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        self._count(order.session)
        return partial(self._submit, frame, order)

    def _submit(self, frame: Frame, order: WorkOrder, payload: bytes | memoryview) -> None:
        """Any thread. Raises what `work_of` and `DeviceThread.submit` raise; all of it is counted there."""
        try:
            work = work_of(frame, order, payload)
        except CorollaError as error:
            self._device.refused(error)
            raise
        self._device.submit(work, partial(self._on_result, frame))

    def _count(self, session: SessionId) -> None:
        self._sessions.add(session)
        self._idle.clear()

    def on_close(self, session: SessionId, keep: bool = False) -> None:
        self._device.close(session, keep=keep)
        self._sessions.discard(session)
        if not self._sessions:
            self._idle.set()

    def _on_result(self, frame: Frame, result: Result) -> None:
        if result.error is not None:
            self._fail(frame, result.error)
            return
        stopwatch = result.work.stopwatch
        # Before the answer: a driver in this process reads the clock when it comes.
        trace = None if stopwatch is None else stopwatch.read(monotonic())
        try:
            self._exchange.answer(frame, answer_of(frame, result))
        except CorollaError as error:
            self._fail(frame, error)
            return
        if trace is not None:
            self._trace(frame, trace)

    def _trace(self, frame: Frame, trace: HopTrace) -> None:
        try:
            self._exchange.trace(frame, trace)
        except CorollaError as error:
            log.info("a step's times could not be told: %s", error.message)

    def _fail(self, frame: Frame, error: CorollaError) -> None:
        log.warning(
            "%s: %s", error.code, error.message, extra={"session": frame.session.hex(), "step": frame.step}
        )
        try:
            self._exchange.fail(frame, error)
        except CorollaError as unsent:
            log.info(
                "the driver could not be told: %s", unsent.message, extra={"session": frame.session.hex()}
            )


def work_of(frame: Frame, order: WorkOrder, payload: bytes | memoryview) -> Work:
    """What the device has to do for a frame with this payload.

    Raises:
        MalformedFrame: a REPLAY whose states are of other tokens than it says.
    """
    kind = _KINDS[frame.type]
    flags = Flags(frame.flags) if order.is_last else Flags.NONE
    tokens = tokens_of(payload) if kind in (FrameType.PREFILL, FrameType.FORWARD) else 1
    if order.replay is not None:
        flags = Flags.NO_OUTPUT if order.is_last else Flags.NONE
        payload, tokens = order.replay.states, _tokens_replayed(order.replay)
    return Work(
        kind=kind,
        session=order.session,
        step=frame.step,
        position=frame.position,
        epoch=frame.epoch,
        span=order.span,
        payload=payload,
        flags=flags,
        tokens=tokens,
        forks=order.forks,
        resumes=order.resumes,
        feeds_hop=not order.is_last and kind in _SESSION_STEPS,
        stopwatch=Stopwatch(monotonic()) if is_timed(frame.flags) and kind in _TIMED else None,
        feeds_new=order.is_next_new,
    )


def _tokens_replayed(replay: Replay) -> int:
    """Raises MalformedFrame where the states are of other tokens than it says."""
    if replay.states and tokens_of(replay.states) != replay.tokens:
        raise MalformedFrame(f"a REPLAY of {replay.tokens} tokens carries {tokens_of(replay.states)}")
    return replay.tokens


def answer_of(frame: Frame, result: Result) -> bytes:
    """The payload of the frame that goes on to the next stop."""
    if frame.type != FrameType.REPLAY:
        return result.payload
    return encode_replay(decode_replay(frame.payload)._replace(states=result.payload))
