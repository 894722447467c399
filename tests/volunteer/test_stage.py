"""Sessions on one span: what continues, what is refused by name, and that no byte of KV is lost."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from corolla.models.cache import SpanCache
from corolla.models.errors import RollbackRefused
from corolla.models.facts import ModelFacts
from corolla.models.graphs import StartedRows
from corolla.models.growing import LEAST_ROOM
from corolla.models.pool import PooledCache
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.tensors import from_wire, to_wire
from schema.errors import (
    CorollaError,
    KVCacheFull,
    MalformedTensor,
    NotFinite,
    NotServing,
    PositionMismatch,
    SessionUnknown,
    ShapeMismatch,
    StepFailed,
)
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import Role, decode_tensors, encode_tensors
from tests.volunteer.tiny import (
    BLOCKS,
    CONTEXT,
    HIDDEN,
    KV_BYTES_PER_TOKEN,
    tiny_facts,
    tiny_source,
    tiny_span,
)
from volunteer.device import DeviceThread
from volunteer.kvcache import KVAccount
from volunteer.sent import SentOutputs
from volunteer.stage import Stage
from volunteer.work import Result, Work

START, END = 1, BLOCKS
SPAN = Span(START, END)
ROOM_BYTES = LEAST_ROOM * (END - START) * KV_BYTES_PER_TOKEN
"""What a sequence takes that is no longer than the least room."""
A, B, C = (SessionId(letter * 16) for letter in (b"a", b"b", b"c"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return tiny_source(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def facts(source: ModelSource) -> ModelFacts:
    return tiny_facts(source)


@pytest.fixture(scope="module")
def model(source: ModelSource) -> SpanModel:
    return tiny_span(source, START, END)


@pytest.fixture
def stage(model: SpanModel, facts: ModelFacts) -> Stage:
    return Stage(model, facts, KVAccount(2**20))


def hidden(tokens: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def payload(tensor: Tensor, mask: Tensor | None = None) -> bytes:
    wires = [to_wire(tensor)]
    return encode_tensors(wires if mask is None else [*wires, to_wire(mask, Role.ATTENTION_MASK)])


def work(
    body: Tensor | bytes,
    position: int = 0,
    session: SessionId = A,
    *,
    flags: Flags = Flags.NONE,
    span: Span = SPAN,
) -> Work:
    return Work(
        kind=FrameType.STEP,
        session=session,
        step=0,
        position=position,
        epoch=0,
        span=span,
        payload=body if isinstance(body, bytes) else payload(body),
        flags=flags,
    )


def run(stage: Stage, *steps: Work, now: float = 0.0) -> list[Result]:
    """One after the other."""
    return [result for step in steps for result in stage.run([step], 512, now)]


def tensor_of(result: Result) -> Tensor:
    assert result.error is None
    (wire,) = decode_tensors(result.payload)
    return from_wire(wire)


def error_of(result: Result) -> CorollaError:
    assert result.error is not None
    return result.error


def calls_of(model: SpanModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for every pass over the span from now on."""
    calls: list[str] = []

    def counted(name: str) -> None:
        call = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *arguments: (calls.append(name), call(*arguments))[1])

    counted("forward")
    counted("forward_batch")
    return calls


# ---- what a step gives -----------------------------------------------------------------------


def test_a_step_gives_what_the_span_gives(stage: Stage, model: SpanModel) -> None:
    entering = hidden(5)
    (result,) = run(stage, work(entering))
    assert torch.equal(tensor_of(result), model.forward(entering, model.new_cache(1)))


def test_prefill_in_chunks_and_steps_gives_what_one_pass_gives(stage: Stage, model: SpanModel) -> None:
    entering = hidden(9)
    pieces = [tensor_of(run(stage, work(entering[:, a:b], a))[0]) for a, b in ((0, 4), (4, 8), (8, 9))]
    whole = model.forward(entering, model.new_cache(1))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


def test_sessions_do_not_mix(stage: Stage, model: SpanModel) -> None:
    first, second = hidden(4, seed=1), hidden(6, seed=2)
    run(stage, work(first, session=A), work(second, session=B))
    nexts = run(stage, work(hidden(1), 4, A), work(hidden(1), 6, B))
    for result, before in zip(nexts, (first, second), strict=True):
        cache = model.new_cache(1)
        model.forward(before, cache)
        assert torch.equal(tensor_of(result), model.forward(hidden(1), cache))


def test_a_batch_of_padded_sequences_is_computed_with_its_mask(stage: Stage, model: SpanModel) -> None:
    entering = hidden(4, batch=2)
    mask = torch.ones(2, 4, dtype=torch.int8)
    mask[0, :2] = 0
    (result,) = run(stage, work(payload(entering, mask)))
    expected = model.forward(entering, model.new_cache(2), mask.long())
    assert torch.equal(tensor_of(result), expected)
    assert not torch.equal(tensor_of(result), model.forward(entering, model.new_cache(2)))


def test_the_answer_has_the_span_s_dtype_whatever_came(stage: Stage) -> None:
    (result,) = run(stage, work(hidden(3).to(torch.bfloat16)))
    assert tensor_of(result).dtype is torch.float32


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [
        (Flags.NONE, 3),
        (Flags.LAST_ONLY, 1),
        (Flags.NO_OUTPUT, 0),
        (Flags.LAST_ONLY | Flags.NO_OUTPUT, 0),
    ],
)
def test_flags_choose_what_is_sent_back(stage: Stage, flags: Flags, tokens: int) -> None:
    entering = hidden(3)
    (all_of_it,) = run(stage, work(entering, session=B))
    (chosen,) = run(stage, work(entering, flags=flags))
    assert torch.equal(tensor_of(chosen), tensor_of(all_of_it)[:, 3 - tokens :])


# ---- where a session goes on -----------------------------------------------------------------


def test_going_back_forgets_what_came_after(stage: Stage) -> None:
    prompt, draft, token = hidden(5, seed=1), hidden(3, seed=2), hidden(1, seed=3)
    run(stage, work(prompt), work(draft, 5))
    (again,) = run(stage, work(token, 6))
    (straight,) = run(stage, work(prompt, session=B), work(draft[:, :1], 5, B), work(token, 6, B))[2:]
    # The kept token was computed beside two others, so its sums may have run in another order.
    torch.testing.assert_close(tensor_of(again), tensor_of(straight))


def test_position_zero_begins_again(stage: Stage) -> None:
    (first,) = run(stage, work(hidden(4)))
    run(stage, work(hidden(2, seed=9), 4))
    (second,) = run(stage, work(hidden(4)))
    assert second.payload == first.payload
    assert stage.kv_used == ROOM_BYTES


def test_position_zero_may_change_the_batch(stage: Stage) -> None:
    run(stage, work(hidden(4)))
    (result,) = run(stage, work(hidden(4, batch=2)))
    assert tensor_of(result).shape[0] == 2


def test_a_step_of_a_session_that_is_not_here_is_refused(stage: Stage) -> None:
    (result,) = run(stage, work(hidden(1), 4))
    assert isinstance(result.error, SessionUnknown)


def test_a_step_beyond_the_end_of_the_cache_is_refused(stage: Stage) -> None:
    _, result = run(stage, work(hidden(4)), work(hidden(1), 5))
    assert isinstance(result.error, PositionMismatch)


def test_a_step_beyond_the_model_s_positions_is_refused(stage: Stage) -> None:
    fits, does_not = run(stage, work(hidden(CONTEXT)), work(hidden(1), CONTEXT))
    assert fits.error is None
    assert isinstance(does_not.error, PositionMismatch)


def test_going_back_where_the_family_cannot_is_a_position_mismatch(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SpanCache, position: int) -> None:
        raise RollbackRefused("this family keeps no history")

    run(stage, work(hidden(4)))
    monkeypatch.setattr(SpanCache, "truncate", refuse)
    (result,) = run(stage, work(hidden(1), 3))
    assert isinstance(result.error, PositionMismatch)
    assert "no history" in error_of(result).message


# ---- what is refused before it runs -----------------------------------------------------------


def nan(tokens: int) -> Tensor:
    broken = hidden(tokens)
    broken[0, -1, 7] = float("nan")
    return broken


MASK = torch.ones(1, 5, dtype=torch.int8)
REFUSED = {
    "other blocks": (work(hidden(1), 4, span=Span(0, 1)), NotServing),
    "fewer blocks than its session": (work(hidden(1), 4, span=Span(START, END - 1)), NotServing),
    "no tensor": (work(encode_tensors([]), 4), ShapeMismatch),
    "no payload": (work(b"", 4), MalformedTensor),
    "two hidden states": (work(encode_tensors([to_wire(hidden(1)), to_wire(hidden(1))]), 4), ShapeMismatch),
    "another hidden size": (work(torch.zeros(1, 1, HIDDEN + 1), 4), ShapeMismatch),
    "no token": (work(hidden(0), 4), ShapeMismatch),
    "integers": (work(hidden(1).to(torch.int8), 4), ShapeMismatch),
    "another batch": (work(hidden(1, batch=2), 4), ShapeMismatch),
    "a mask of another length": (work(payload(hidden(1), MASK[:, :4]), 4), ShapeMismatch),
    "a mask of another dtype": (work(payload(hidden(1), MASK.long()), 4), ShapeMismatch),
    "NaN": (work(nan(1), 4), NotFinite),
    "infinity": (work(torch.full((1, 1, HIDDEN), float("inf")), 4), NotFinite),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_step_leaves_its_session_as_it_was(stage: Stage, refused: str) -> None:
    bad, error = REFUSED[refused]
    run(stage, work(hidden(4)), work(hidden(4), session=B))
    (result,) = run(stage, bad)
    assert type(error_of(result)) is error
    assert stage.kv_used == 2 * ROOM_BYTES
    mine, other = run(stage, work(hidden(1), 4), work(hidden(1), 4, B))
    assert mine.payload == other.payload != b""


def test_a_step_that_the_model_refuses_by_name_leaves_its_session_as_it_was(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Tensor:
        raise StepFailed("one token a step, please")

    run(stage, work(hidden(4)))
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", refuse)
        (result,) = run(stage, work(hidden(2), 4))
        (opening,) = run(stage, work(hidden(2), 0, B))
    assert isinstance(result.error, StepFailed)
    assert isinstance(opening.error, StepFailed)
    assert (stage.sessions, stage.kv_used) == (1, ROOM_BYTES)
    assert run(stage, work(hidden(1), 4))[0].error is None


def test_without_memory_a_step_is_refused_and_can_be_sent_again(model: SpanModel, facts: ModelFacts) -> None:
    stage = Stage(model, facts, KVAccount(2 * ROOM_BYTES))
    run(stage, work(hidden(6), session=A), work(hidden(LEAST_ROOM), session=B))
    (full,) = run(stage, work(hidden(1), LEAST_ROOM, B))
    assert isinstance(full.error, KVCacheFull)
    assert error_of(full).retry_after is not None
    stage.close(A)
    (again,) = run(stage, work(hidden(1), LEAST_ROOM, B))
    assert again.error is None
    assert stage.kv_used == 2 * ROOM_BYTES


def test_a_session_that_finds_no_memory_leaves_nothing(model: SpanModel, facts: ModelFacts) -> None:
    stage = Stage(model, facts, KVAccount(ROOM_BYTES - 1))
    (result,) = run(stage, work(hidden(11)))
    assert isinstance(result.error, KVCacheFull)
    assert (stage.sessions, stage.kv_used) == (0, 0)


def test_where_a_pool_has_no_room_for_a_session_it_is_refused_and_leaves_nothing(
    model: SpanModel, facts: ModelFacts
) -> None:
    decoder = model.use_pool(tokens=4 * LEAST_ROOM, rows=1, longest=CONTEXT)
    assert decoder is not None
    try:
        stage = Stage(model, facts, KVAccount(2**20))
        run(stage, work(hidden(4), session=A))
        (refused,) = run(stage, work(hidden(4), session=B))
        assert isinstance(refused.error, KVCacheFull)
        assert (stage.sessions, stage.kv_used) == (1, ROOM_BYTES)
        stage.close(A)
        assert (stage.sessions, stage.kv_used, decoder.pool.free_rows) == (0, 0, 1)
        (again,) = run(stage, work(hidden(4), session=B))
        assert again.error is None
        stage.close_all()
    finally:
        model.use_no_pool()
    assert (decoder.pool.free_pages, decoder.pool.free_rows) == (4, 1)


# ---- what is started and not waited for -------------------------------------------------------


@pytest.fixture
def starting(model: SpanModel, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage whose span computes at once what it is to start, as there is no GPU."""
    assert model.use_pool(tokens=16 * LEAST_ROOM, rows=4, longest=CONTEXT) is not None
    assert not model.starts_rows

    def start_rows(rows: Sequence[memoryview], caches: Sequence[PooledCache]) -> StartedRows:
        return StartedRows(lambda: True, lambda: list(model.decode_rows(rows, caches)))

    monkeypatch.setattr(model, "start_rows", start_rows)
    stage = Stage(model, facts, KVAccount(2**20))
    yield stage
    stage.close_all()
    model.use_no_pool()


def test_steps_that_are_started_give_what_others_give(starting: Stage) -> None:
    run(starting, work(hidden(4), session=A), work(hidden(4), session=B))
    token = hidden(1, seed=1)
    (ran,) = run(starting, work(token, 4, A))
    underway = starting.start([work(token, 4, B)], 0.0)
    assert underway is not None
    assert underway.is_done()
    (started,) = underway.results()
    assert (started.payload, started.error) == (ran.payload, None)
    (one, other) = run(starting, work(token, 5, A), work(token, 5, B))
    assert one.payload == other.payload


def test_a_started_step_that_is_not_finite_ends_its_session_alone(starting: Stage) -> None:
    run(starting, work(hidden(4), session=A), work(hidden(4), session=B))
    underway = starting.start([work(hidden(1) * torch.nan, 4, A), work(hidden(1), 4, B)], 0.0)
    assert underway is not None
    broken, fine = underway.results()
    assert isinstance(broken.error, NotFinite)
    assert fine.error is None
    assert run(starting, work(hidden(1), 5, B))[0].error is None


def test_what_is_more_than_a_launch_is_not_started(starting: Stage) -> None:
    """Prompts, unknown sessions, other positions, payloads to be looked at, and pages to be taken."""
    run(starting, work(hidden(LEAST_ROOM), session=A))
    run(starting, work(hidden(4), session=B))
    for step in (
        work(hidden(3), session=C),
        work(hidden(1), 4, C),
        work(hidden(1), 2, B),
        work(b"nonsense", 4, B),
        work(hidden(1), 4, B, flags=Flags.NO_OUTPUT),
        work(hidden(1), LEAST_ROOM, A),
    ):
        assert starting.start([step], 0.0) is None
        assert starting.start([work(hidden(1), 4, B), step], 0.0) is None
    assert run(starting, work(hidden(1), 4, B), work(hidden(1), LEAST_ROOM, A))[0].error is None


def test_without_a_gpu_nothing_is_started(stage: Stage) -> None:
    assert not stage.starts_steps


# ---- what fails while it runs ------------------------------------------------------------------


def failing_with(error: BaseException) -> Callable[..., Tensor]:
    def forward(*_: object) -> Tensor:
        raise error

    return forward


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RuntimeError("a kernel broke"), StepFailed),
        (IndexError("out of range"), StepFailed),
        (torch.OutOfMemoryError("no memory"), KVCacheFull),
    ],
    ids=["RuntimeError", "IndexError", "OutOfMemoryError"],
)
def test_a_failed_step_ends_its_session_and_no_other(
    stage: Stage,
    model: SpanModel,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    name: type[StepFailed],
) -> None:
    run(stage, work(hidden(4)), work(hidden(4), session=B))
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", failing_with(error))
        (result,) = run(stage, work(hidden(1), 4))
    assert type(error_of(result)) is name
    assert (stage.sessions, stage.kv_used) == (1, ROOM_BYTES)
    after, other = run(stage, work(hidden(1), 4), work(hidden(1), 4, B))
    assert isinstance(after.error, SessionUnknown)
    assert other.error is None


def test_the_cause_is_not_told_to_strangers(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "forward", failing_with(RuntimeError("/home/someone/secret")))
    (result,) = run(stage, work(hidden(1)))
    assert "secret" not in error_of(result).message


def test_an_output_that_is_not_finite_ends_its_session_and_is_not_sent(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stage, work(hidden(4)))
    monkeypatch.setattr(model, "forward", lambda entering, cache, mask: entering * float("inf"))
    (result,) = run(stage, work(hidden(1), 4))
    assert isinstance(result.error, NotFinite)
    assert result.payload == b""
    assert (stage.sessions, stage.kv_used) == (0, 0)


# ---- several at once --------------------------------------------------------------------------


def test_steps_of_several_sessions_give_what_each_gives_alone(stage: Stage, model: SpanModel) -> None:
    lengths = {A: 4, B: 7}
    caches = {}
    for session, length in lengths.items():
        run(stage, work(hidden(length, seed=length), session=session))
        caches[session] = model.new_cache(1)
        model.forward(hidden(length, seed=length), caches[session])
    for turn in range(5):
        steps = [work(hidden(1, seed=turn), length + turn, session) for session, length in lengths.items()]
        for result in stage.run(steps, 512, 0.0):
            alone = model.forward(hidden(1, seed=turn), caches[result.work.session])
            torch.testing.assert_close(tensor_of(result), alone, rtol=1e-4, atol=1e-5)


def test_a_step_that_is_refused_does_not_keep_others_of_its_batch_from_running(stage: Stage) -> None:
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    refused, fine = stage.run([work(nan(1), 4, A), work(hidden(1), 4, B)], 512, 0.0)
    assert isinstance(refused.error, NotFinite)
    assert fine.error is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_steps_of_a_batch_may_travel_in_different_dtypes(stage: Stage, dtype: torch.dtype) -> None:
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    exact = hidden(1).to(dtype)
    results = stage.run([work(exact, 4, A), work(exact.float(), 4, B)], 512, 0.0)
    first, second = map(tensor_of, results)
    assert first.dtype is second.dtype
    assert torch.equal(first, second)


def test_an_unreadable_step_does_not_keep_others_of_its_batch_from_running(stage: Stage) -> None:
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    refused, fine = stage.run([work(b"no tensors", 4, A), work(hidden(1), 4, B)], 512, 0.0)
    assert isinstance(refused.error, MalformedTensor)
    assert fine.error is None


def test_an_output_of_a_batch_that_is_not_finite_ends_its_session_and_no_other(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    monkeypatch.setattr(model, "forward_batch", lambda chunks: [nan(1), hidden(1)])
    broken, fine = stage.run([work(hidden(1), 4, A), work(hidden(1), 4, B)], 512, 0.0)
    assert isinstance(broken.error, NotFinite)
    assert fine.error is None
    assert stage.sessions == 1


def test_a_batch_that_fails_is_run_step_by_step(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    monkeypatch.setattr(model, "forward_batch", failing_with(RuntimeError("no")))
    results = stage.run([work(hidden(1), 4, A), work(hidden(1), 4, B)], 512, 0.0)
    expected = model.new_cache(1)
    model.forward(hidden(4), expected)
    token = model.forward(hidden(1), expected)
    assert all(torch.equal(tensor_of(result), token) for result in results)


def test_a_pass_that_breaks_off_leaves_every_cache_as_it_was(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second block fails when the first has appended its keys already."""
    run(stage, work(hidden(4), session=A), work(hidden(4), session=B))
    block: Any = cast(Any, model._decoder).layers[END - 1]
    whole = block.forward

    def fails_for_two(entering: Tensor, *args: object, **kwargs: object) -> Tensor:
        if entering.shape[1] > 1:
            raise RuntimeError("no")
        return whole(entering, *args, **kwargs)

    monkeypatch.setattr(block, "forward", fails_for_two)
    results = stage.run([work(hidden(1), 4, A), work(hidden(1), 4, B)], 512, 0.0)
    cache = model.new_cache(1)
    monkeypatch.undo()
    model.forward(hidden(4), cache)
    token = model.forward(hidden(1), cache)
    assert all(torch.equal(tensor_of(result), token) for result in results)


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.LAST_ONLY, Flags.NO_OUTPUT], ids=str)
def test_a_slice_in_parts_gives_what_it_gives_in_one(stage: Stage, model: SpanModel, flags: Flags) -> None:
    item = replace(work(hidden(10), flags=flags), kind=FrameType.PREFILL)
    results = [stage.run([item], 4, 0.0)[0] for _ in range(3)]
    assert [result.is_unfinished for result in results] == [True, True, False]
    assert [result.tokens for result in results] == [4, 4, 2]
    whole = model.forward(hidden(10), model.new_cache(1))
    wanted = {Flags.NONE: whole, Flags.LAST_ONLY: whole[:, -1:], Flags.NO_OUTPUT: whole[:, :0]}[flags]
    torch.testing.assert_close(tensor_of(results[-1]), wanted, rtol=1e-4, atol=1e-5)
    assert stage.kv_used == ROOM_BYTES


def test_a_slice_goes_beside_a_step(stage: Stage, model: SpanModel) -> None:
    run(stage, work(hidden(4), session=A))
    item = replace(work(hidden(6), session=B, flags=Flags.LAST_ONLY), kind=FrameType.PREFILL)
    step, part = stage.run([work(hidden(1), 4, A), item], 4, 0.0)
    assert (step.is_unfinished, part.is_unfinished, part.tokens) == (False, True, 4)
    (last,) = stage.run([item], 4, 0.0)
    whole = model.forward(hidden(6), model.new_cache(1))
    torch.testing.assert_close(tensor_of(last), whole[:, -1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pooled", "lengths", "batch", "passes"),
    [
        (False, (3, 7), 1, 1),
        (False, (5, 5), 2, 1),
        (False, (3, 7), 2, 2),
        (True, (5, 5), 1, 1),
        (True, (3, 7), 1, 1),
    ],
    ids=["ragged", "even", "uneven", "even in a pool", "ragged in a pool"],
)
def test_slices_of_several_sessions_give_what_each_gives_alone(
    source: ModelSource,
    facts: ModelFacts,
    monkeypatch: pytest.MonkeyPatch,
    pooled: bool,
    lengths: tuple[int, int],
    batch: int,
    passes: int,
) -> None:
    model = tiny_span(source, START, END)
    entering = [hidden(tokens, batch, seed) for seed, tokens in enumerate(lengths)]
    alone = [model.forward(one, model.new_cache(batch)) for one in entering]
    if pooled:
        assert model.use_pool(tokens=1024, rows=2, longest=512)
    calls = calls_of(model, monkeypatch)
    stage = Stage(model, facts, KVAccount(2**20))
    slices = [
        replace(work(one, session=session), kind=FrameType.PREFILL)
        for one, session in zip(entering, (A, B), strict=True)
    ]
    results = stage.run(slices, 512, 0.0)
    assert [result.tokens for result in results] == [batch * tokens for tokens in lengths]
    for result, expected in zip(results, alone, strict=True):
        torch.testing.assert_close(tensor_of(result), expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == passes


NO_OUTPUTS = (Flags.NO_OUTPUT, Flags.NO_OUTPUT, Flags.NO_OUTPUT)
ALL_BUT_THE_LAST = (Flags.NO_OUTPUT, Flags.NO_OUTPUT | Flags.TIMED, Flags.LAST_ONLY)


def consecutive(lengths: Sequence[int], flags: Sequence[Flags], batch: int = 1, **changes: Any) -> list[Work]:
    """Slices of session A from its beginning on."""
    ends = list(accumulate(lengths))
    whole = hidden(ends[-1], batch)
    return [
        replace(
            work(whole[:, end - tokens : end], end - tokens, flags=wanted),
            kind=FrameType.PREFILL,
            tokens=batch * tokens,
            **changes,
        )
        for tokens, end, wanted in zip(lengths, ends, flags, strict=True)
    ]


class TestSlicesOfOneSession:
    LENGTHS = (3, 1, 5)

    @pytest.mark.parametrize("pooled", [False, True], ids=["ragged", "pool"])
    @pytest.mark.parametrize(
        ("flags", "feeds_hop"),
        [((Flags.NONE,) * 3, True), (NO_OUTPUTS, False), (ALL_BUT_THE_LAST, False)],
        ids=["to a hop", "first ones", "last ones"],
    )
    def test_are_one_pass_and_answered_as_if_each_were_one(
        self,
        source: ModelSource,
        facts: ModelFacts,
        monkeypatch: pytest.MonkeyPatch,
        pooled: bool,
        flags: Sequence[Flags],
        feeds_hop: bool,
    ) -> None:
        model = tiny_span(source, START, END)
        if pooled:
            assert model.use_pool(tokens=1024, rows=2, longest=512)
        slices = consecutive(self.LENGTHS, flags, feeds_hop=feeds_hop)
        each, stage = (Stage(model, facts, KVAccount(2**20)) for _ in range(2))
        alone = run(each, *slices)
        calls = calls_of(model, monkeypatch)
        together = stage.run(slices, sum(self.LENGTHS), 0.0)
        assert len(calls) == 1
        assert [result.work for result in together] == slices
        assert [result.tokens for result in together] == list(self.LENGTHS)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(tensor_of(one), tensor_of(other), rtol=1e-4, atol=1e-5)
        monkeypatch.undo()
        after = work(hidden(1), sum(self.LENGTHS))
        (step,), (other) = run(stage, after), run(each, after)
        torch.testing.assert_close(tensor_of(step), tensor_of(other[0]), rtol=1e-4, atol=1e-5)

    def test_go_with_those_of_others(
        self, model: SpanModel, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slices = consecutive(self.LENGTHS, NO_OUTPUTS)
        other = replace(work(hidden(4), session=B), kind=FrameType.PREFILL, tokens=4)
        calls = calls_of(model, monkeypatch)
        results = stage.run([slices[0], other, *slices[1:]], 20, 0.0)
        assert calls == ["forward_batch"]
        assert [result.work for result in results] == [slices[0], other, *slices[1:]]
        monkeypatch.undo()
        whole = model.forward(hidden(4), model.new_cache(1))
        torch.testing.assert_close(tensor_of(results[1]), whole, rtol=1e-4, atol=1e-5)
        cache = model.new_cache(1)
        model.forward(hidden(sum(self.LENGTHS)), cache)
        (step,) = run(stage, work(hidden(1), sum(self.LENGTHS)))
        torch.testing.assert_close(tensor_of(step), model.forward(hidden(1), cache), rtol=1e-4, atol=1e-5)

    def test_that_cannot_be_joined_run_one_after_the_other(self, stage: Stage, model: SpanModel) -> None:
        slices = consecutive(self.LENGTHS, (Flags.NONE,) * 3, batch=2)
        results = stage.run(slices, 2 * sum(self.LENGTHS), 0.0)
        whole = model.forward(hidden(sum(self.LENGTHS), 2), model.new_cache(2))
        found = torch.cat([tensor_of(result) for result in results], dim=1)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)

    def test_behind_one_that_has_begun_run_after_it_as_one(
        self, stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slices = consecutive(self.LENGTHS, (Flags.NONE,) * 3)
        (part,) = stage.run(slices[:1], 2, 0.0)
        assert part.is_unfinished
        calls = calls_of(model, monkeypatch)
        results = stage.run(slices, sum(self.LENGTHS), 0.0)
        assert len(calls) == 2
        whole = model.forward(hidden(sum(self.LENGTHS)), model.new_cache(1))
        found = torch.cat([tensor_of(result) for result in results], dim=1)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)

    def test_that_are_refused_as_one_run_one_after_the_other(
        self, model: SpanModel, facts: ModelFacts
    ) -> None:
        stage = Stage(model, facts, KVAccount(2**20))
        *sound, last = consecutive(self.LENGTHS, NO_OUTPUTS)
        broken = replace(last, payload=payload(torch.full((1, self.LENGTHS[-1], HIDDEN), torch.nan)))
        results = stage.run([*sound, broken], sum(self.LENGTHS), 0.0)
        assert [type(result.error) for result in results] == [type(None), type(None), NotFinite]
        (again,) = run(stage, last)
        assert again.error is None

    def test_that_fail_in_a_session_that_has_begun_all_fail(
        self, stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, *others = consecutive(self.LENGTHS, NO_OUTPUTS)
        run(stage, first)
        monkeypatch.setattr(model, "forward", lambda *_: 1 / 0)
        results = stage.run(others, sum(self.LENGTHS), 0.0)
        assert [type(result.error) for result in results] == [StepFailed] * 2
        assert stage.sessions == 0

    def test_without_memory_are_refused_as_each_would_be(self, model: SpanModel, facts: ModelFacts) -> None:
        stage = Stage(model, facts, KVAccount(0))
        results = stage.run(consecutive(self.LENGTHS, NO_OUTPUTS), sum(self.LENGTHS), 0.0)
        assert [type(result.error) for result in results] == [KVCacheFull, SessionUnknown, SessionUnknown]
        assert stage.kv_used == 0

    def test_what_is_sent_on_of_them_can_be_sent_again(self, model: SpanModel, facts: ModelFacts) -> None:
        sent = SentOutputs(1 << 20)
        stage = Stage(model, facts, KVAccount(2**20), sent)
        stage.run(consecutive(self.LENGTHS, (Flags.NONE,) * 3, feeds_hop=True), 20, 0.0)
        assert sent.tokens(A) == sum(self.LENGTHS)


def test_a_part_of_a_slice_is_of_all_its_sequences_together(stage: Stage) -> None:
    item = replace(work(hidden(10, batch=2)), kind=FrameType.PREFILL)
    (part,) = stage.run([item], 8, 0.0)
    assert (part.is_unfinished, part.tokens) == (True, 8)


def test_a_session_that_closes_between_two_parts_leaves_nothing(stage: Stage) -> None:
    item = replace(work(hidden(10)), kind=FrameType.PREFILL)
    stage.run([item], 4, 0.0)
    stage.close(A)
    assert (stage.sessions, stage.kv_used) == (0, 0)


def test_another_slice_in_place_of_an_unfinished_one_begins_again(stage: Stage, model: SpanModel) -> None:
    stage.run([replace(work(hidden(10)), kind=FrameType.PREFILL)], 4, 0.0)
    (result,) = run(stage, work(hidden(5, seed=3)))
    assert torch.equal(tensor_of(result), model.forward(hidden(5, seed=3), model.new_cache(1)))


# ---- the account -------------------------------------------------------------------------------


def test_what_is_booked_is_what_the_cache_holds(stage: Stage) -> None:
    run(stage, work(hidden(5, batch=2)), work(hidden(1, batch=2), 5))
    assert stage.kv_used == 2 * ROOM_BYTES


def test_closing_frees_at_once(stage: Stage) -> None:
    run(stage, work(hidden(5)))
    stage.close(A)
    assert (stage.sessions, stage.kv_used) == (0, 0)


def test_closing_what_is_not_there_is_nothing(stage: Stage) -> None:
    stage.close(A)


def test_idle_sessions_expire_and_busy_ones_do_not(model: SpanModel, facts: ModelFacts) -> None:
    stage = Stage(model, facts, KVAccount(2**20, idle_seconds=10.0))
    run(stage, work(hidden(2), session=A), work(hidden(2), session=B), now=0.0)
    run(stage, work(hidden(1), 2, B), now=8.0)
    assert stage.expire(12.0) == [A]
    assert stage.sessions == 1
    assert isinstance(run(stage, work(hidden(1), 2, A), now=12.0)[0].error, SessionUnknown)


def test_hundreds_of_random_steps_leave_nothing_behind(model: SpanModel, facts: ModelFacts) -> None:
    stage = Stage(model, facts, KVAccount(4 * ROOM_BYTES))
    rng = random.Random(4)
    refusals: set[str] = set()
    for step in range(400):
        session = SessionId(rng.randrange(6).to_bytes(16, "big"))
        if rng.random() < 0.1:
            stage.close(session)
            continue
        tensor = nan(1) if rng.random() < 0.05 else hidden(rng.randint(1, 6))
        (result,) = run(stage, work(tensor, rng.choice([0, 0, 3, 6, 9]), session), now=float(step))
        refusals.update([result.error.code] if result.error else [])
        assert stage.kv_used % ROOM_BYTES == 0
        assert stage.kv_used <= stage.account.capacity
        assert len(stage.account) == stage.sessions
    assert {"kv_cache_full", "session_unknown", "position_mismatch", "not_finite"} <= refusals
    stage.close_all()
    assert (stage.sessions, stage.kv_used, len(stage.account)) == (0, 0, 0)


def test_the_wire_tensor_of_no_output_has_the_hidden_size(stage: Stage) -> None:
    (result,) = run(stage, work(hidden(3), flags=Flags.NO_OUTPUT))
    (wire,) = decode_tensors(result.payload)
    assert wire.shape == (1, 0, HIDDEN)


# ---- on the device thread ----------------------------------------------------------------------


async def test_sessions_that_come_and_go_on_the_device_thread_leave_nothing_behind(
    model: SpanModel, facts: ModelFacts
) -> None:
    rng = random.Random(7)
    sessions = [SessionId(number.to_bytes(16, "big")) for number in range(30)]
    came: list[Result] = []
    sent = 0
    async with DeviceThread() as device:
        await device.install(lambda: Stage(model, facts, KVAccount(2**20)))
        for session in sessions:
            for position in range(0, 6, 2):
                device.submit(work(hidden(2), position, session), came.append)
                sent += 1
            if rng.random() < 0.3:
                device.close(session)
                await device.call(lambda: None)
        while device.stats().queued:
            await device.call(lambda: None)
        await device.call(lambda: None)  # after the batch that emptied the queue
        stats = device.stats()
        assert len(came) + stats.failures["cancelled"] == sent
        assert stats.kv_used == stats.sessions * ROOM_BYTES > 0
        for session in sessions:
            device.close(session)
    assert (device.stats().sessions, device.stats().kv_used) == (0, 0)


def test_a_session_may_use_a_part_of_the_span(stage: Stage, source: ModelSource) -> None:
    part = Span(START + 1, END)
    alone = tiny_span(source, part.start, part.end)
    cache = alone.new_cache()
    for position, tokens in ((0, 4), (4, 1)):
        (result,) = run(stage, work(hidden(tokens), position, span=part))
        assert torch.equal(tensor_of(result), alone.forward(hidden(tokens), cache))
    assert stage.kv_used == cache.nbytes
