"""The KV caches on one span: each session's own, and those kept of sessions that are over.

A kept cache waits for sessions that begin with the same tokens: such a one is a fork, and starts with a copy
of as many of them as it names. Kept caches go first when memory is short. Every cache is booked in the
account for as long as it is here.

What was sent on of a session (volunteer/sent.py) is here for as long as its cache, and so goes with it.

Owner: who has the device. Runs nothing, and knows neither queues nor frames.
"""

from corolla.models.errors import RollbackRefused
from corolla.models.facts import ModelFacts
from corolla.models.pool import PooledCache
from corolla.models.span import SpanModel
from schema.errors import (
    CorollaError,
    NotServing,
    PositionMismatch,
    PrefixUnknown,
    ResumeRefused,
    SessionUnknown,
    ShapeMismatch,
)
from schema.ids import SessionId, Span
from volunteer.kvcache import KVAccount
from volunteer.kvcost import KVCost
from volunteer.sent import SentOutputs
from volunteer.steps import Cache
from volunteer.work import Work


class SessionCaches:
    """Which cache is whose. Each is in the account under its session's name."""

    def __init__(self, model: SpanModel, facts: ModelFacts, account: KVAccount, sent: SentOutputs) -> None:
        self._model = model
        self._facts = facts
        self._account = account
        self._sent = sent
        self._active: dict[SessionId, Cache] = {}
        self._kept: dict[SessionId, Cache] = {}
        self._costs: dict[Span, KVCost] = {}
        """By the blocks of a route; the span has few parts."""

    def __len__(self) -> int:
        """Sessions with a cache, without those that are only kept."""
        return len(self._active)

    @property
    def kept(self) -> int:
        """Kept caches."""
        return len(self._kept)

    def __contains__(self, session: SessionId) -> bool:
        """Whether the session has a cache, and is not over."""
        return session in self._active

    def pooled(self, work: Work) -> PooledCache | None:
        """The session's cache if it is in the pool and ends where the step begins, over the step's blocks."""
        cache = self._active.get(work.session)
        if not isinstance(cache, PooledCache) or cache.position != work.position:
            return None
        return cache if (cache.start, cache.end) == (work.span.start, work.span.end) else None

    def extend(self, work: Work, cache: PooledCache, now: float) -> None:
        """Makes room for a token more in what `pooled` gave. Raises KVCacheFull; then nothing has changed."""
        if cache.room:
            self._account.use(work.session, now)
            return
        due = self._cost(work.span).of_tokens(1, work.position + 1)
        self._book(work.session, max(0, due - self._account.held(work.session)), now)
        try:
            cache.reserve(1)
        finally:
            self._account.settle(work.session, cache.nbytes, now)

    def for_step(self, work: Work, batch: int, tokens: int, now: float) -> Cache:
        """The session's cache, at the step's position, its memory for the step booked.

        Raises by name what stands against the step; then nothing has changed.
        """
        if work.position == 0:
            return self._new(work, batch, tokens, now)
        cache = self._active.get(work.session)
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
        due = self._cost(work.span).of_tokens(batch, work.position + tokens)
        self._book(work.session, max(0, due - self._account.held(work.session)), now)
        return cache

    def fork(self, work: Work, now: float) -> None:
        """Begins the session of `work` with the first tokens of the kept one that it names.

        Raises PrefixUnknown for one that is not kept, or not so far, or of other blocks, PositionMismatch for
        a session that has begun, and KVCacheFull.
        """
        if work.session in self._active:
            raise PositionMismatch("a fork begins a session, and this one holds tokens already")
        self.close(work.session)
        source = work.forks
        kept = None if source is None else self._kept.get(source)
        if source is None or kept is None or (kept.start, kept.end) != (work.span.start, work.span.end):
            raise PrefixUnknown("nothing is kept here of the session to begin with: send its tokens again")
        try:
            kept.require_cut(work.position)  # before anything else has to go for the copy
        except RollbackRefused as refusal:
            raise PrefixUnknown(refusal.message) from refusal
        self._account.wake(source, now)  # what is copied is not evicted for its copy
        try:
            self._copy(source, kept, work, now)
        finally:
            self._free(self._account.keep(source, now))

    def resume(self, work: Work, now: float) -> None:
        """The session that `work` names goes on as the session of `work`, cut to its position.

        Raises ResumeRefused where that one, or what was sent on of it, is not held so far or of other
        blocks, and PositionMismatch for a session that has begun. Then nothing has changed.
        """
        if work.session in self._active:
            raise PositionMismatch("this session has begun, and cannot go on as another one")
        source = work.resumes
        cache = None if source is None else self._active.get(source)
        if source is None or cache is None or (cache.start, cache.end) != (work.span.start, work.span.end):
            raise ResumeRefused("nothing is held here of the session that is to go on: send its tokens again")
        if work.feeds_new and self._sent.tokens(source) < work.position:
            raise ResumeRefused("what was sent on of this session is not kept here: send its tokens again")
        try:
            cache.truncate(work.position)
        except RollbackRefused as refusal:
            raise ResumeRefused(refusal.message) from refusal
        self.close(work.session)
        self._active[work.session] = self._active.pop(source)
        self._account.rename(source, work.session)
        self._sent.rename(source, work.session)
        self.settle(work.session, cache, now)

    def settle(self, session: SessionId, cache: Cache, now: float, *, is_unfinished: bool = False) -> None:
        """Books what the session really holds; one that holds no token is no session.

        While a part of its step is still to be computed, the memory for that stays booked.
        """
        if cache.position == 0:
            self.close(session)
        else:
            booked = self._account.held(session) if is_unfinished else 0
            self._account.settle(session, max(cache.nbytes, booked), now)

    def keep(self, session: SessionId, now: float) -> None:
        """The session is over; its cache stays, as long as there is room."""
        cache = self._active.pop(session, None)
        if cache is None:
            return
        if isinstance(cache, PooledCache):
            cache.pool.reclaim = self._evict
        self._kept[session] = cache
        self._free(self._account.keep(session, now))

    def close(self, session: SessionId) -> None:
        """Frees the session's cache, kept or not, if it has one."""
        self._account.release(session)
        self._free([session])

    def close_all(self) -> None:
        for session in [*self._active, *self._kept]:
            self.close(session)

    def expire(self, now: float) -> list[SessionId]:
        """Frees what was idle or kept for too long; names the sessions that were not over."""
        expired = self._account.expire(now)
        idle = [session for session in expired if session in self._active]
        self._free(expired)
        return idle

    def _new(self, work: Work, batch: int, tokens: int, now: float) -> Cache:
        self.close(work.session)
        self._book(work.session, self._cost(work.span).of_tokens(batch, tokens), now)
        try:
            cache = self._model.new_cache(batch, (work.span.start, work.span.end))
        except CorollaError:
            self.close(work.session)
            raise
        self._active[work.session] = cache
        return cache

    def _copy(self, source: SessionId, kept: Cache, work: Work, now: float) -> None:
        self._book(work.session, self._cost(work.span).of_tokens(kept.batch, work.position), now)
        try:
            cache = self._active[work.session] = kept.fork(work.position)
            self.settle(work.session, cache, now)
        except Exception:
            self.close(work.session)
            raise
        self._sent.share(source, work.session, work.position)

    def _cost(self, span: Span) -> KVCost:
        if span not in self._costs:
            self._costs[span] = KVCost.of_span(self._facts, span)
        return self._costs[span]

    def _book(self, session: SessionId, extra: int, now: float) -> None:
        self._free(self._account.grow(session, extra, now))

    def _evict(self) -> bool:
        """Frees the kept cache that was used least recently, if there is one."""
        oldest = self._account.evict()
        if oldest is None:
            return False
        self._free([oldest])
        return True

    def _free(self, sessions: list[SessionId]) -> None:
        """Frees the caches of sessions that are out of the account."""
        for session in sessions:
            self._sent.drop(session)
            for caches in (self._active, self._kept):
                cache = caches.pop(session, None)
                if cache is not None:
                    cache.close()


def _go_to(cache: Cache, position: int) -> None:
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
