"""Sessions that are over and kept: forks of them, what makes room for others, and that no byte is lost."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from corolla.models.facts import ModelFacts
from corolla.models.graphs import GraphedDecoder
from corolla.models.growing import LEAST_ROOM
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.tensors import from_wire, to_wire
from schema.errors import (
    CorollaError,
    KVCacheFull,
    NotServing,
    PositionMismatch,
    PrefixUnknown,
    ResumeRefused,
    SessionUnknown,
)
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import decode_tensors, encode_tensors
from tests.volunteer.tiny import (
    BLOCKS,
    CONTEXT,
    HIDDEN,
    KV_BYTES_PER_TOKEN,
    tiny_facts,
    tiny_source,
    tiny_span,
)
from volunteer.kvcache import IDLE_SECONDS, KEPT_SECONDS, KVAccount
from volunteer.scheduler import Limits, Scheduler
from volunteer.sent import SentOutputs
from volunteer.stage import Stage
from volunteer.work import Result, Work

SPAN = Span(0, BLOCKS)
ROOM_BYTES = LEAST_ROOM * BLOCKS * KV_BYTES_PER_TOKEN
"""What a sequence takes that is no longer than the least room."""
A, B, C, D = (SessionId(letter * 16) for letter in (b"a", b"b", b"c", b"d"))
POOL_PAGES = 6
SENT_BYTES = 10_000
"""Of some sessions, and not of all."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return tiny_source(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def facts(source: ModelSource) -> ModelFacts:
    return tiny_facts(source)


@pytest.fixture(scope="module")
def model(source: ModelSource) -> SpanModel:
    torch.set_num_threads(1)
    return tiny_span(source)


@pytest.fixture
def pool(model: SpanModel) -> Iterator[GraphedDecoder]:
    """Room for six short sequences, of which there may be five."""
    decoder = model.use_pool(tokens=POOL_PAGES * LEAST_ROOM, rows=5, longest=CONTEXT)
    assert decoder is not None
    yield decoder
    model.use_no_pool()


@pytest.fixture
def stage(model: SpanModel, facts: ModelFacts) -> Stage:
    return Stage(model, facts, KVAccount(2**20), SentOutputs(2**20))


def hidden(tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(1, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def step(
    session: SessionId, body: Tensor, position: int = 0, kind: FrameType = FrameType.STEP, epoch: int = 0
) -> Work:
    payload = encode_tensors([to_wire(body)])
    return Work(kind, session, 0, position, epoch, SPAN, payload, feeds_hop=True)


def fork(session: SessionId, of: SessionId, position: int, span: Span = SPAN, epoch: int = 0) -> Work:
    return Work(FrameType.FORK, session, 0, position, epoch, span, b"its payload", Flags.NONE, forks=of)


def resume(session: SessionId, broken: SessionId, position: int, *, feeds_new: bool = True) -> Work:
    return Work(
        FrameType.RESUME, session, 0, position, 0, SPAN, b"its payload", resumes=broken, feeds_new=feeds_new
    )


def replay(session: SessionId, tokens: int, position: int = 0) -> Work:
    """At a stop that is not new, before one that is."""
    return Work(FrameType.REPLAY, session, 0, position, 0, SPAN, b"", tokens=tokens, feeds_new=True)


def run(stage: Stage, work: Work, now: float = 0.0) -> Result:
    (result,) = stage.run([work], 512, now)
    return result


def output(result: Result) -> Tensor:
    assert result.error is None
    (wire,) = decode_tensors(result.payload)
    return from_wire(wire)


def error_of(result: Result) -> CorollaError:
    assert result.error is not None
    return result.error


def keep(stage: Stage, session: SessionId, tokens: int = 10, now: float = 0.0) -> Tensor:
    """A session that is over; what was fed to it."""
    fed = hidden(tokens, seed=session[0])
    output(run(stage, step(session, fed), now))
    stage.keep(session, now)
    return fed


@pytest.mark.parametrize("position", [10, 7, 1])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_fork_goes_on_as_the_session_itself_would(
    model: SpanModel, facts: ModelFacts, request: pytest.FixtureRequest, position: int, pooled: bool
) -> None:
    if pooled:
        request.getfixturevalue("pool")
    stage = Stage(model, facts, KVAccount(2**20))
    fed = keep(stage, A)
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 1, ROOM_BYTES)
    assert run(stage, fork(B, A, position)).payload == b"its payload"
    assert (stage.sessions, stage.kept, stage.kv_used) == (1, 1, 2 * ROOM_BYTES)
    run(stage, step(C, fed))
    for at in range(position, position + 3):
        token = hidden(1, seed=100 + at)
        mine = run(stage, step(B, token, at))
        assert torch.equal(output(mine), output(run(stage, step(C, token, at))))
    stage.close_all()
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 0, 0)


def test_forks_of_one_session_do_not_touch_each_other_or_it(stage: Stage) -> None:
    keep(stage, A)
    stage.run([fork(B, A, 10), fork(C, A, 10)], 512, 0.0)
    first = output(run(stage, step(B, hidden(1, seed=1), 10)))
    output(run(stage, step(C, hidden(1, seed=2), 10)))
    run(stage, fork(D, A, 10))
    assert torch.equal(output(run(stage, step(D, hidden(1, seed=1), 10))), first)


def test_forks_and_steps_that_come_together_are_all_answered(stage: Stage) -> None:
    keep(stage, A)
    run(stage, step(B, hidden(3)))
    results = stage.run([step(B, hidden(1), 3), fork(C, A, 8), fork(D, B, 8)], 512, 0.0)
    assert [result.error and result.error.code for result in results] == [None, None, "prefix_unknown"]


UNKNOWN = {
    "a session that is not kept": fork(C, D, 5),
    "a session that is not over": fork(C, B, 5),
    "itself": fork(A, A, 5),
    "more tokens than it has": fork(C, A, 11),
    "other blocks": fork(C, A, 5, Span(1, BLOCKS)),
    "nothing": Work(FrameType.FORK, C, 0, 5, 0, SPAN, b""),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_fork_of_what_is_not_there_is_refused_by_name(stage: Stage, what: str) -> None:
    keep(stage, A)
    run(stage, step(B, hidden(10)))
    assert isinstance(error_of(run(stage, UNKNOWN[what])), PrefixUnknown)
    assert stage.sessions == 1
    assert stage.kv_used == (stage.sessions + stage.kept) * ROOM_BYTES
    assert isinstance(error_of(run(stage, step(C, hidden(1), 5))), SessionUnknown)


def test_a_fork_of_a_session_that_has_begun_is_refused_and_leaves_it_as_it_was(stage: Stage) -> None:
    keep(stage, A)
    run(stage, fork(B, A, 5))
    assert isinstance(error_of(run(stage, fork(B, A, 4))), PositionMismatch)
    output(run(stage, step(B, hidden(1), 5)))


def test_a_fork_over_blocks_that_are_not_served_is_refused(stage: Stage) -> None:
    keep(stage, A)
    assert isinstance(error_of(run(stage, fork(B, A, 5, Span(0, BLOCKS + 1)))), NotServing)


def test_a_kept_session_takes_no_steps(stage: Stage) -> None:
    keep(stage, A)
    assert isinstance(error_of(run(stage, step(A, hidden(1), 10))), SessionUnknown)


def test_a_kept_session_is_freed_by_a_close(stage: Stage) -> None:
    keep(stage, A)
    stage.close(A)
    assert (stage.kept, stage.kv_used) == (0, 0)


def test_a_session_that_ended_in_the_middle_of_a_slice_is_not_kept(stage: Stage) -> None:
    (result,) = stage.run([step(A, hidden(9), kind=FrameType.PREFILL)], 4, 0.0)
    assert result.is_unfinished
    stage.keep(A, 0.0)
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 0, 0)


# ---- memory ------------------------------------------------------------------------------------


def rooms(
    model: SpanModel, facts: ModelFacts, count: int, share: float = 1.0, sent: SentOutputs | None = None
) -> Stage:
    return Stage(model, facts, KVAccount(count * ROOM_BYTES, kept_share=share), sent)


def test_what_is_kept_makes_room_before_anything_is_refused(model: SpanModel, facts: ModelFacts) -> None:
    stage = rooms(model, facts, 3)
    for session in (A, B, C):
        keep(stage, session)
    run(stage, step(D, hidden(4)))
    assert (stage.sessions, stage.kept, stage.kv_used) == (1, 2, 3 * ROOM_BYTES)
    assert isinstance(error_of(run(stage, fork(A, A, 5))), PrefixUnknown)
    output(run(stage, step(D, hidden(LEAST_ROOM), 4)))  # needs a second room
    assert (stage.sessions, stage.kept, stage.kv_used) == (1, 1, 3 * ROOM_BYTES)


def test_the_least_recently_forked_goes_first(model: SpanModel, facts: ModelFacts) -> None:
    stage = rooms(model, facts, 4)
    for session in (A, B, C):
        keep(stage, session)
    run(stage, fork(D, A, 5))
    stage.close(D)
    for session in (SessionId(b"e" * 16), SessionId(b"f" * 16)):
        run(stage, step(session, hidden(4)))
    assert run(stage, fork(D, C, 5)).error is None  # and B went for the two
    assert stage.kept == 1


def test_a_fork_that_is_refused_takes_nobody_s_place(model: SpanModel, facts: ModelFacts) -> None:
    stage = rooms(model, facts, 4)
    for session in (A, B):
        keep(stage, session)
    assert isinstance(error_of(run(stage, fork(D, A, 3 * LEAST_ROOM))), PrefixUnknown)
    assert stage.kept == 2


def test_a_session_too_large_to_be_kept_takes_nobody_s_place(model: SpanModel, facts: ModelFacts) -> None:
    stage = rooms(model, facts, 4, share=0.25)
    keep(stage, A)
    keep(stage, B, tokens=LEAST_ROOM + 1)
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 1, ROOM_BYTES)
    assert run(stage, fork(C, A, 5)).error is None


def test_a_fork_whose_copy_fails_leaves_no_page_behind(
    pool: GraphedDecoder, model: SpanModel, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = rooms(model, facts, 100)
    keep(stage, A)
    free = pool.pool.free_pages, pool.pool.free_rows

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(pool.pool, "copy", fail)
    assert isinstance(error_of(run(stage, fork(B, A, 5))), KVCacheFull)
    assert (pool.pool.free_pages, pool.pool.free_rows) == free


def test_what_is_forked_is_not_evicted_for_its_fork(model: SpanModel, facts: ModelFacts) -> None:
    stage = rooms(model, facts, 1)
    keep(stage, A)
    assert isinstance(error_of(run(stage, fork(B, A, 5))), KVCacheFull)
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 1, ROOM_BYTES)
    output(run(stage, step(B, hidden(5))))
    assert (stage.sessions, stage.kept) == (1, 0)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.3, 1), (0.5, 2), (1.0, 3)])
def test_no_more_is_kept_than_the_owner_gives(
    model: SpanModel, facts: ModelFacts, share: float, kept: int
) -> None:
    stage = rooms(model, facts, 4, share)
    for session in (A, B, C):
        keep(stage, session)
    assert (stage.kept, stage.kv_used) == (kept, kept * ROOM_BYTES)


def test_what_nobody_forks_is_freed_in_time(stage: Stage) -> None:
    keep(stage, A, now=0.0)
    keep(stage, B, now=0.0)
    run(stage, fork(C, B, 5), now=KEPT_SECONDS)
    stage.close(C)
    assert stage.expire(KEPT_SECONDS + 1) == []  # which names sessions that were not over
    assert (stage.kept, stage.kv_used) == (1, ROOM_BYTES)
    stage.expire(2 * KEPT_SECONDS + 1)
    assert (stage.kept, stage.kv_used) == (0, 0)


def test_a_pool_without_free_pages_takes_those_of_what_is_kept(
    pool: GraphedDecoder, model: SpanModel, facts: ModelFacts
) -> None:
    stage = rooms(model, facts, 100)
    for session in (A, B, C):
        keep(stage, session, tokens=LEAST_ROOM + 1)  # two pages each
    assert pool.pool.free_pages == 0
    output(run(stage, step(D, hidden(4))))
    assert (stage.kept, pool.pool.free_pages) == (2, 1)
    assert isinstance(error_of(run(stage, fork(A, A, 5))), PrefixUnknown)
    stage.close_all()
    assert (pool.pool.free_pages, pool.pool.free_rows, stage.kv_used) == (POOL_PAGES, 5, 0)


def test_a_pool_without_free_rows_takes_those_of_what_is_kept(
    pool: GraphedDecoder, model: SpanModel, facts: ModelFacts
) -> None:
    stage = rooms(model, facts, 100)
    for number in range(5):
        keep(stage, SessionId(bytes([number]) * 16))
    run(stage, fork(D, SessionId(bytes([4]) * 16), 5))
    assert (stage.sessions, stage.kept, pool.pool.free_rows) == (1, 4, 0)
    stage.close_all()
    assert (pool.pool.free_pages, pool.pool.free_rows) == (POOL_PAGES, 5)


def test_a_fork_for_which_a_pool_has_no_page_leaves_nothing(
    pool: GraphedDecoder, model: SpanModel, facts: ModelFacts
) -> None:
    stage = rooms(model, facts, 100)
    keep(stage, A, tokens=LEAST_ROOM + 1)
    for session in (B, C):
        run(stage, step(session, hidden(LEAST_ROOM + 1)))
    assert isinstance(error_of(run(stage, fork(D, A, 5))), KVCacheFull)
    assert (stage.sessions, stage.kept, pool.pool.free_rows) == (2, 1, 2)
    stage.close_all()
    assert (pool.pool.free_pages, pool.pool.free_rows, stage.kv_used) == (POOL_PAGES, 5, 0)


# ---- sessions that go on as others ---------------------------------------------------------------


def slice_for(session: SessionId, body: Tensor, position: int = 0, *, feeds_new: bool) -> Work:
    """A REPLAY at a stop that is new."""
    payload = encode_tensors([to_wire(body)])
    return Work(
        FrameType.REPLAY,
        session,
        0,
        position,
        0,
        SPAN,
        payload,
        tokens=body.shape[1],
        feeds_hop=True,
        feeds_new=feeds_new,
    )


@pytest.mark.parametrize("position", [10, 7, 1])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_session_goes_on_as_another_at_no_cost_and_to_the_bit(
    model: SpanModel, facts: ModelFacts, request: pytest.FixtureRequest, position: int, pooled: bool
) -> None:
    if pooled:
        request.getfixturevalue("pool")
    stage = Stage(model, facts, KVAccount(2**20), SentOutputs(2**20))
    fed = hidden(10)
    run(stage, step(A, fed))
    run(stage, step(C, fed))
    used = stage.kv_used
    assert run(stage, resume(B, A, position)).payload == b"its payload"
    assert (stage.sessions, stage.kv_used) == (2, used)
    for at in range(position, position + 3):
        token = hidden(1, seed=100 + at)
        mine = run(stage, step(B, token, at))
        assert torch.equal(output(mine), output(run(stage, step(C, token, at))))
    assert isinstance(error_of(run(stage, step(A, hidden(1), 10))), SessionUnknown)
    stage.close_all()
    assert (stage.sessions, stage.kept, stage.kv_used) == (0, 0, 0)


def test_what_was_sent_on_is_sent_again_to_the_bit(stage: Stage) -> None:
    """Of a prompt, single tokens and a fork alike."""
    sent = [output(run(stage, step(A, hidden(10))))]
    sent += [output(run(stage, step(A, hidden(1, seed=at), at))) for at in range(10, 14)]
    whole = torch.cat(sent, dim=1)
    run(stage, resume(B, A, 13))
    assert torch.equal(output(run(stage, replay(B, 8))), whole[:, :8])
    assert torch.equal(output(run(stage, replay(B, 5, 8))), whole[:, 8:13])
    stage.keep(B, 0.0)
    run(stage, fork(C, B, 11))
    assert torch.equal(output(run(stage, replay(C, 11))), whole[:, :11])


def test_whoever_is_sent_it_holds_what_the_other_did(model: SpanModel, facts: ModelFacts) -> None:
    """And can go on with it itself, in parts as any prompt."""
    one, other = (Stage(model, facts, KVAccount(2**20), SentOutputs(2**20)) for _ in range(2))
    fed, token = hidden(40), hidden(1, seed=5)
    sent = output(run(one, step(A, fed)))
    (first,) = other.run([work := slice_for(B, fed, feeds_new=True)], 16, 0.0)
    assert (first.is_unfinished, first.tokens) == (True, 16)
    other.run([work], 16, 0.0)
    (last,) = other.run([work], 16, 0.0)
    torch.testing.assert_close(output(last), sent)
    torch.testing.assert_close(output(run(other, step(B, token, 40))), output(run(one, step(A, token, 40))))
    torch.testing.assert_close(output(run(other, replay(B, 40))), sent)


def test_a_new_stop_answers_nothing_to_one_that_is_left(stage: Stage) -> None:
    result = run(stage, slice_for(A, hidden(10), feeds_new=False))
    assert (result.error, result.payload, result.tokens) == (None, b"", 10)
    assert stage.sessions == 1


def test_stops_that_are_left_compute_nothing(stage: Stage) -> None:
    run(stage, step(A, hidden(10)))
    run(stage, resume(B, A, 10, feeds_new=False))
    work = Work(FrameType.REPLAY, B, 0, 0, 0, SPAN, b"", tokens=10)
    result = run(stage, work)
    assert (result.error, result.payload, result.tokens) == (None, b"", 0)


@pytest.mark.parametrize("what", ["unknown", "kept", "shorter", "of other blocks", "not kept"])
def test_what_cannot_go_on_is_refused_by_name_and_left_as_it_was(
    model: SpanModel, facts: ModelFacts, what: str
) -> None:
    stage = rooms(model, facts, 8, sent=SentOutputs(0 if what == "not kept" else 2**20))
    work = resume(B, A, 11 if what == "shorter" else 10)
    if what == "kept":
        keep(stage, A)
    elif what != "unknown":
        run(stage, step(A, hidden(10)))
    if what == "of other blocks":
        work = replace(work, span=Span(0, 1))
    before = (stage.sessions, stage.kept, stage.kv_used)
    assert isinstance(error_of(run(stage, work)), ResumeRefused)
    assert (stage.sessions, stage.kept, stage.kv_used) == before


def test_a_session_that_has_begun_goes_on_as_no_other(stage: Stage) -> None:
    run(stage, step(A, hidden(10)))
    run(stage, step(B, hidden(4)))
    assert isinstance(error_of(run(stage, resume(B, A, 10))), PositionMismatch)
    assert stage.sessions == 2


def test_what_was_begun_of_a_session_that_goes_on_is_dropped(stage: Stage) -> None:
    run(stage, step(A, hidden(10)))
    (result,) = stage.run([step(A, hidden(40), 10, FrameType.PREFILL)], 16, 0.0)
    assert result.is_unfinished
    run(stage, resume(B, A, 10))
    assert output(run(stage, step(B, hidden(1), 10))).shape == (1, 1, HIDDEN)
    stage.close(B)
    assert (stage.sessions, stage.kv_used) == (0, 0)


def test_several_sequences_cannot_be_sent_again(stage: Stage) -> None:
    run(stage, step(A, hidden(10).expand(2, -1, -1).contiguous()))
    assert isinstance(error_of(run(stage, resume(B, A, 10))), ResumeRefused)
    assert run(stage, resume(B, A, 10, feeds_new=False)).error is None


def test_what_is_sent_again_is_freed_with_its_session(model: SpanModel, facts: ModelFacts) -> None:
    sent = SentOutputs(2**20)
    stage = rooms(model, facts, 8, sent=sent)
    for end in (stage.close, lambda _: stage.close_all(), lambda _: stage.expire(IDLE_SECONDS + 1)):
        run(stage, step(A, hidden(10)))
        assert sent.used
        end(A)
        assert (len(sent), sent.used) == (0, 0)


# ---- thousands of sessions -----------------------------------------------------------------------


@dataclass
class Life:
    """Random sessions on a scheduler and a stage, as a device thread runs them."""

    stage: Stage
    rng: random.Random
    scheduler: Scheduler = field(default_factory=lambda: Scheduler(Limits(batch=4)))
    open: dict[SessionId, int] = field(default_factory=dict[SessionId, int])
    """Tokens that were sent."""
    over: list[SessionId] = field(default_factory=list[SessionId])
    seen: set[str] = field(default_factory=set[str])
    """What has happened."""
    unfinished: set[SessionId] = field(default_factory=set[SessionId])
    """Those with a slice of which a part was computed."""
    now: float = 0.0

    def act(self) -> None:
        self.now += self.rng.random()
        weights = {self.begin: 4, self.begin_fork: 4, self.go_on: 8, self.cancel: 2, self.end: 3}
        weights |= {self.resume: 3, self.replay: 2}
        weights[self.compute] = 8
        self.rng.choices(list(weights), list(weights.values()))[0]()
        if self.rng.random() < 0.002:
            self.disconnect()
        if self.rng.random() < 0.01:
            self.now += self.rng.choice([10.0, KEPT_SECONDS])
            self.seen.update("idle" for _ in self.stage.expire(self.now))

    def begin(self) -> None:
        session, tokens = SessionId(self.rng.randbytes(16)), self.rng.choice([1, 5, 40, 70])
        self.submit(step(session, hidden(tokens), kind=FrameType.PREFILL), tokens)

    def begin_fork(self) -> None:
        if self.over:
            position = self.rng.choice([1, 5, 40, 70])
            session, kept = SessionId(self.rng.randbytes(16)), self.rng.choice(self.over[-8:])
            self.submit(fork(session, kept, position), position)

    def resume(self) -> None:
        """A session breaks off, and goes on under another name; what is left of it is freed."""
        if self.open:
            broken, session = self.rng.choice(list(self.open)), SessionId(self.rng.randbytes(16))
            self.unfinished.discard(broken)
            position = self.rng.randint(1, self.open[broken])
            self.submit(resume(session, broken, position, feeds_new=self.rng.random() < 0.5), position)
            self.scheduler.cancel(broken)
            self.compute()
            if broken in self.open:
                self.close(broken, keeps=False)

    def replay(self) -> None:
        if self.open:
            session = self.rng.choice(list(self.open))
            self.scheduler.add(replay(session, self.rng.randint(1, 80)), self.now)

    def go_on(self) -> None:
        if self.open:
            session = self.rng.choice(list(self.open))
            self.submit(step(session, hidden(1), self.open[session]), self.open[session] + 1)

    def cancel(self) -> None:
        if self.open:
            self.close(self.rng.choice(list(self.open)), keeps=False)

    def end(self) -> None:
        if self.open:
            self.close(self.rng.choice(list(self.open)), keeps=True)

    def disconnect(self) -> None:
        """A driver is gone, and the relay closes its sessions."""
        for session in list(self.open)[::2]:
            self.close(session, keeps=False)

    def submit(self, work: Work, tokens: int) -> None:
        self.open[work.session] = tokens
        self.scheduler.add(work, self.now)

    def close(self, session: SessionId, *, keeps: bool) -> None:
        del self.open[session]
        self.scheduler.cancel(session)
        self.unfinished.discard(session)
        if keeps:
            self.stage.keep(session, self.now)
            self.over.append(session)
        else:
            self.stage.close(session)

    def compute(self) -> None:
        batch = self.scheduler.take(self.now)
        for result in self.stage.run(batch.steps, batch.prefill_tokens, self.now) if batch.steps else []:
            self.seen.add(result.error.code if result.error else result.work.kind.name)
            self.unfinished.discard(result.work.session)
            if result.is_unfinished:
                self.scheduler.put_back(result.work, self.now)
                self.unfinished.add(result.work.session)
            elif result.error is not None and result.work.session in self.open:
                self.close(result.work.session, keeps=False)  # as its driver does


@pytest.mark.parametrize("pooled", [False, True])
def test_thousands_of_random_sessions_leave_nothing_behind(
    model: SpanModel, facts: ModelFacts, request: pytest.FixtureRequest, pooled: bool
) -> None:
    decoder: GraphedDecoder | None = request.getfixturevalue("pool") if pooled else None
    sent = SentOutputs(SENT_BYTES)
    stage = rooms(model, facts, 8, share=0.5, sent=sent)
    life = Life(stage, random.Random(5))
    evicted = 0
    for _ in range(9000):
        before = stage.kept
        life.act()
        evicted += max(0, before - stage.kept)
        assert stage.kv_used <= stage.account.capacity
        assert 0 <= stage.account.kept <= stage.account.most_kept
        assert len(stage.account) == stage.sessions
        assert 0 <= sent.used <= SENT_BYTES
        assert len(sent) <= stage.sessions + stage.kept
        if decoder is not None:
            held = (POOL_PAGES - decoder.pool.free_pages) * decoder.pool.page_bytes
            assert held == stage.kv_used or (held < stage.kv_used and life.unfinished)
    assert {"FORK", "PREFILL", "STEP", "prefix_unknown", "kv_cache_full", "idle"} <= life.seen
    assert {"RESUME", "REPLAY", "resume_refused"} <= life.seen
    assert evicted > 100
    assert sent.evicted > 100
    stage.close_all()
    assert (len(sent), sent.used) == (0, 0)
    assert (stage.sessions, stage.kept, stage.kv_used, stage.account.kept) == (0, 0, 0, 0)
    if decoder is not None:
        assert (decoder.pool.free_pages, decoder.pool.free_rows) == (POOL_PAGES, 5)
