"""The order in which work leaves the queue, and that none is lost: examples, and random histories."""

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schema.errors import QueueFull, SessionUnknown
from schema.frames import FrameType
from schema.ids import SessionId, Span
from volunteer.pacing import FIRST_ALONE_TOKENS, FIRST_TOKENS
from volunteer.scheduler import MIN_RETRY_SECONDS, MOST_JOINED_BYTES, REMEMBERED_SESSIONS, Limits, Scheduler
from volunteer.work import Work

SPAN = Span(0, 2)


def session(number: int) -> SessionId:
    return SessionId(number.to_bytes(16, "big"))


def work(
    of: int, step: int = 0, kind: FrameType = FrameType.STEP, *, epoch: int = 0, payload: bytes = b"1234"
) -> Work:
    return Work(
        kind=kind, session=session(of), step=step, position=step, epoch=epoch, span=SPAN, payload=payload
    )


def prefill(of: int, step: int = 0, tokens: int = 1 << 20) -> Work:
    """A slice, too long to go with others unless told otherwise."""
    return replace(work(of, step, FrameType.PREFILL), tokens=tokens)


def measure(scheduler: Scheduler, parts: dict[int, float]) -> None:
    """What parts of so many tokens have taken, in seconds."""
    for tokens, seconds in parts.items():
        scheduler.computed([], tokens, seconds, 0.0)


def drain(scheduler: Scheduler, now: float = 0.0) -> list[Work]:
    taken: list[Work] = []
    while scheduler.queued:
        taken += scheduler.take(now).steps
    return taken


def test_an_empty_queue_gives_an_empty_batch() -> None:
    assert Scheduler().take(0.0).steps == []


def test_decode_goes_before_prefill_that_came_first() -> None:
    scheduler = Scheduler()
    chunk, step = prefill(1), work(2)
    scheduler.add(chunk, 0.0)
    scheduler.add(step, 0.0)
    assert drain(scheduler) == [step, chunk]


def test_forks_go_one_by_one_with_decode_steps_between_them() -> None:
    scheduler = Scheduler()
    step, slice_behind = work(1), prefill(2, 1)
    fork, other = work(2, 0, FrameType.FORK), work(3, 0, FrameType.FORK)
    for one in (step, fork, slice_behind, other):
        scheduler.add(one, 0.0)
    assert scheduler.wait(0.0) == 0.0
    assert scheduler.take(0.0).steps == [fork]
    assert scheduler.take(0.0).steps[0] == step
    assert drain(scheduler)[:1] == [other]


def test_a_fork_that_has_taken_long_is_paid_for_before_the_next() -> None:
    scheduler = Scheduler()
    scheduler.computed([session(1)], 0, 0.01, now=0.0)
    scheduler.computed([], 0, 0.5, now=0.5)  # a fork
    now = 0.5
    for turn in range(10):
        scheduler.add(work(2 + turn, 0, FrameType.FORK), now)
        scheduler.add(work(1, turn + 1), now)
        (taken,) = scheduler.take(now).steps
        assert taken.kind is FrameType.STEP
        now += 0.01
        scheduler.computed([session(1)], 0, 0.01, now=now)
    assert scheduler.wait(now) > 0.0


def test_a_fork_of_a_session_that_was_closed_is_dropped() -> None:
    scheduler = Scheduler()
    fork = work(1, 0, FrameType.FORK)
    scheduler.add(fork, 0.0)
    assert scheduler.cancel(session(1)) == [fork]
    assert (scheduler.take(0.0).steps, scheduler.queued) == ([], 0)


def test_a_probe_goes_with_decode() -> None:
    scheduler = Scheduler()
    chunk, probe = prefill(1), work(2, kind=FrameType.PROBE)
    scheduler.add(chunk, 0.0)
    scheduler.add(probe, 0.0)
    assert scheduler.take(0.0).steps == [probe]


def test_a_decode_step_waits_for_the_prefill_of_its_own_session() -> None:
    scheduler = Scheduler()
    first, second, step = prefill(1, 0), prefill(1, 1), work(1, 2)
    for item in (first, second, step):
        scheduler.add(item, 0.0)
    assert drain(scheduler) == [first, second, step]


def test_sessions_take_turns() -> None:
    scheduler = Scheduler()
    long = [work(1, step) for step in range(3)]
    other = work(2)
    for item in (*long, other):
        scheduler.add(item, 0.0)
    assert drain(scheduler) == [long[0], other, long[1], long[2]]


def test_a_slice_goes_with_decode_steps_once_their_pace_is_known() -> None:
    scheduler = Scheduler()
    chunk, step = prefill(1), work(2)
    scheduler.add(chunk, 0.0)
    scheduler.add(step, 0.0)
    assert scheduler.take(0.0) == ([step], 0)
    scheduler.computed([step.session], 0, seconds=0.1, now=0.1)
    again = work(2, 1)
    scheduler.add(again, 0.1)
    batch = scheduler.take(0.1)
    assert batch.steps == [again, chunk]
    assert batch.prefill_tokens > 0


class TestShortPrompts:
    def test_go_together_while_nobody_decodes(self) -> None:
        scheduler = Scheduler()
        short = [prefill(number, tokens=20) for number in range(5)]
        for one in short:
            scheduler.add(one, 0.0)
        assert scheduler.take(0.0) == (short[:3], FIRST_ALONE_TOKENS)
        assert scheduler.take(0.0).steps == short[3:]

    @pytest.mark.parametrize(("is_one_pass", "taken"), [(True, 2), (False, 1)])
    def test_go_beside_decode_steps_as_many_as_make_a_part_and_a_pass(
        self, is_one_pass: bool, taken: int
    ) -> None:
        scheduler = Scheduler()
        scheduler.is_one_pass = is_one_pass
        step, *short = (
            work(0),
            prefill(1, tokens=3),
            prefill(2, tokens=FIRST_TOKENS - 3),
            prefill(3, tokens=1),
        )
        for one in (step, *short):
            scheduler.add(one, 0.0)
        assert scheduler.take(0.0).steps == [step]
        scheduler.computed([step.session], 0, seconds=0.1, now=0.1)
        again = work(0, 1)
        scheduler.add(again, 0.1)
        assert scheduler.take(0.1) == ([again, *short[:taken]], FIRST_TOKENS)

    def test_of_a_session_do_not_go_beside_its_own_decode_step(self) -> None:
        scheduler = Scheduler()
        scheduler.is_one_pass = True
        scheduler.add(work(0), 0.0)
        assert len(scheduler.take(0.0).steps) == 1
        scheduler.computed([session(0)], 0, seconds=0.1, now=0.1)
        step, behind, other = work(1), prefill(1, 1, tokens=1), prefill(2, tokens=1)
        for one in (step, behind, other):
            scheduler.add(one, 0.1)
        assert scheduler.take(0.1).steps == [step, other]
        assert scheduler.take(0.1).steps == [behind]

    def test_do_not_go_before_a_longer_one_that_came_first(self) -> None:
        scheduler = Scheduler()
        first, long, last = prefill(1, tokens=20), prefill(2, tokens=1000), prefill(3, tokens=20)
        for one in (first, long, last):
            scheduler.add(one, 0.0)
        assert [scheduler.take(0.0).steps for _ in range(3)] == [[first], [long], [last]]

    def test_of_one_session_go_one_after_the_other(self) -> None:
        scheduler = Scheduler()
        first, second, other = prefill(1, 0, tokens=5), prefill(1, 1, tokens=5), prefill(2, tokens=5)
        for one in (first, second, other):
            scheduler.add(one, 0.0)
        assert [scheduler.take(0.0).steps for _ in range(2)] == [[first, other], [second]]

    def test_of_one_session_go_together_where_a_pass_takes_as_long_whatever_its_size(self) -> None:
        scheduler = Scheduler()
        measure(scheduler, {10: 0.1, 20: 0.101})
        slices = [prefill(1, 10 * number, tokens=10) for number in range(3)]
        for one in slices:
            scheduler.add(one, 0.0)
        assert scheduler.take(0.0).steps == slices

    @pytest.mark.parametrize(
        ("pace", "slices"),
        [
            ({10: 0.1, 20: 0.101}, [prefill(1, 0, tokens=10), prefill(1, 20, tokens=10)]),
            (
                {10: 0.1, 20: 0.101},
                [replace(work(1, 10 * step, FrameType.FORWARD), tokens=10) for step in range(2)],
            ),
            ({5: 0.005, 10: 0.01, 20: 0.02}, [prefill(1, 0, tokens=10), prefill(1, 10, tokens=10)]),
        ],
        ids=["where they cannot be joined", "as passes", "where it takes as long as it has tokens"],
    )
    def test_of_one_session_do_not(self, pace: dict[int, float], slices: list[Work]) -> None:
        scheduler = Scheduler()
        measure(scheduler, pace)
        for one in slices:
            scheduler.add(one, 0.0)
        assert [scheduler.take(0.0).steps for _ in range(2)] == [[one] for one in slices]

    def test_are_no_more_bytes_than_a_payload_can_have(self) -> None:
        scheduler = Scheduler()
        measure(scheduler, {10: 0.1, 20: 0.101})
        large = bytes(MOST_JOINED_BYTES // 2)
        slices = [replace(prefill(1, 10 * number, tokens=10), payload=large) for number in range(4)]
        other = replace(prefill(2, tokens=1), payload=large)
        for one in (*slices, other):
            scheduler.add(one, 0.0)
        assert [scheduler.take(0.0).steps for _ in range(2)] == [[slices[0], other, *slices[1:3]], slices[3:]]

    def test_are_no_more_than_a_batch_has_room_for(self) -> None:
        scheduler = Scheduler(Limits(batch=2))
        for number in range(3):
            scheduler.add(prefill(number, tokens=1), 0.0)
        assert [len(scheduler.take(0.0).steps) for _ in range(2)] == [2, 1]


def test_when_the_last_reply_has_ended_prompts_wait_for_it_no_longer() -> None:
    scheduler = Scheduler()
    scheduler.computed([session(1)], 0, 0.01, now=0.0)
    scheduler.computed([session(1), session(2)], 8, 5.0, now=5.0)  # a part that took far more than its share
    scheduler.add(prefill(3), 5.0)
    scheduler.cancel(session(1))
    assert scheduler.wait(5.0) > 0.0
    scheduler.cancel(session(2))
    assert scheduler.wait(5.0) == 0.0
    assert scheduler.take(5.0).prefill_tokens > 8


def test_a_slice_that_is_put_back_goes_on_at_its_sessions_next_turn() -> None:
    scheduler = Scheduler()
    first, second, other = prefill(1, 0), prefill(1, 1), prefill(2)
    for item in (first, second, other):
        scheduler.add(item, 0.0)
    assert scheduler.take(0.0).steps == [first]
    assert scheduler.put_back(first, 0.0) == []
    assert scheduler.queued == 3
    assert drain(scheduler) == [other, first, second]


def test_a_slice_of_a_session_that_was_closed_meanwhile_is_not_put_back() -> None:
    scheduler = Scheduler()
    chunk = prefill(1)
    scheduler.add(chunk, 0.0)
    scheduler.take(0.0)
    scheduler.cancel(chunk.session)
    assert scheduler.put_back(chunk, 0.0) == [chunk]
    assert (scheduler.queued, scheduler.dropped) == (0, {"cancelled": 1})


def test_a_slice_of_an_older_epoch_is_not_put_back() -> None:
    scheduler = Scheduler()
    chunk, newer = prefill(1), work(1, epoch=1)
    scheduler.add(chunk, 0.0)
    scheduler.take(0.0)
    scheduler.add(newer, 0.0)
    assert scheduler.put_back(chunk, 0.0) == [chunk]
    assert drain(scheduler) == [newer]


def test_steps_that_are_about_to_come_are_waited_for() -> None:
    scheduler = Scheduler()
    for turn in range(3):
        for of in (1, 2):
            scheduler.add(work(of, turn), turn + 0.001 * of)
        assert len(scheduler.take(turn + 0.01).steps) == 2
        scheduler.computed([session(1), session(2)], 0, seconds=0.9, now=turn + 1.0)
    scheduler.add(work(1, 3), 3.001)
    assert scheduler.wait(3.001) > 0
    scheduler.add(work(2, 3), 3.002)
    assert scheduler.wait(3.002) == 0


def test_a_decode_step_before_which_nothing_is_due_is_a_batch_at_once() -> None:
    scheduler = Scheduler()
    assert scheduler.take_at_once(work(1), 0.0)
    assert (scheduler.queued, scheduler.take(0.0).steps) == (0, [])
    assert scheduler.take_at_once(work(1, 1), 1.0)
    assert scheduler.take_at_once(work(2, kind=FrameType.PROBE), 2.0)


@pytest.mark.parametrize("kind", [FrameType.PREFILL, FrameType.FORK, FrameType.FORWARD])
def test_other_kinds_are_not(kind: FrameType) -> None:
    assert not Scheduler().take_at_once(work(1, kind=kind), 0.0)


def test_nor_is_a_step_while_others_wait() -> None:
    scheduler = Scheduler()
    scheduler.add(work(1), 0.0)
    assert not scheduler.take_at_once(work(2), 0.0)
    assert len(drain(scheduler)) == 1


def test_nor_is_a_step_that_others_are_about_to_join() -> None:
    """It goes with them then."""
    scheduler = Scheduler()
    now = 0.0
    for turn in range(2):
        for of in (1, 2):
            scheduler.add(work(of, turn), now)
        drain(scheduler, now)
        now += 0.1
        scheduler.computed([session(1), session(2)], 0, 0.1, now)
        now += 0.001
    one, other = work(1, 2), work(2, 2)
    assert not scheduler.take_at_once(one, now)
    scheduler.add(one, now)
    assert scheduler.wait(now) > 0
    scheduler.add(other, now + 0.001)
    assert drain(scheduler, now + 0.001) == [one, other]


def test_at_once_closed_and_stale_sessions_are_as_ever() -> None:
    scheduler = Scheduler()
    assert scheduler.take_at_once(work(1, epoch=2), 0.0)
    assert not scheduler.take_at_once(work(1, epoch=1), 0.0)
    assert scheduler.add(work(1, epoch=1), 0.0) != []
    scheduler.cancel(session(1))
    assert not scheduler.take_at_once(work(1, epoch=2), 0.0)
    with pytest.raises(SessionUnknown):
        scheduler.add(work(1, epoch=2), 0.0)
    assert scheduler.take_at_once(work(1, epoch=3), 0.0)
    assert not scheduler.take_at_once(work(1, epoch=2), 0.0)


def test_nothing_is_waited_for_where_nothing_waits() -> None:
    assert Scheduler().wait(0.0) == 0


def test_a_batch_holds_decode_steps_of_different_sessions() -> None:
    scheduler = Scheduler(Limits(batch=4))
    for of in (1, 1, 2, 3):
        scheduler.add(work(of), 0.0)
    assert [item.session for item in scheduler.take(0.0).steps] == [session(1), session(2), session(3)]


def test_a_prefill_chunk_is_a_batch_of_its_own() -> None:
    scheduler = Scheduler(Limits(batch=4))
    scheduler.add(prefill(1), 0.0)
    scheduler.add(prefill(2), 0.0)
    assert len(scheduler.take(0.0).steps) == 1


def test_a_cancelled_session_loses_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler()
    mine, others = [work(1, 0), work(1, 1)], work(2)
    for item in (*mine, others):
        scheduler.add(item, 0.0)
    assert scheduler.cancel(session(1)) == mine
    assert drain(scheduler) == [others]
    assert scheduler.dropped == {"cancelled": 2}


def test_work_that_comes_after_the_cancellation_is_refused_by_name() -> None:
    scheduler = Scheduler()
    scheduler.cancel(session(1), epoch=3)
    with pytest.raises(SessionUnknown):
        scheduler.add(work(1, epoch=3), 0.0)


def test_a_higher_epoch_opens_a_closed_session_again() -> None:
    scheduler = Scheduler()
    scheduler.cancel(session(1), epoch=3)
    again = work(1, epoch=4)
    assert scheduler.add(again, 0.0) == []
    assert scheduler.take(0.0).steps == [again]


def test_a_higher_epoch_drops_the_work_of_lower_ones() -> None:
    scheduler = Scheduler()
    old = [work(1, 0), work(1, 1)]
    for item in old:
        scheduler.add(item, 0.0)
    new = work(1, 2, epoch=1)
    assert scheduler.add(new, 0.0) == old
    assert drain(scheduler) == [new]
    assert scheduler.dropped == {"stale": 2}


def test_work_of_a_lower_epoch_is_dropped_and_counted() -> None:
    scheduler = Scheduler()
    scheduler.add(work(1, epoch=1), 0.0)
    scheduler.take(0.0)
    late = work(1, epoch=0)
    assert scheduler.add(late, 0.0) == [late]
    assert scheduler.take(0.0).steps == []
    assert scheduler.dropped == {"stale": 1}


@pytest.mark.parametrize(
    "limits",
    [Limits(items=2), Limits(bytes=10), Limits(session_items=2), Limits(session_bytes=10)],
    ids=["items", "bytes", "session_items", "session_bytes"],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(limits: Limits) -> None:
    scheduler = Scheduler(limits)
    kept = [work(1, 0), work(1, 1)]
    for item in kept:
        scheduler.add(item, 0.0)
    with pytest.raises(QueueFull):
        scheduler.add(work(1, 2), 0.0)
    assert drain(scheduler) == kept


def test_a_session_that_fills_its_share_leaves_room_for_others() -> None:
    scheduler = Scheduler(Limits(session_items=1))
    scheduler.add(work(1), 0.0)
    scheduler.add(work(2), 0.0)
    assert scheduler.queued == 2


def test_a_refused_new_epoch_drops_nothing() -> None:
    scheduler = Scheduler(Limits(bytes=10))
    old = work(1)
    scheduler.add(old, 0.0)
    with pytest.raises(QueueFull):
        scheduler.add(work(1, 1, epoch=1, payload=bytes(20)), 0.0)
    assert drain(scheduler) == [old]


def test_a_refusal_says_how_long_work_waits_here() -> None:
    scheduler = Scheduler(Limits(items=2))
    scheduler.add(work(1), 0.0)
    scheduler.take(3.0)
    scheduler.add(work(2), 3.0)
    scheduler.add(work(3), 3.0)
    with pytest.raises(QueueFull) as refusal:
        scheduler.add(work(4), 3.0)
    assert refusal.value.retry_after == 3.0


def test_a_refusal_never_asks_to_try_again_at_once() -> None:
    scheduler = Scheduler(Limits(items=0))
    with pytest.raises(QueueFull) as refusal:
        scheduler.add(work(1), 0.0)
    assert refusal.value.retry_after == MIN_RETRY_SECONDS


def test_a_forgotten_session_keeps_what_waits() -> None:
    scheduler = Scheduler(Limits(items=2 * REMEMBERED_SESSIONS))
    first = [work(0, 0), work(0, 1)]
    scheduler.add(first[0], 0.0)
    for number in range(1, REMEMBERED_SESSIONS + 1):
        scheduler.cancel(session(number))
    scheduler.add(first[1], 0.0)
    assert drain(scheduler) == first


class RandomHistory(RuleBasedStateMachine):
    """Any sequence of arrivals, cancellations and takes, against what each promises."""

    limits = Limits(items=12, bytes=60, session_items=5, session_bytes=30, batch=3)

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.limits)
        self.scheduler.is_one_pass = True
        self.now = 0.0
        self.waiting: dict[SessionId, list[Work]] = defaultdict(list)

    @rule(
        of=st.integers(0, 4),
        kind=st.sampled_from([FrameType.STEP, FrameType.PREFILL, FrameType.PROBE]),
        epoch=st.integers(0, 3),
        size=st.integers(0, 20),
        tokens=st.sampled_from([1, FIRST_ALONE_TOKENS // 2, 1 << 20]),
    )
    def arrive(self, of: int, kind: FrameType, epoch: int, size: int, tokens: int) -> None:
        item = replace(work(of, kind=kind, epoch=epoch, payload=bytes(size)), tokens=tokens)
        try:
            dropped = self.scheduler.add(item, self.now)
        except (QueueFull, SessionUnknown):
            return
        if dropped == [item]:
            assert all(kept.epoch > item.epoch for kept in self.waiting[item.session])
            return
        assert dropped == [old for old in self.waiting[item.session] if old.epoch < epoch]
        self.waiting[item.session] = [old for old in self.waiting[item.session] if old.epoch == epoch]
        self.waiting[item.session].append(item)

    @rule(of=st.integers(0, 4), epoch=st.integers(0, 3))
    def cancel(self, of: int, epoch: int) -> None:
        assert self.scheduler.cancel(session(of), epoch) == self.waiting.pop(session(of), [])

    @precondition(lambda self: self.scheduler.queued)
    @rule(wait=st.floats(0.0, 1.0), data=st.data())
    def take(self, wait: float, data: st.DataObject) -> None:
        self.now += wait
        batch, tokens = self.scheduler.take(self.now)
        prefills = [item for item in batch if item.kind is FrameType.PREFILL]
        assert batch
        assert len(batch) - len(prefills) <= self.limits.batch
        assert bool(prefills) == bool(tokens)
        if len(prefills) > 1:
            assert sum(item.tokens for item in prefills) <= tokens
        decoding = [item for item in batch if item not in prefills]
        assert len({item.session for item in decoding}) == len(decoding)
        assert not {item.session for item in decoding} & {item.session for item in prefills}
        for item in batch:
            assert self.waiting[item.session].pop(0) is item
        if data.draw(st.booleans()) and len(prefills) == 1:
            assert self.scheduler.put_back(prefills[0], self.now) == []
            self.waiting[prefills[0].session].insert(0, prefills[0])
        decoded = [item.session for item in batch if item.kind is not FrameType.PREFILL]
        self.scheduler.computed(decoded, tokens, seconds=0.01, now=self.now)

    @invariant()
    def counts_what_waits_within_the_bounds(self) -> None:
        everything = [item for queue in self.waiting.values() for item in queue]
        assert self.scheduler.queued == len(everything) <= self.limits.items
        assert self.scheduler.queued_bytes == sum(len(item.payload) for item in everything)
        assert self.scheduler.queued_bytes <= self.limits.bytes
        for queue in self.waiting.values():
            assert len(queue) <= self.limits.session_items
            assert sum(len(item.payload) for item in queue) <= self.limits.session_bytes

    def teardown(self) -> None:
        left = drain(self.scheduler, self.now)
        assert sorted(map(id, left)) == sorted(id(item) for queue in self.waiting.values() for item in queue)


TestRandomHistory = RandomHistory.TestCase
TestRandomHistory.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@settings(max_examples=50, deadline=None)
@given(sessions=st.integers(1, 20), batch=st.integers(1, 8), prefills=st.integers(0, 5))
def test_no_session_starves_in_a_full_house(sessions: int, batch: int, prefills: int) -> None:
    """Every session sends its next step when the last one is done: each gets its turn, every round."""
    scheduler = Scheduler(Limits(batch=batch))
    for of in range(sessions):
        scheduler.add(work(of), 0.0)
    for of in range(sessions, sessions + prefills):
        scheduler.add(prefill(of), 0.0)
    served: dict[SessionId, int] = defaultdict(int)
    takes = 4 * (sessions + 1) * (prefills + 1)
    for _ in range(takes):
        taken, tokens = scheduler.take(0.0)
        decoded = [item.session for item in taken if item.kind is not FrameType.PREFILL]
        scheduler.computed(decoded, tokens, seconds=0.01, now=0.0)
        for item in taken:
            served[item.session] += 1
            scheduler.add(Work(item.kind, item.session, item.step + 1, 0, 0, SPAN, b""), 0.0)
    decoders = [served[session(of)] for of in range(sessions)]
    fillers = [served[session(of)] for of in range(sessions, sessions + prefills)]
    assert min(decoders) > 0
    assert max(decoders) - min(decoders) <= 1
    if fillers:
        assert sum(fillers) >= takes * 3 // 4
        assert max(fillers) - min(fillers) <= 1
