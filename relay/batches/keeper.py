"""Begins and ends batches: checks input files, writes output and error files, ends what is overdue.

Any replica does it, under the batch's lease. What it makes counts only if the batch is still in the state in
which it was taken, so that two of them do no harm. Does not know how lines are answered
(relay/batches/worker.py).
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator

import msgspec

from relay.batches.files_api import new_file_id
from relay.batches.lines import Check, Refused, lines_of, parse_line
from relay.batches.webhooks import event_for
from relay.batches.worker import new_line_id
from relay.records import BatchRecord, FileRecord
from relay.services import Services
from relay.turns import TURN_SECONDS
from schema.batches import BatchError, LineError, OutputLine
from schema.errors import CorollaError, NotFound

LEASE_SECONDS = 60.0
"""For checking a file or writing one; longer only makes somebody else do it too."""
POLL_SECONDS = 1.0
"""How often it is looked for what other replicas have left; this one's own work rings."""
SWEEP_SECONDS = 3600.0
PAGE_LINES = 64

log = logging.getLogger(__name__)


class Keeper:
    """What one replica does for batches as a whole."""

    def __init__(self, begun: asyncio.Event, ended: asyncio.Event) -> None:
        """`begun`: to be set when there are lines to answer. `ended`: is set when there may be work here."""
        self._begun = begun
        self._ended = ended
        self._holder = secrets.token_hex(8)
        self._swept_at = -math.inf

    async def run(self, services: Services) -> None:
        """Until it is cancelled."""
        while True:
            try:
                while await self._work(services):
                    pass
                await self._sweep(services)
            except CorollaError as error:
                log.warning("batches wait: %s", error.message)
            except Exception:
                log.exception("a batch could not be begun or ended, and will be tried again")
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                pass
            self._ended.clear()

    async def _sweep(self, services: Services) -> None:
        """Forget answers that a replica has left behind which died meanwhile."""
        now = asyncio.get_running_loop().time()
        if now < self._swept_at + SWEEP_SECONDS:
            return
        for batch_id in await services.store.ended_with_answers():
            await self._forget(services, batch_id)
        self._swept_at = now

    async def _forget(self, services: Services, batch_id: str) -> None:
        while await services.store.forget_answers(batch_id):
            pass  # others write in between

    async def _work(self, services: Services) -> bool:
        """Whether there was any."""
        now = time.time()
        await services.store.close_overdue(now)
        batch = await services.store.take_batch(self._holder, now, now + LEASE_SECONDS)
        if batch is None:
            return False
        if batch.status == "validating":
            await self._check(services, batch)
        else:
            await self._end(services, batch)
        return True

    async def _check(self, services: Services, batch: BatchRecord) -> None:
        check = Check(batch.endpoint)
        turn = time.perf_counter() + TURN_SECONDS
        try:
            async for line in lines_of(services.storage.read(batch.input_file_id)):
                check.take(line)
                if time.perf_counter() >= turn:  # as relay/turns.py does for what is not asynchronous
                    await asyncio.sleep(0)
                    turn = time.perf_counter() + TURN_SECONDS
            check.end()
        except Refused as refused:
            check.errors.append(refused.error)
        except NotFound as error:
            check.errors.append(BatchError(code="input_file_gone", message=error.message))
        now = time.time()
        if not check.errors:
            if await services.store.begin_batch(batch.id, check.chunks, check.total, now):
                self._begun.set()
            return
        errors = msgspec.json.encode(check.errors).decode()
        ended = batch._replace(status="failed", failed_at=now)
        if await services.store.fail_batch(batch.id, errors, now, event_for(ended)):
            services.metrics.batches["failed"] += 1

    async def _end(self, services: Services, batch: BatchRecord) -> None:
        """Write what there is, in the order of the input; who has no answer is in the error file."""
        why_not = None
        if batch.status == "cancelling":
            why_not = LineError(
                code="batch_cancelled", message="the batch was cancelled before this line's turn"
            )
        elif batch.expired_at is not None:
            why_not = LineError(
                code="batch_expired", message="the batch's time was over before this line's turn"
            )
        files: list[FileRecord] = []
        try:
            output = await self._write(services, batch, "output", _answers(services, batch, False))
            files += [output[0]] if output else []
            errors = await self._write(services, batch, "error", _errors(services, batch, why_not))
            files += [errors[0]] if errors else []
        except BaseException:
            await _remove(services, files)  # it will be tried again
            raise
        ended = _ended(batch)._replace(
            output_file_id=output[0].id if output else None,
            error_file_id=errors[0].id if errors else None,
            completed=output[1] if output else 0,
            failed=errors[1] if errors else 0,
            holder=None,
            leased_until=0.0,
        )
        # Where this does not return, it may be committed all the same: then the bytes stay.
        kept = await services.store.end_batch(batch, ended, files, event_for(ended))
        if not kept:  # somebody else was faster
            await _remove(services, files)
            return
        services.metrics.batches[ended.status] += 1
        await self._forget(services, batch.id)

    async def _write(
        self, services: Services, batch: BatchRecord, kind: str, lines: AsyncIterator[str]
    ) -> tuple[FileRecord, int] | None:
        """A file of these lines, and how many they are; None when there are none."""
        first = await anext(lines, None)
        if first is None:
            return None
        count = 1

        async def parts() -> AsyncIterator[bytes]:
            nonlocal count
            yield first.encode() + b"\n"
            async for line in lines:
                count += 1
                yield line.encode() + b"\n"

        file_id = new_file_id()
        size = await services.storage.write(file_id, parts())
        name = f"{batch.id}_{kind}.jsonl"
        return FileRecord(file_id, batch.token_id, name, "batch_output", size, time.time()), count


async def _remove(services: Services, files: list[FileRecord]) -> None:
    for file in files:
        await services.storage.remove(file.id)


def _ended(batch: BatchRecord) -> BatchRecord:
    now = time.time()
    if batch.status == "cancelling":
        return batch._replace(status="cancelled", cancelled_at=now)
    if batch.expired_at is not None:
        return batch._replace(status="expired", expired_at=now)
    return batch._replace(status="completed", completed_at=now)


async def _answers(services: Services, batch: BatchRecord, is_error: bool) -> AsyncIterator[str]:
    after = -1
    while page := await services.store.answers_of(batch.id, is_error, after, PAGE_LINES):
        for answer in page:
            yield answer.output
        after = page[-1].line


async def _errors(services: Services, batch: BatchRecord, why_not: LineError | None) -> AsyncIterator[str]:
    """Lines that were refused, then those that had no turn: each of the two in the order of the input."""
    async for output in _answers(services, batch, True):
        yield output
    if why_not is None or not batch.total:
        return
    answered = await services.store.answered_lines(batch.id)
    try:
        async for line in lines_of(services.storage.read(batch.input_file_id)):
            if line.number not in answered:
                name = str(parse_line(line, batch.endpoint).custom_id)
                output = OutputLine(id=new_line_id(), custom_id=name, error=why_not)
                yield msgspec.json.encode(output).decode()
    except NotFound:
        log.warning("%s ends without the lines that had no turn: its input is gone", batch.id)
