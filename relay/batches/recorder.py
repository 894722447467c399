"""Answers of lines on their way into SQL: those that come together go together.

While the database is away they wait here, and their lines count as not answered: if this replica dies then,
they are computed again elsewhere. One that can never be written fails alone, and keeps no others from being
written. Does not know what they are.
"""

import asyncio
import logging
from dataclasses import dataclass

from relay.records import AnswerRecord
from relay.store import Store
from schema.errors import CorollaError

AT_ONCE, CHARS_AT_ONCE = 200, 4 * 1024 * 1024
"""Of one transaction; a single answer may be longer."""
GATHER_SECONDS = 0.02
"""That the first of them waits for others. The line's place is somebody else's by then."""
RETRY_SECONDS = 1.0
MOST_OUTAGES = 3
"""Of one answer alone, while others were written in between: then it is not the database that is at fault."""

log = logging.getLogger(__name__)


class CannotBeWritten(Exception):
    """An answer that the database does not take."""


@dataclass(slots=True)
class _Waiting:
    """An answer on its way."""

    answer: AnswerRecord
    written: asyncio.Future[None]
    outages: int = 0
    """Of `MOST_OUTAGES`."""
    seen: int = -1
    """How many transactions had succeeded at the last one."""


class Recorder:
    """Writes answers for as long as `run` does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._bell = asyncio.Event()
        self._at_once = AT_ONCE
        self._succeeded = 0

    async def record(self, answer: AnswerRecord) -> None:
        """Return when an answer is written down, or nobody wants it any more.

        Raises:
            CannotBeWritten: it never will be.
        """
        one = _Waiting(answer, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._bell.set()
        await one.written

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._bell.clear()
            while self._waiting:
                await self._write(self._next())

    def _next(self) -> list[_Waiting]:
        some, chars = [self._waiting[0]], len(self._waiting[0].answer.output)
        for one in self._waiting[1 : self._at_once]:
            chars += len(one.answer.output)
            if chars > CHARS_AT_ONCE:
                break
            some.append(one)
        return some

    async def _write(self, some: list[_Waiting]) -> None:
        """The first ones of those that wait."""
        try:
            await self._store.record_answers([one.answer for one in some])
        except CorollaError as error:
            log.warning("answers of %d lines wait to be written: %s", len(self._waiting), error.message)
            self._part(some, is_outage=True)
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception:
            log.exception("answers of %d lines wait to be written", len(self._waiting))
            self._part(some, is_outage=False)
            await asyncio.sleep(0)  # its reader has a turn, whatever the database does
            return
        del self._waiting[: len(some)]
        self._succeeded += 1
        self._at_once = min(AT_ONCE, 2 * self._at_once)
        for one in some:
            if not one.written.done():
                one.written.set_result(None)

    def _part(self, some: list[_Waiting], is_outage: bool) -> None:
        """Try fewer of them next; one that is alone goes to the end, or fails if it is at fault itself."""
        self._at_once = max(1, len(some) // 2)
        if len(some) > 1:
            return
        one = self._waiting.pop(0)
        one.outages += one.seen < self._succeeded if one.seen >= 0 else 0
        one.seen = self._succeeded
        if is_outage and one.outages < MOST_OUTAGES:
            self._waiting.append(one)
        elif not one.written.done():
            one.written.set_exception(CannotBeWritten(f"line {one.answer.line} of {one.answer.batch_id}"))
