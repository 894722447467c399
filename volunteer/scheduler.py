"""What the device does next: a queue of steps, pure, without threads, clock or tensors.

    add ──> one queue per session ──> take: a batch of steps of different sessions
                └── cancel, or a newer epoch: dropped, counted

The rules, in order:
1. A session's steps leave in the order in which they came, one per batch, but for rule 3. Errands, which
   compute nothing, go at once and by themselves.
2. Decode steps that wait go together; those about to come are worth a short wait (volunteer/gathering.py).
3. A prefill slice goes with them, in parts small enough not to stall them, and as many short ones as make
   such a part (volunteer/pacing.py), where they are one pass; also the next ones of its own session, where
   that costs little more (volunteer/slices.py).
4. Within a kind, sessions take turns.
5. What does not fit is refused by name when it comes, never dropped later.

A session's epoch is the highest one seen of it. Older steps are dropped: their driver has abandoned
them. Times are seconds on any one steady clock. Knows nothing of KV caches, models or callers.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schema.errors import QueueFull, SessionUnknown
from schema.frames import FrameType
from schema.ids import SessionId
from schema.limits import MAX_PAYLOAD_BYTES
from volunteer.gathering import Gathering
from volunteer.pacing import QUIET_SECONDS, Pace
from volunteer.slices import follows
from volunteer.work import Work

MIN_RETRY_SECONDS = 0.1
MOST_JOINED_BYTES = MAX_PAYLOAD_BYTES // 2
"""Of the slices of one session that go together, without the first: they become one payload."""
REMEMBERED_SESSIONS = 16_384
"""Sessions whose epoch is remembered after their last step; about 200 bytes each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and how it is taken."""

    items: int = 4096
    bytes: int = 256 * 1024 * 1024
    session_items: int = 256
    session_bytes: int = 64 * 1024 * 1024
    batch: int = 16
    """Sessions whose decode steps are taken together; and sessions whose slices are."""


class _Waiting(NamedTuple):
    since: float
    work: Work


@dataclass(slots=True)
class _Lane:
    """The waiting steps of one session, oldest first."""

    waiting: deque[_Waiting] = field(default_factory=lambda: deque[_Waiting]())
    bytes: int = 0


class _Epoch(NamedTuple):
    """The highest epoch seen of a session, and whether the session was closed in it."""

    number: int
    closed: bool


class Batch(NamedTuple):
    """What is computed next."""

    steps: list[Work]
    """Decode steps, and behind them prefill slices of other sessions, those of one session in order."""
    prefill_tokens: int
    """How many tokens of slices may be computed now. What is left of one slice, which is alone then, is put
    back; several have no more together."""


class Scheduler:
    """The queue. Its owner makes sure that one thread at a time is in it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.queued = 0
        self.queued_bytes = 0
        self.waited = 0.0
        """Seconds that the work taken last had waited."""
        self.is_one_pass = False
        """Whether slices of several sessions are one pass, whatever their lengths. Written by the owner."""
        self._lanes: dict[SessionId, _Lane] = {}
        self._decode: OrderedDict[SessionId, None] = OrderedDict()
        self._prefill: OrderedDict[SessionId, None] = OrderedDict()
        self._errands: OrderedDict[SessionId, None] = OrderedDict()
        """Sessions by the kind of their oldest waiting step, in the order of their turns."""
        self._gathering = Gathering()
        self._pace = Pace()
        self._decoding: dict[SessionId, float] = {}
        """Sessions that decode: when a step was computed last. Without those closed, or silent for long."""
        self._was_errand = False
        """Whether the last batch was an errand."""
        self._epochs: OrderedDict[SessionId, _Epoch] = OrderedDict()
        self._dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Work that was accepted or came too late, and was not run, by reason: `stale` or `cancelled`."""
        return self._dropped

    def add(self, work: Work, now: float) -> list[Work]:
        """Queues `work`; returns what it makes stale, which is itself when it comes too late.

        A refusal changes nothing.

        Raises:
            SessionUnknown: the session was closed in this epoch or a later one.
            QueueFull: too much waits, of this session or of all; `retry_after` says for how long.
        """
        last = self._epochs.get(work.session)
        if last is not None and last.closed and work.epoch <= last.number:
            raise SessionUnknown("this session was closed: start a new one")
        if last is not None and work.epoch < last.number:
            self._dropped["stale"] += 1
            return [work]
        supersedes = last is not None and work.epoch > last.number
        self._check_room(work, None if supersedes else self._lanes.get(work.session))
        stale = self._drop_lane(work.session, "stale") if supersedes else []
        self._remember(work.session, _Epoch(work.epoch, closed=False))
        self._append(work, now)
        return stale

    def take_at_once(self, work: Work, now: float) -> bool:
        """Whether `work` is a batch by itself, and is not queued: a decode step before which nothing is due.

        If not, it is to be added as if this had not been asked.
        """
        last = self._epochs.get(work.session)
        is_due = last is None or work.epoch > last.number or (work.epoch == last.number and not last.closed)
        if self.queued or not _is_decode(work) or not is_due or len(work.payload) > self.limits.session_bytes:
            return False
        self._gathering.arrived(work.session, now)
        if self._gathering.wait((work.session,), now):
            return False
        self._remember(work.session, _Epoch(work.epoch, closed=False))
        self.waited, self._was_errand = 0.0, False
        return True

    def cancel(self, session: SessionId, epoch: int = 0) -> list[Work]:
        """Closes the session in `epoch` or the highest one seen; returns its work that will not run.

        From now on its steps are refused, unless a higher epoch opens it again.
        """
        last = self._epochs.get(session)
        self._remember(session, _Epoch(max(epoch, last.number if last else 0), closed=True))
        self._gathering.forget(session)
        if self._decoding.pop(session, None) is not None and not self._decoding:
            self._pace.nobody_decodes()
        return self._drop_lane(session, "cancelled")

    def wait(self, now: float) -> float:
        """Seconds for which `take` should wait, because more is about to come; 0 when it should not."""
        if not self.queued or len(self._decode) >= self.limits.batch:
            return 0.0
        wait = self._gathering.wait(self._decode, now)
        return wait if self._decode else max(wait, self._pace.wait(now))

    def take(self, now: float) -> Batch:
        """The next batch; empty only if nothing waits. Asked before `wait` is over it gives what there is."""
        self._was_errand = self._is_turn_of_errands(now)
        if self._was_errand:
            return Batch([self._pop(self._errands, now)], 0)
        prompts = len(self._prefill)  # before a session's step makes way for its next prompt
        steps = [self._pop(self._decode, now) for _ in range(min(self.limits.batch, len(self._decode)))]
        tokens = self._prefill_tokens(len(steps), prompts, now) if prompts else 0
        if prompts and not steps:
            tokens = max(1, tokens)
        if tokens:
            steps += self._pop_prompts(tokens, list(steps), now)
        return Batch(steps, tokens)

    @property
    def has_decode_only(self) -> bool:
        """Whether decode steps wait, and nothing else."""
        return bool(self._decode) and not self._prefill and not self._errands

    def _prefill_tokens(self, decoding: int, prompts: int, now: float) -> int:
        first = (self._lanes[session].waiting[0].work.kind for session in self._prefill)
        are_passes = all(kind is FrameType.FORWARD for kind in first)
        return self._pace.prefill_tokens(decoding, prompts, now, are_passes)

    def _pop_prompts(self, tokens: int, beside: Sequence[Work], now: float) -> list[Work]:
        """A slice, and as many more as are computed whole within `tokens` tokens; `beside` decode steps.

        Of one session there are several where they can be joined, and a larger part costs little more.
        """
        slices = [self._pop(self._prefill, now)]
        total, last = slices[0].tokens, {slices[0].session: slices[0]}
        joined_tokens, joined_bytes = self._pace.joined_tokens(len(beside)), Counter[SessionId]()
        decoding = {work.session for work in beside}
        most = self.limits.batch if self.is_one_pass or not beside else 1
        while self._prefill:
            session = next(iter(self._prefill))
            work = self._lanes[session].waiting[0].work
            total += work.tokens
            joined_bytes[session] += len(work.payload)
            if total > tokens or session in decoding:
                break
            if session not in last and len(last) == most:
                break
            is_small = total <= joined_tokens and joined_bytes[session] <= MOST_JOINED_BYTES
            if session in last and not (is_small and follows(last[session], work)):
                break
            slices.append(self._pop(self._prefill, now))
            last[session] = work
        return slices

    def _is_turn_of_errands(self, now: float) -> bool:
        """A fork costs time as a prompt's part does: decode steps go between two, and as long as due."""
        if not self._decode:
            return bool(self._errands)
        return bool(self._errands) and not self._was_errand and not self._pace.wait(now)

    def put_back(self, work: Work, now: float) -> list[Work]:
        """A slice of which a part was computed, to go on with at its session's next turn.

        Returns it if it is stale by now.
        """
        last = self._epochs.get(work.session)
        if last is not None and (last.number > work.epoch or (last.closed and last.number == work.epoch)):
            self._dropped["cancelled" if last.closed else "stale"] += 1
            return [work]
        lane = self._lanes.setdefault(work.session, _Lane())
        if lane.waiting:
            del self._turns_of(lane.waiting[0].work)[work.session]
        lane.waiting.appendleft(_Waiting(now, work))
        self._count(lane, work)
        self._prefill[work.session] = None
        return []

    def computed(self, decoded: list[SessionId], tokens: int, seconds: float, now: float) -> None:
        """A batch with decode steps of `decoded` and `tokens` of a slice has taken `seconds`."""
        self._pace.measured(len(decoded), len(self._prefill), tokens, seconds, now)
        if decoded:
            silent = [one for one, at in self._decoding.items() if now - at > QUIET_SECONDS]
            for session in silent:
                del self._decoding[session]
            self._decoding.update(dict.fromkeys(decoded, now))
            self._gathering.done(decoded, seconds, now)

    def _check_room(self, work: Work, lane: _Lane | None) -> None:
        limits, size = self.limits, len(work.payload)
        retry_after = max(MIN_RETRY_SECONDS, self.waited)
        waiting, waiting_bytes = (0, 0) if lane is None else (len(lane.waiting), lane.bytes)
        if waiting >= limits.session_items or waiting_bytes + size > limits.session_bytes:
            raise QueueFull(
                f"{waiting} steps of this session wait here already: send more when one is done",
                retry_after=retry_after,
            )
        if self.queued >= limits.items or self.queued_bytes + size > limits.bytes:
            raise QueueFull(
                f"{self.queued} steps of all sessions wait here already: try again, or use another volunteer",
                retry_after=retry_after,
            )

    def _append(self, work: Work, now: float) -> None:
        lane = self._lanes.setdefault(work.session, _Lane())
        lane.waiting.append(_Waiting(now, work))
        self._count(lane, work)
        if len(lane.waiting) == 1:
            self._turns_of(work)[work.session] = None
        if _is_decode(work):
            self._gathering.arrived(work.session, now)

    def _count(self, lane: _Lane, work: Work) -> None:
        lane.bytes += len(work.payload)
        self.queued += 1
        self.queued_bytes += len(work.payload)

    def _pop(self, turns: OrderedDict[SessionId, None], now: float) -> Work:
        """The oldest step of the session whose turn it is; the session goes to the end of the turns."""
        session, _ = turns.popitem(last=False)
        lane = self._lanes[session]
        since, work = lane.waiting.popleft()
        lane.bytes -= len(work.payload)
        self.queued -= 1
        self.queued_bytes -= len(work.payload)
        self.waited = now - since
        if lane.waiting:
            self._turns_of(lane.waiting[0].work)[session] = None
        else:
            del self._lanes[session]
        return work

    def _turns_of(self, work: Work) -> OrderedDict[SessionId, None]:
        if _is_decode(work):
            return self._decode
        return self._errands if work.is_errand else self._prefill

    def _drop_lane(self, session: SessionId, reason: str) -> list[Work]:
        lane = self._lanes.pop(session, None)
        if lane is None:
            return []
        del self._turns_of(lane.waiting[0].work)[session]
        self.queued -= len(lane.waiting)
        self.queued_bytes -= lane.bytes
        self._dropped[reason] += len(lane.waiting)
        return [waiting.work for waiting in lane.waiting]

    def _remember(self, session: SessionId, epoch: _Epoch) -> None:
        self._epochs[session] = epoch
        self._epochs.move_to_end(session)
        if len(self._epochs) > REMEMBERED_SESSIONS:
            self._epochs.popitem(last=False)


def _is_decode(work: Work) -> bool:
    return work.kind is FrameType.STEP or work.kind is FrameType.PROBE
