"""One loaded span and the sessions that use it: turns steps that arrive into the steps that go on.

Steps that come together run as one batch where the model's family can; a prefill slice runs in parts, as
many tokens at a time as it is given.

A session begins with a step at position 0, goes on where its KV cache ends, and may go back to an earlier
position where the model's family can. A step that is refused before it runs leaves its session as it
was; one that fails while it runs ends its session. Neither touches another session.

Owner: the device thread. Does not know routes, queues or the network.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from corolla.models.batching import Chunk
from corolla.models.cache import SpanCache
from corolla.models.errors import RollbackRefused
from corolla.models.facts import ModelFacts
from corolla.models.families import Batching
from corolla.models.growing import room_for
from corolla.models.pool import PooledCache
from corolla.models.span import SpanModel
from corolla.tensors import from_wire, require_finite, require_hidden, to_wire
from schema.errors import (
    CorollaError,
    KVCacheFull,
    NotFinite,
    NotServing,
    PositionMismatch,
    SessionUnknown,
    ShapeMismatch,
    StepFailed,
)
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors
from volunteer.kvcache import RETRY_SECONDS, KVAccount
from volunteer.work import Result, Work

MAX_TOKENS = 1 << 30
"""More than any step has."""

_logger = logging.getLogger(__name__)
_Cache = SpanCache | PooledCache


@dataclass(frozen=True, slots=True)
class KVCost:
    """Bytes of a span's KV cache for one sequence."""

    state: int
    """Recurrent and convolutional states, whatever the length."""
    per_token: int
    """Keys and values of the blocks that keep every token; they are held with room for more."""
    windows: tuple[tuple[int, int], ...] = ()
    """Of each sliding window its bytes a token, and the tokens that it keeps at most."""

    @classmethod
    def of_span(cls, facts: ModelFacts, span: Span) -> Self:
        blocks = slice(span.start, span.end)
        sizes = list(zip(facts.kv_bytes_per_token[blocks], facts.kv_tokens_at_most[blocks], strict=True))
        return cls(
            state=sum(facts.state_bytes[blocks]),
            per_token=sum(size for size, limit in sizes if limit is None),
            windows=tuple((size, limit) for size, limit in sizes if limit is not None),
        )

    def of_tokens(self, batch: int, tokens: int) -> int:
        """Bytes that a cache of `batch` sequences of `tokens` tokens has at most."""
        windows = sum(size * min(tokens, limit) for size, limit in self.windows)
        return batch * (self.state + self.per_token * room_for(tokens) + windows)


class _Input(NamedTuple):
    """A step's tensors, checked: all of its own shapes agree, and it is finite."""

    hidden: Tensor
    mask: Tensor | None


@dataclass(slots=True)
class _Step:
    """A step that is ready to run: its memory is booked, and its cache ends where it begins."""

    work: Work
    cache: _Cache
    rest: Tensor
    """Hidden states that are still to be computed, [batch, tokens, hidden_size]."""
    mask: Tensor | None
    outputs: list[Tensor] = field(default_factory=list[Tensor])
    """Of the parts that were computed, what is wanted of them."""

    @property
    def tokens(self) -> int:
        return self.rest.shape[1]

    def take(self, tokens: int) -> Chunk:
        """The next part, of `tokens` tokens at most."""
        part, self.rest = self.rest[:, :tokens], self.rest[:, tokens:]
        return Chunk(part, self.cache)


class Stage:
    """Runs steps through a span, each session with a KV cache of its own."""

    def __init__(self, model: SpanModel, facts: ModelFacts, account: KVAccount) -> None:
        """`facts`: in the dtype that is loaded. `account`: empty, and from now on this stage's."""
        self.span = Span(model.start, model.end)
        self.account = account
        self._model = model
        self._facts = facts
        self._caches: dict[SessionId, _Cache] = {}
        self._costs: dict[Span, KVCost] = {}
        """By the blocks of a route; the span has few parts."""
        self._begun: dict[SessionId, _Step] = {}
        """Slices of which a part was computed."""

    @property
    def sessions(self) -> int:
        """Sessions with a KV cache."""
        return len(self._caches)

    @property
    def kv_used(self) -> int:
        """Bytes of KV cache."""
        return self.account.used

    def run(self, batch: Sequence[Work], prefill_tokens: int, now: float) -> list[Result]:
        """One result for each step, in order; `now` is of the account's clock.

        Of a prefill slice `prefill_tokens` tokens are computed; its result is unfinished until none is left.
        """
        results: dict[Work, Result] = {}
        ready: list[_Step] = []
        for work in batch:
            try:
                ready.append(self._ready(work, now))
            except Exception as error:  # noqa: BLE001 - told to the driver by name
                results[work] = self._failure(work, error)
        for group in self._groups(ready, prefill_tokens):
            results |= {result.work: result for result in self._run_group(group, prefill_tokens, now)}
        return [results[work] for work in batch]

    def close(self, session: SessionId) -> None:
        """Frees the session's KV cache, if it has one."""
        cache = self._caches.pop(session, None)
        if cache is not None:
            cache.close()
        self._begun.pop(session, None)
        self.account.release(session)

    def close_all(self) -> None:
        for session in list(self._caches):
            self.close(session)

    def expire(self, now: float) -> list[SessionId]:
        """Closes and names the sessions that have been idle for too long."""
        expired = self.account.expire(now)
        for session in expired:
            self.close(session)
        return expired

    def _ready(self, work: Work, now: float) -> _Step:
        """Raises by name what stands against the step; then nothing has changed."""
        begun = self._begun.pop(work.session, None)
        if begun is not None and begun.work is work:
            return begun
        self._check_blocks(work)
        entering = self._read(work)
        return _Step(work, self._cache_for(work, entering.hidden, now), entering.hidden, entering.mask)

    def _groups(self, ready: list[_Step], prefill_tokens: int) -> list[list[_Step]]:
        """Which steps run as one batch: those of one sequence without a mask, over the same blocks."""
        batching = self._model.batching
        together: dict[tuple[int, int], list[_Step]] = {}
        groups: list[list[_Step]] = []
        for step in ready:
            is_single = min(step.tokens, self._part(step.work, prefill_tokens)) == 1
            joins = batching is Batching.RAGGED or (batching is Batching.PADDED and is_single)
            if joins and step.mask is None and step.cache.batch == 1:
                together.setdefault((step.cache.start, step.cache.end), []).append(step)
            else:
                groups.append([step])
        return groups + list(together.values())

    def _part(self, work: Work, prefill_tokens: int) -> int:
        """How many tokens of a step may be computed at once. A mask is for the whole of it."""
        can_part = work.kind is FrameType.PREFILL and self._model.family.can_chunk_prefill
        return prefill_tokens if can_part else MAX_TOKENS

    def _run_group(self, group: list[_Step], prefill_tokens: int, now: float) -> list[Result]:
        """Runs steps as one batch; if that fails, each by itself, so that one cannot harm another."""
        if len(group) > 1:
            sizes = [self._part(step.work, prefill_tokens) for step in group]
            rests = [step.rest for step in group]
            chunks = [step.take(size) for step, size in zip(group, sizes, strict=True)]
            try:
                outputs = self._forward_batch(chunks)
            except Exception as error:  # noqa: BLE001 - each step's own failure is told to its driver
                _logger.warning("A batch of %d steps failed (%s); each is run by itself.", len(group), error)
                for step, rest in zip(group, rests, strict=True):
                    step.rest = rest
            else:
                return [
                    self._finish(step, chunk.tokens, output, now)
                    for step, chunk, output in zip(group, chunks, outputs, strict=True)
                ]
        return [self._run_one(step, prefill_tokens, now) for step in group]

    def _forward_batch(self, chunks: list[Chunk]) -> list[Tensor]:
        """What leaves the span, on the host. Many small copies to and from a device become one each."""
        if isinstance(chunks[0].cache, PooledCache):
            return self._model.forward_batch(chunks)
        lengths = [chunk.tokens for chunk in chunks]
        joined = torch.cat([chunk.hidden for chunk in chunks], dim=1).to(self._model.options.device)
        parts = zip(joined.split(lengths, dim=1), chunks, strict=True)
        outputs = self._model.forward_batch([Chunk(hidden, chunk.cache) for hidden, chunk in parts])
        return list(torch.cat(outputs, dim=1).cpu().split(lengths, dim=1))

    def _run_one(self, step: _Step, prefill_tokens: int, now: float) -> Result:
        tokens = MAX_TOKENS if step.mask is not None else self._part(step.work, prefill_tokens)
        try:
            chunk = step.take(tokens)
            if chunk.tokens == 1 and isinstance(step.cache, PooledCache):
                (output,) = self._model.forward_batch([chunk])
            else:
                hidden = chunk.hidden.to(self._model.options.device)
                output = self._model.forward(hidden, step.cache, step.mask)
        except CorollaError as error:  # refused before anything was computed
            self._settle(step.work.session, step.cache, now)
            return Result(step.work, error=error)
        except Exception as error:  # noqa: BLE001 - told to the driver by name
            return self._failure(step.work, error)
        return self._finish(step, chunk.tokens, output, now)

    def _finish(self, step: _Step, tokens: int, output: Tensor, now: float) -> Result:
        """Books what a step holds now, and makes its answer if nothing of it is left to compute."""
        work = step.work
        try:
            require_finite(output)
        except NotFinite as error:
            self.close(work.session)
            return Result(work, error=error)
        self._settle(work.session, step.cache, now)
        step.outputs.append(_wanted(output, work.flags).cpu())
        done = tokens if work.kind is FrameType.PREFILL else 0
        if step.tokens:
            self._begun[work.session] = step
            return Result(work, tokens=done, is_unfinished=True)
        wanted = step.outputs[-1] if Flags.LAST_ONLY in work.flags else torch.cat(step.outputs, dim=1)
        return Result(work, encode_tensors([to_wire(wanted)]), tokens=done)

    def _failure(self, work: Work, error: Exception) -> Result:
        """The error by name; one that has none ends the session."""
        if isinstance(error, CorollaError):
            return Result(work, error=error)
        _logger.error(
            "A step failed.", exc_info=error, extra={"session": work.session.hex(), "step": work.step}
        )
        self.close(work.session)
        return Result(work, error=self._named(error))

    def _check_blocks(self, work: Work) -> None:
        if not self.span.start <= work.span.start < work.span.end <= self.span.end:
            raise NotServing(f"blocks {work.span} are wanted, but this volunteer serves {self.span}")

    def _read(self, work: Work) -> _Input:
        """The step's tensors on the device, after every check that does not need the KV cache."""
        hidden_wire, mask_wire = _split(decode_tensors(work.payload))
        require_hidden(hidden_wire, self._facts.hidden_size)
        batch, tokens, _ = hidden_wire.shape
        end, limit = work.position + tokens, self._facts.max_position
        if limit is not None and end > limit:
            raise PositionMismatch(f"the step ends at position {end}, but the model has {limit} positions")
        if mask_wire is not None:
            _require_mask(mask_wire, (batch, end))
        hidden = from_wire(hidden_wire)
        require_finite(hidden)
        options = self._model.options
        return _Input(
            hidden.to(options.dtype),
            None if mask_wire is None else from_wire(mask_wire, options.device, torch.int64),
        )

    def _cache_for(self, work: Work, hidden: Tensor, now: float) -> _Cache:
        """The session's cache, at the step's position, its memory for the step booked."""
        batch, tokens, _ = hidden.shape
        cost = self._costs.get(work.span)
        if cost is None:
            cost = self._costs[work.span] = KVCost.of_span(self._facts, work.span)
        if work.position == 0:
            self.close(work.session)
            self.account.grow(work.session, cost.of_tokens(batch, tokens), now)
            cache = self._model.new_cache(batch, (work.span.start, work.span.end))
            self._caches[work.session] = cache
            return cache
        cache = self._caches.get(work.session)
        if cache is None:
            raise SessionUnknown(
                f"a step at position {work.position}, but this volunteer holds nothing of its session: "
                "send it again from position 0"
            )
        if (cache.start, cache.end) != (work.span.start, work.span.end):
            raise NotServing(f"this session runs blocks {cache.start}:{cache.end} here, not {work.span}")
        if cache.batch != batch:
            raise ShapeMismatch(f"this session has {cache.batch} sequences, the step {batch}")
        _go_to(cache, work.position)
        due = cost.of_tokens(batch, work.position + tokens)
        self.account.grow(work.session, max(0, due - self.account.held(work.session)), now)
        return cache

    def _settle(self, session: SessionId, cache: _Cache, now: float) -> None:
        """Books what the session really holds; one that holds no token is no session."""
        if cache.position == 0:
            self.close(session)
        else:
            self.account.settle(session, cache.nbytes, now)

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


def _split(tensors: list[WireTensor]) -> tuple[WireTensor, WireTensor | None]:
    """Hidden states, and the attention mask if there is one."""
    by_role = {tensor.role: tensor for tensor in tensors}
    hidden = by_role.get(Role.HIDDEN)
    if hidden is None or len(by_role) != len(tensors):
        raise ShapeMismatch("a step has one tensor of hidden states, and at most one attention mask")
    return hidden, by_role.get(Role.ATTENTION_MASK)


def _require_mask(wire: WireTensor, shape: tuple[int, int]) -> None:
    """Raises ShapeMismatch for what is not an attention mask of `shape`, [batch, position + tokens]."""
    if wire.dtype is not DType.INT8 or wire.shape != shape:
        raise ShapeMismatch(
            f"the attention mask is {wire.dtype.name} {list(wire.shape)}; INT8 {list(shape)} is due"
        )


def _go_to(cache: _Cache, position: int) -> None:
    """Rolls the cache back to `position` if it is longer."""
    if position > cache.position:
        raise PositionMismatch(
            f"a step at position {position}, but the KV cache ends at {cache.position}: "
            "send what lies between first"
        )
    try:
        cache.truncate(position)
    except RollbackRefused as refusal:
        raise PositionMismatch(refusal.message) from refusal


def _wanted(output: Tensor, flags: Flags) -> Tensor:
    """The part of the output that the flags ask for, [batch, 0, 1 or all tokens, hidden_size]."""
    if Flags.NO_OUTPUT in flags:
        return output[:, :0]
    return output[:, -1:] if Flags.LAST_ONLY in flags else output
