"""Answers the lines of batches, as many at a time as there is room for (relay/batches/gate.py).

    take a chunk ─> each line: wait for room ─> answer ─> record ─> all recorded: the chunk is done
         │                        └── try again later <──┘ the swarm was busy, or a head left
         └─ renew its lease ─> it is somebody else's, or the batch has ended: drop it

What counts is what is recorded: a replica may die anywhere, and another one answers what has no answer yet.
Does not know how a batch begins or ends (relay/batches/keeper.py).
"""

import asyncio
import dataclasses
import logging
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from relay import answering
from relay.batches.asked import Asked, asked_by, body_of
from relay.batches.gate import Gate, GateClosed
from relay.batches.lines import CHUNK_LINES, lines_of
from relay.batches.recorder import CannotBeWritten, Recorder
from relay.batches.taken import NOTHING, Taken, taken_by
from relay.batches.trying import is_broken, is_tried_again, pause_before
from relay.records import AnswerRecord, ChunkKey, HeldChunk
from relay.services import Services
from schema.api import error_body
from schema.batches import LineResponse, OutputLine
from schema.errors import CorollaError

LEASE_SECONDS = 10.0
"""After which the chunks of a replica that has died are anybody's."""
RENEW_SECONDS = 3.0
POLL_SECONDS = 0.25
"""How often it is looked for more work, and who else is at work, by a replica that has some."""
IDLE_SECONDS = 1.0
"""How often it is looked for work that others have made, by one that has none."""
LOOK_SECONDS = 0.1
"""How often it is looked whether people have left room, where there are lines that want it."""
MOST_CHUNKS = 256
"""Of one replica."""
MOST_IDLE = 8
"""Chunks of all batches that only wait for one model: more of them would keep other models' lines out."""
MOST_UNREAD = 16
"""Chunks of which it is not known yet what they wait for."""

MISTAKE = "the relay made a mistake here"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Work:
    """A chunk that is worked on here."""

    held: HeldChunk
    left: int
    """Lines that are not recorded."""
    expected: set[str]
    """What it is thought to wait for until it is read, as other chunks of its batch did."""
    idle: Counter[str] | None = None
    """By model, lines that wait for room or to be tried again; None: they are not read yet."""
    running: int = 0
    is_broken: bool = False
    """Whether a reply to one of its lines has broken; how often is known here only."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def waits(self) -> int:
        """How many lines wait, as far as is known."""
        return self.left if self.idle is None else self.idle.total()

    def waits_for(self) -> set[str]:
        """The models without which nothing of it goes on; none while a line is under way."""
        if self.idle is None:
            return self.expected
        if self.is_broken or self.idle.total() < self.left:
            return set()
        return {model for model, lines in self.idle.items() if lines}


class Worker:
    """What one replica answers of all batches."""

    def __init__(self, gate: Gate, recorder: Recorder, ended: asyncio.Event) -> None:
        """`ended`: is set when a batch's last line is recorded."""
        self.holder = secrets.token_hex(8)
        """What its leases say."""
        self.bell = asyncio.Event()
        """To be set when there may be work."""
        self._gate = gate
        self._recorder = recorder
        self._ended = ended
        self._works: dict[ChunkKey, _Work] = {}
        self._aside: dict[str, set[str]] = {}
        """Batches whose chunks were given back, and the models that they wait for."""
        self._may_be_more = False
        """Whether the last look has found a chunk: then lines that begin make place for the next one."""
        self._full: set[str] = set()
        """Batches of which the last look wanted no chunk, since enough of their lines waited here."""

    async def run(self, services: Services) -> None:
        """Until it is cancelled; then what it has is given back."""
        now = asyncio.get_running_loop().time
        renewal = poll = 0.0
        try:
            while not self._gate.is_shut or self._works:
                if services.stopping.is_set():
                    self._gate.close()
                self._gate.look()
                try:
                    if now() >= renewal:
                        await self._renew(services)
                        renewal = now() + RENEW_SECONDS
                    if self.bell.is_set() or now() >= poll:
                        self.bell.clear()
                        poll = now() + (POLL_SECONDS if self._works else IDLE_SECONDS)
                        others = await services.store.others_at_work(self.holder, time.time())
                        self._gate.workers = 1 + others
                        await self._leave_to_others(services)
                        # A lease that was not renewed in time may be found, and is this replica's own.
                        while now() < renewal and await self._take(services):
                            pass
                except CorollaError as error:
                    log.warning("batches wait: %s", error.message)
                    await asyncio.sleep(POLL_SECONDS)
                except Exception:
                    log.exception("batches wait, and will be looked at again")
                    await asyncio.sleep(POLL_SECONDS)
                await self._pause()
        finally:
            await self._give_back(services)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS if self._works else IDLE_SECONDS):
                await self.bell.wait()
        except TimeoutError:
            pass

    async def _take(self, services: Services) -> bool:
        """Begin a chunk, unless enough lines wait here already. Whether there was one."""
        unread = sum(work.idle is None for work in self._works.values())
        if self._gate.is_shut or unread >= MOST_UNREAD or len(self._works) >= MOST_CHUNKS:
            return False
        waiting = Counter(model for work in self._works.values() for model in work.waits_for())
        aside = {batch: models for batch, models in self._aside.items() if _are_full(models, waiting)}
        full = {batch for batch, lines in self._idle_lines().items() if lines >= CHUNK_LINES}
        now = time.time()
        held = await services.store.take_chunk(self.holder, now, now + LEASE_SECONDS, full | aside.keys())
        self._may_be_more, self._full = held is not None, full
        if held is None:
            self._aside = aside  # there is nothing left of the others
            return False
        if held.key in self._works:
            return True  # its lease was over, and is its own again
        work = self._works[held.key] = _Work(held, held.chunk.lines, self._aside.pop(held.batch_id, set()))
        work.task = asyncio.create_task(self._answer_chunk(services, work))
        return True

    def _idle_lines(self) -> Counter[str]:
        """How many lines of each batch wait here, as far as is known."""
        idle: Counter[str] = Counter()
        for work in self._works.values():
            idle[work.held.batch_id] += work.waits()
        return idle

    async def _leave_to_others(self, services: Services) -> None:
        """Give back what only waits for models that enough chunks wait for: there is no room for it here."""
        waiting: Counter[str] = Counter()
        for key, work in list(self._works.items()):
            models = work.waits_for()
            if work.idle is None or not _are_full(models, waiting):
                waiting.update(models)
                continue
            self._aside[work.held.batch_id] = models
            del self._works[key]
            if work.task is not None:
                work.task.cancel()
            await services.store.release_chunks(self.holder, key)

    async def _renew(self, services: Services) -> None:
        """Keep what is held, drop what is lost, and see how many people wait elsewhere."""
        now = time.time()
        running = {key: work.running for key, work in self._works.items()}
        kept = await services.store.renew_chunks(self.holder, running, now + LEASE_SECONDS)
        for key in running.keys() - kept:
            work = self._works.pop(key, None)
            if work is not None and work.task is not None:
                log.info("chunk %d of %s is nobody's here any more", key[1], key[0])
                work.task.cancel()
        self._gate.replies_elsewhere = await services.store.replies_elsewhere(now - LEASE_SECONDS)

    async def _answer_chunk(self, services: Services, work: _Work) -> None:
        """All lines of a chunk that have no answer yet; then it is done."""
        held = work.held
        try:
            asked = await self._open_lines(services, held)
            work.left, work.idle = len(asked), Counter(line.model for line in asked)
            self._ring(held.batch_id)
            async with asyncio.TaskGroup() as group:  # where one breaks, none is left behind
                lines = [group.create_task(self._answer_line(services, work, line)) for line in asked]
            if not all(line.result() for line in lines):
                await services.store.release_chunks(self.holder, held.key)
            elif await services.store.finish_chunk(self.holder, held.key, time.time()):
                self._ended.set()
        except CorollaError as error:
            log.warning(
                "chunk %d of %s is left for later: %s", held.chunk.number, held.batch_id, error.message
            )
        except Exception:
            log.exception("chunk %d of %s was not answered", held.chunk.number, held.batch_id)
        finally:
            # Its lease ends by itself, where it could not be given back.
            if self._works.get(held.key) is work:
                del self._works[held.key]
            self.bell.set()

    async def _open_lines(self, services: Services, held: HeldChunk) -> list[Asked]:
        chunk = held.chunk
        parts = services.storage.read(held.input_file_id, chunk.offset, chunk.size)
        lines = [
            asked_by(line, held.endpoint) async for line in lines_of(parts, chunk.first_line, chunk.offset)
        ]
        end = lines[-1].number + 1 if lines else chunk.first_line
        answered = await services.store.answered_lines(held.batch_id, chunk.first_line, end)
        return [line for line in lines if line.number not in answered]

    async def _answer_line(self, services: Services, work: _Work, asked: Asked) -> bool:
        """Try until there is an answer, and record it. False: this replica stops before there is one."""
        held, tries, attempt = work.held, 0, 0
        while True:
            try:
                await self._gate.enter(asked.model, asked.weight)
            except GateClosed:
                return False
            self._count(work, asked.model, 1)
            try:
                output, error, taken = await self._ask(services, held, asked)
            finally:
                self._count(work, asked.model, -1)
                self._gate.leave(asked.model, asked.weight)
            if error is None or not is_tried_again(error, tries + is_broken(error)):
                break
            tries += is_broken(error)
            work.is_broken |= is_broken(error)
            services.metrics.lines["tried_again"] += 1
            if await _is_set(services.stopping, pause_before(attempt, error.retry_after, random.random())):
                return False
            attempt += 1
        if work.idle is not None:
            work.idle[asked.model] -= 1
        is_error = error is not None
        if error is not None:
            services.metrics.refuse(error.code)
        line = OutputLine(id=new_line_id(), custom_id=asked.custom_id, response=output)
        try:
            await self._record(held, asked.number, line, is_error, taken)
        except CannotBeWritten:
            is_error = True
            await self._record(held, asked.number, replace(line, response=_mistake()), is_error)
        work.left -= 1
        services.metrics.lines["failed" if is_error else "answered"] += 1
        return True

    async def _record(
        self, held: HeldChunk, number: int, line: OutputLine, is_error: bool, taken: Taken = NOTHING
    ) -> None:
        text = msgspec.json.encode(line).decode()
        await self._recorder.record(AnswerRecord(held.batch_id, number, is_error, text, *taken))

    def _count(self, work: _Work, model: str, change: int) -> None:
        work.running += change
        if work.idle is not None:
            work.idle[model] -= change
        if change > 0:
            self._ring(work.held.batch_id)

    def _ring(self, batch: str) -> None:
        """There may be place for another chunk, of this batch above all."""
        if self._may_be_more or (batch in self._full and self._idle_lines()[batch] < CHUNK_LINES):
            self.bell.set()

    async def _ask(
        self, services: Services, held: HeldChunk, asked: Asked
    ) -> tuple[LineResponse, CorollaError | None, Taken]:
        request_id = secrets.token_hex(12)
        try:
            body = await body_of(services.storage, held, asked)
            behind = dataclasses.replace(services, admission=services.admission.behind)
            reply = await answering.answer(behind, held.endpoint, body, held.token_id)
        except CorollaError as error:
            response = LineResponse(
                status_code=error.http_status, request_id=request_id, body=error_body(error)
            )
            return response, error, NOTHING
        except Exception:
            log.exception("a line of %s was not answered", held.batch_id)
            return _mistake(), CorollaError(MISTAKE), NOTHING
        whole = msgspec.Raw(msgspec.json.encode(reply))
        return LineResponse(status_code=200, request_id=request_id, body=whole), None, taken_by(reply)

    async def _give_back(self, services: Services) -> None:
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await services.store.release_chunks(self.holder)
        except CorollaError as error:
            log.warning("chunks stay this replica's until their leases end: %s", error.message)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, so long at most. Whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _are_full(models: set[str], waiting: Counter[str]) -> bool:
    """Whether enough chunks wait for each of these models; not so when there are none."""
    return bool(models) and all(waiting[model] >= MOST_IDLE for model in models)


def _mistake() -> LineResponse:
    body = error_body(CorollaError(MISTAKE))
    return LineResponse(status_code=500, request_id=secrets.token_hex(12), body=body)


def new_line_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
