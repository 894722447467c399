"""One loaded span and the sessions that use it: turns steps that arrive into the steps that go on.

Steps that come together run as one batch where the model's family can, slices of one session as one; a
prefill slice runs in parts, as many tokens at a time as it is given.

A forward pass takes whole sequences through, and leaves nothing behind. All else is of sessions: one begins
with a step at position 0, as a fork of one that was kept, or as what one was that broke off elsewhere; it
goes on where its KV cache ends, and may go back to an earlier position where the model's family can. A step
that is refused before it runs leaves its session as it was; one that fails while it runs ends its session.
Neither touches another one. What goes to other hops is kept, to be sent again (volunteer/sent.py).

Owner: who has the device. Does not know routes, queues or the network.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from corolla.models.batching import Chunk
from corolla.models.facts import ModelFacts
from corolla.models.families import Batching
from corolla.models.pool import PooledCache
from corolla.models.span import SpanModel
from corolla.tensors import is_finite, require_finite
from schema.errors import (
    CorollaError,
    KVCacheFull,
    NotFinite,
    StepFailed,
)
from schema.frames import FrameType
from schema.ids import SessionId, Span
from volunteer.caches import SessionCaches
from volunteer.kvcache import RETRY_SECONDS, KVAccount
from volunteer.passes import require_blocks, run_passes
from volunteer.rows import RowAnswer, Rows, RowStep
from volunteer.sent import SentOutputs
from volunteer.slices import JoinedSlices, alone, join
from volunteer.steps import Step, StepInput, read_step, read_steps
from volunteer.work import Result, Underway, Work

MAX_TOKENS = 1 << 30
"""More than any step has."""

_logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """What steps of one batch have in common."""

    start: int
    end: int
    tokens: int = 1
    """Where only equal slices go together: how long they are, and where they begin."""
    position: int | None = None
    are_slices: bool = False
    """Whether they go together whatever their lengths, as slices and not as single tokens."""


class Stage:
    """Runs steps through a span, each session with a KV cache of its own."""

    def __init__(
        self, model: SpanModel, facts: ModelFacts, account: KVAccount, sent: SentOutputs | None = None
    ) -> None:
        """`facts`: in the dtype that is loaded. `account` and `sent`: empty, and this stage's from now on.

        Without `sent`, nothing is kept of what is sent on.
        """
        self.span = Span(model.start, model.end)
        self.account = account
        self._model = model
        self._facts = facts
        self._sent = SentOutputs(0) if sent is None else sent
        self._caches = SessionCaches(model, facts, account, self._sent)
        self._rows = Rows(model, facts)
        self._begun: dict[SessionId, Step] = {}
        """Slices of which a part was computed."""

    @property
    def sessions(self) -> int:
        """Sessions with a KV cache, without those that are over and kept."""
        return len(self._caches)

    @property
    def kept(self) -> int:
        """Sessions that are over and kept."""
        return self._caches.kept

    @property
    def kv_used(self) -> int:
        """Bytes of KV cache, kept ones included."""
        return self.account.used

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        """One result for each step, in order; `now` is of the account's clock.

        Of each prefill slice `prefill_tokens` tokens, of all its sequences together, are computed; its result
        is unfinished until none is left. Where there are several of one session, they have no more together.
        """
        decoded = self._decode(batch, now)
        rest = [work for work in batch if work not in decoded] if decoded else batch
        results = decoded | (self._run_in_order(rest, prefill_tokens, now) if rest else {})
        return [results[work] for work in batch]

    @property
    def is_one_pass(self) -> bool:
        return self._model.slice_batching is Batching.RAGGED

    @property
    def starts_steps(self) -> bool:
        return self._model.starts_rows

    def start(self, batch: Sequence[Work], now: float) -> Underway | None:
        """As `run`, for single tokens of which nothing is special; None for others."""
        steps: list[RowStep] = []
        for work in batch:
            cache = self._caches.pooled(work)
            row = None if cache is None or not cache.room else self._rows.row_of(work)
            if cache is None or row is None:
                return None
            steps.append(RowStep(work, row, cache))
        for step in steps:
            self._caches.extend(step.work, step.cache, now)
        started = self._rows.start(steps)
        if started is None:
            return None
        return Underway(started.is_done, lambda: self._all_answered(steps, started.answers()))

    def _decode(self, batch: Sequence[Work], now: float) -> dict[Work, Result]:
        """Results of single tokens whose caches are in the pool, as far as nothing about them is special."""
        results: dict[Work, Result] = {}
        steps: list[RowStep] = []
        for work in batch:
            cache = self._caches.pooled(work)
            row = None if cache is None else self._rows.row_of(work)
            if cache is None or row is None:
                continue
            try:
                self._caches.extend(work, cache, now)
            except Exception as error:  # noqa: BLE001 - told to the driver by name
                results[work] = self._failure(work, error)
            else:
                steps.append(RowStep(work, row, cache))
        if not steps:
            return results
        try:
            answers = self._rows.run(steps)
        except Exception as error:  # noqa: BLE001 - what fails then is told by name
            _logger.warning("%d decode steps failed (%s); they are run as tensors.", len(steps), error)
            return results
        for step, answer in zip(steps, answers, strict=True):
            results[step.work] = self._answered(step, answer)
        return results

    def _all_answered(self, steps: Sequence[RowStep], answers: Sequence[RowAnswer]) -> list[Result]:
        return [self._answered(step, answer) for step, answer in zip(steps, answers, strict=True)]

    def _answered(self, step: RowStep, answer: RowAnswer) -> Result:
        work = step.work
        self._begun.pop(work.session, None)
        if answer.has_run and answer.error is not None:
            self.close(work.session)
        if work.feeds_hop and answer.error is None:
            self._sent.note(work.session, work.position, answer.payload)
        return Result(work, answer.payload, error=answer.error)

    def _run_in_order(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> dict[Work, Result]:
        """Slices of one session are run as one; one after the other where they cannot be, or were refused."""
        lanes: dict[SessionId, list[Work]] = {}
        for work in batch:
            lanes.setdefault(work.session, []).append(work)
        if len(lanes) == len(batch):
            return self._run_long_way(batch, prefill_tokens, now)
        results: dict[Work, Result] = {}
        refused_as_one: set[SessionId] = set()
        while lanes:  # what is refused as one goes on alone, and has an answer then
            firsts = {
                session: self._firsts_of(lane, prefill_tokens, session in refused_as_one)
                for session, lane in lanes.items()
            }
            found = self._run_long_way([one.work for one in firsts.values()], prefill_tokens, now)
            for session, one in firsts.items():
                answers = self._answers_of(one, found[one.work])
                if not answers:
                    refused_as_one.add(session)
                results |= {answer.work: answer for answer in answers}
                lanes[session] = lanes[session][len(answers) :]
            lanes = {session: lane for session, lane in lanes.items() if lane}
        return results

    def _firsts_of(self, lane: Sequence[Work], prefill_tokens: int, is_apart: bool) -> JoinedSlices:
        """What is run next of these slices of a session: all of them, or the first."""
        is_whole = sum(work.tokens for work in lane) <= prefill_tokens and lane[0].session not in self._begun
        can_be_joined = is_whole and len(lane) > 1 and not is_apart and self._model.family.can_chunk_prefill
        return (join(lane) if can_be_joined else None) or alone(lane[0])

    def _answers_of(self, slices: JoinedSlices, found: Result) -> list[Result]:
        """Of these slices of a session, as far as they were computed: not where they were refused as one."""
        first = slices.parts[0]
        is_as_it_was = first.position == 0 or first.session in self._caches
        was_refused = len(slices.parts) > 1 and found.error is not None and is_as_it_was
        return [] if was_refused else slices.results(found)

    def _run_long_way(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> dict[Work, Result]:
        if len(batch) == 1:
            return {batch[0]: self._run_alone(batch[0], prefill_tokens, now)}
        results: dict[Work, Result] = {}
        ready: list[Step] = []
        results |= {work: self._run_errand(work, now) for work in batch if work.is_errand}
        results |= self._forward([work for work in batch if work.kind is FrameType.FORWARD])
        steps = [work for work in batch if work not in results]
        begun = {work: step for work in steps if (step := self._take_begun(work)) is not None}
        new = [work for work in steps if work not in begun]
        inputs = read_steps(new, self._facts, self._model.options)
        for work in steps:
            try:
                ready.append(begun[work] if work in begun else self._begin(work, inputs[work], now))
            except Exception as error:  # noqa: BLE001 - told to the driver by name
                results[work] = self._failure(work, error)
        for group in self._groups(ready, prefill_tokens):
            results |= {result.work: result for result in self._run_group(group, prefill_tokens, now)}
        return results

    def close(self, session: SessionId) -> None:
        """Frees the session's KV cache, if it has one, kept or not."""
        self._begun.pop(session, None)
        self._caches.close(session)

    def keep(self, session: SessionId, now: float) -> None:
        """The session is over; its KV cache stays for forks of it, as long as there is room."""
        if self._begun.pop(session, None) is not None:
            self._caches.close(session)  # it ended in the middle of a slice
        self._caches.keep(session, now)

    def close_all(self) -> None:
        self._begun.clear()
        self._caches.close_all()

    def expire(self, now: float) -> list[SessionId]:
        """Closes what has been idle, or kept, for too long; names the sessions that were not over."""
        expired = self._caches.expire(now)
        for session in expired:
            self._begun.pop(session, None)
        return expired

    def _run_errand(self, work: Work, now: float) -> Result:
        """What no block computes anything for."""
        try:
            require_blocks(work, self.span)
            return Result(work, self._done(work, now))
        except Exception as error:  # noqa: BLE001 - told to the driver by name
            return self._failure(work, error)

    def _done(self, work: Work, now: float) -> bytes:
        """The payload of an errand's answer. A fork's is its own: the next stop has the same to do."""
        if work.kind is FrameType.REPLAY:
            end = work.position + work.tokens
            return self._sent.read(work.session, work.position, end) if work.feeds_new else b""
        self._begun.pop(work.session, None)
        if work.kind is FrameType.FORK:
            self._caches.fork(work, now)
        elif work.resumes is not None:
            self._caches.resume(work, now)
            self._begun.pop(work.resumes, None)
        return bytes(work.payload)

    def _run_alone(self, work: Work, prefill_tokens: int, now: float) -> Result:
        if work.is_errand:
            return self._run_errand(work, now)
        if work.kind is FrameType.FORWARD:
            return self._forward([work])[work]
        try:
            step = self._take_begun(work)
            if step is None:
                step = self._begin(work, read_step(work, self._facts, self._model.options), now)
            return self._run_one(step, prefill_tokens, now)
        except Exception as error:  # noqa: BLE001 - told to the driver by name
            return self._failure(work, error)

    def _forward(self, works: Sequence[Work]) -> dict[Work, Result]:
        found = run_passes(works, self._model, self._facts) if works else {}
        return {
            work: one if isinstance(one, Result) else self._failure(work, one) for work, one in found.items()
        }

    def _take_begun(self, work: Work) -> Step | None:
        """The step, if a part of it was computed. Whatever else was begun of its session is dropped."""
        begun = self._begun.pop(work.session, None)
        return begun if begun is not None and begun.work is work else None

    def _begin(self, work: Work, entering: StepInput | Exception, now: float) -> Step:
        """Raises what stands against the step; if that has a name, nothing has changed."""
        if isinstance(entering, Exception):
            raise entering
        require_blocks(work, self.span)
        batch, tokens, _ = entering.hidden.shape
        cache = self._caches.for_step(work, batch, tokens, now)
        mask = entering.mask
        if mask is not None:
            mask = mask.to(self._model.options.device, torch.int64)
        return Step(work, cache, entering.hidden, mask)

    def _groups(self, ready: list[Step], prefill_tokens: int) -> list[list[Step]]:
        """Which steps run as one batch."""
        together: dict[_Kind | Work, list[Step]] = {}
        for step in ready:
            together.setdefault(self._kind(step, prefill_tokens) or step.work, []).append(step)
        return list(together.values())

    def _kind(self, step: Step, prefill_tokens: int) -> "_Kind | None":
        """Steps of one kind, over the same blocks, run as one batch; None: only by itself.

        See `corolla/models/batching.py`: what is ragged goes together whatever its shape, and so do single
        tokens; other slices with those of their length and position.
        """
        batching, cache = self._model.batching, step.cache
        if step.mask is not None or batching is Batching.ONE_BY_ONE:
            return None
        tokens = min(step.tokens, self._part(step, prefill_tokens))
        if cache.batch == 1 and (batching is Batching.RAGGED or tokens == 1):
            return _Kind(cache.start, cache.end)
        if cache.batch == 1 and self.is_one_pass:
            return _Kind(cache.start, cache.end, are_slices=True)
        return _Kind(cache.start, cache.end, tokens, cache.position) if tokens > 1 else None

    def _part(self, step: Step, prefill_tokens: int) -> int:
        """How many tokens of a step may be computed at once. A mask is for the whole of it."""
        can_part = step.work.is_slice and self._model.family.can_chunk_prefill
        if not can_part or step.mask is not None:
            return MAX_TOKENS
        return max(1, prefill_tokens // step.cache.batch)

    def _run_group(self, group: list[Step], prefill_tokens: int, now: float) -> list[Result]:
        """Runs steps as one batch; if that fails, each by itself, so that one cannot harm another."""
        if len(group) > 1:
            sizes = [self._part(step, prefill_tokens) for step in group]
            rests = [step.rest for step in group]
            chunks = [step.take(size) for step, size in zip(group, sizes, strict=True)]
            try:
                outputs = self._forward_batch(chunks)
                are_finite = is_finite(torch.cat(outputs, dim=_axis(chunks)))
            except Exception as error:  # noqa: BLE001 - each step's own failure is told to its driver
                _logger.warning("A batch of %d steps failed (%s); each is run by itself.", len(group), error)
                for step, rest in zip(group, rests, strict=True):
                    step.rest = rest
            else:
                return [
                    self._finish(step, chunk.tokens, output, now, is_known_finite=are_finite)
                    for step, chunk, output in zip(group, chunks, outputs, strict=True)
                ]
        return [self._run_one(step, prefill_tokens, now) for step in group]

    def _forward_batch(self, chunks: list[Chunk]) -> list[Tensor]:
        """What leaves the span, on the host. Many small copies to and from a device become one each."""
        if isinstance(chunks[0].cache, PooledCache) and chunks[0].tokens == 1:
            return self._model.forward_batch(chunks)
        axis = _axis(chunks)
        sizes = [chunk.hidden.shape[axis] for chunk in chunks]
        joined = torch.cat([chunk.hidden for chunk in chunks], dim=axis).to(self._model.options.device)
        parts = zip(joined.split(sizes, dim=axis), chunks, strict=True)
        outputs = self._model.forward_batch([Chunk(hidden, chunk.cache) for hidden, chunk in parts])
        return list(torch.cat(outputs, dim=axis).cpu().split(sizes, dim=axis))

    def _run_one(self, step: Step, prefill_tokens: int, now: float) -> Result:
        try:
            chunk = step.take(self._part(step, prefill_tokens))
            if chunk.tokens == 1 and isinstance(step.cache, PooledCache):
                (output,) = self._model.forward_batch([chunk])
            else:
                hidden = chunk.hidden.to(self._model.options.device)
                output = self._model.forward(hidden, step.cache, step.mask)
        except CorollaError as error:  # refused before anything was computed
            self._caches.settle(step.work.session, step.cache, now)
            return Result(step.work, error=error)
        except Exception as error:  # noqa: BLE001 - told to the driver by name
            return self._failure(step.work, error)
        return self._finish(step, chunk.tokens, output, now)

    def _finish(
        self, step: Step, tokens: int, output: Tensor, now: float, is_known_finite: bool = False
    ) -> Result:
        """Books what a step holds now, and makes its answer if nothing of it is left to compute."""
        work = step.work
        try:
            if not is_known_finite:
                require_finite(output)
        except NotFinite as error:
            self.close(work.session)
            return Result(work, error=error)
        self._caches.settle(work.session, step.cache, now, is_unfinished=step.tokens > 0)
        step.keep(output)
        done = tokens * step.cache.batch if work.is_slice else 0
        if step.tokens:
            self._begun[work.session] = step
            return Result(work, tokens=done, is_unfinished=True)
        answer = step.answer()
        if work.feeds_hop:
            self._keep_sent(step, answer)
        is_wanted = work.kind is not FrameType.REPLAY or work.feeds_new
        return Result(work, answer if is_wanted else b"", tokens=done)

    def _keep_sent(self, step: Step, answer: bytes) -> None:
        """What is sent on may have to be sent again; not of several sequences, nor with a mask."""
        work = step.work
        if step.cache.batch == 1 and step.mask is None:
            self._sent.note(work.session, work.position, answer)
        else:
            self._sent.drop(work.session)

    def _failure(self, work: Work, error: Exception) -> Result:
        """The error by name; one that has none ends the session."""
        if isinstance(error, CorollaError):
            return Result(work, error=error)
        _logger.error(
            "A step failed.", exc_info=error, extra={"session": work.session.hex(), "step": work.step}
        )
        self.close(work.session)
        return Result(work, error=self._named(error))

    def _named(self, error: Exception) -> StepFailed:
        if not isinstance(error, torch.OutOfMemoryError):
            return StepFailed(
                f"the span could not compute this step ({type(error).__name__}): "
                "start the session again, or use another volunteer"
            )
        if torch.device(self._model.options.device).type == "cuda":
            torch.cuda.empty_cache()
        return KVCacheFull(
            "the device ran out of memory in this step: start the session again with fewer tokens a step, "
            "or use another volunteer",
            retry_after=RETRY_SECONDS,
        )


def _axis(chunks: Sequence[Chunk]) -> int:
    """Along which axis hidden states of chunks can stand behind one another."""
    return 0 if len({chunk.tokens for chunk in chunks}) == 1 else 1
