"""Serves blocks: frames from the exchange become work for the device thread, and its results frames.

Knows which sessions it serves, so that a leaving volunteer can wait for their end, and so that none of them
outlives the link: without it their drivers cannot use or close them any more. Owned by the event loop's
thread. Does not know how blocks are computed (volunteer/stage.py).
"""

import asyncio
import logging
from functools import partial

from corolla.exchange import Exchange, Launch, WorkOrder
from schema.errors import CorollaError
from schema.frames import Flags, Frame, FrameType
from schema.ids import SessionId
from volunteer.device import DeviceThread
from volunteer.work import Result, Work, tokens_of

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

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        self._count(order.session)
        return partial(self._submit, frame, order)

    def _submit(self, frame: Frame, order: WorkOrder, payload: bytes | memoryview) -> None:
        """Any thread. Raises what `DeviceThread.submit` raises."""
        kind = FrameType(frame.type)
        work = Work(
            kind=kind,
            session=order.session,
            step=frame.step,
            position=frame.position,
            epoch=frame.epoch,
            span=order.span,
            payload=payload,
            flags=Flags(frame.flags) if order.is_last else Flags.NONE,
            tokens=tokens_of(payload) if kind in (FrameType.PREFILL, FrameType.FORWARD) else 1,
            forks=order.forks,
        )
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
        try:
            self._exchange.answer(frame, result.payload)
        except CorollaError as error:
            self._fail(frame, error)

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
