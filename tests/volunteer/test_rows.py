"""Decode steps that go as rows of bytes give what they give as tensors, and are refused as those are."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from corolla.models.facts import ModelFacts
from corolla.models.graphs import GraphedDecoder, Row
from corolla.models.growing import LEAST_ROOM
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.tensors import from_wire, to_wire
from schema.errors import CorollaError, KVCacheFull, NotFinite, NotServing, PositionMismatch
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import decode_tensors, encode_tensors
from tests.volunteer.tiny import BLOCKS, CONTEXT, HIDDEN, tiny_facts, tiny_source, tiny_span
from volunteer.kvcache import KVAccount
from volunteer.stage import Stage
from volunteer.work import Result, Work

SPAN = Span(0, BLOCKS)
SESSIONS = [SessionId(letter * 16) for letter in (b"a", b"b", b"c")]
A, B, C = SESSIONS
PROMPTS = {A: 4, B: 9, C: 1}
"""Tokens of each session's prompt."""


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
    decoder = model.use_pool(tokens=6 * LEAST_ROOM, rows=5, longest=CONTEXT)
    assert decoder is not None
    yield decoder
    model.use_no_pool()


@pytest.fixture
def stage(pool: GraphedDecoder, model: SpanModel, facts: ModelFacts) -> Stage:
    """Three sessions have sent their prompts."""
    stage = Stage(model, facts, KVAccount(2**20))
    for session, tokens in PROMPTS.items():
        (result,) = stage.run([step(hidden(tokens, 1), 0, session)], 512, 0.0)
        assert result.error is None
    return stage


@pytest.fixture
def decoded(model: SpanModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went together in each pass that took rows."""
    counts: list[int] = []
    whole = model.decode_rows

    def counted(rows: list[bytes], caches: list[object]) -> object:
        counts.append(len(rows))
        return whole(rows, caches)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "decode_rows", counted)
    return counts


def hidden(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed)).to(dtype)


def step(
    entering: Tensor,
    position: int,
    session: SessionId,
    *,
    flags: Flags = Flags.NONE,
    span: Span = SPAN,
    kind: FrameType = FrameType.STEP,
) -> Work:
    payload = encode_tensors([to_wire(entering)])
    return Work(kind, session, 0, position, 0, span, payload, flags)


def tensor_of(result: Result) -> Tensor:
    assert result.error is None
    (wire,) = decode_tensors(result.payload)
    return from_wire(wire)


def error_of(result: Result) -> CorollaError:
    assert result.error is not None
    return result.error


def alone(model: SpanModel, session: SessionId, tokens: list[Tensor]) -> list[Tensor]:
    """What a session's tokens give by themselves, with a cache that is in no pool."""
    model.use_no_pool()
    cache = model.new_cache()
    model.forward(hidden(PROMPTS[session], 1), cache)
    return [model.forward(one, cache) for one in tokens]


def test_steps_of_several_sessions_each_give_their_own(
    stage: Stage, model: SpanModel, decoded: list[int]
) -> None:
    tokens = {session: [hidden(1, 10 * turn + session[0]) for turn in range(3)] for session in SESSIONS}
    found: dict[SessionId, list[Tensor]] = {session: [] for session in SESSIONS}
    for turn in range(3):
        batch = [step(tokens[one][turn], PROMPTS[one] + turn, one) for one in SESSIONS]
        for session, result in zip(SESSIONS, stage.run(batch, 512, 0.0), strict=True):
            found[session].append(tensor_of(result))
    assert decoded == [3, 3, 3]
    stage.close_all()
    for session in SESSIONS:
        for one, due in zip(found[session], alone(model, session, tokens[session]), strict=True):
            assert torch.allclose(one, due, atol=1e-5)


@pytest.mark.parametrize("kind", [FrameType.STEP, FrameType.PROBE])
def test_a_step_alone_is_a_row_too(
    stage: Stage, model: SpanModel, decoded: list[int], kind: FrameType
) -> None:
    token = hidden(1, 3)
    (result,) = stage.run([step(token, 4, A, kind=kind)], 512, 0.0)
    assert decoded == [1]
    stage.close_all()
    assert torch.allclose(tensor_of(result), alone(model, A, [token])[0], atol=1e-5)


def test_what_is_not_a_plain_token_goes_the_long_way(stage: Stage, decoded: list[int]) -> None:
    unusual = [
        step(hidden(1, 3, torch.float16), 4, A),
        step(hidden(2, 3), 9, B),
        step(hidden(1, 3), 1, C, flags=Flags.NO_OUTPUT),
    ]
    results = stage.run(unusual, 512, 0.0)
    assert [tensor_of(result).shape[1] for result in results] == [1, 2, 0]
    assert decoded == []


def test_a_step_back_goes_the_long_way_and_the_next_one_is_a_row(
    stage: Stage, model: SpanModel, decoded: list[int]
) -> None:
    tokens = [hidden(1, 5), hidden(1, 6)]
    for position, token in [(4, hidden(1, 4)), (4, tokens[0]), (5, tokens[1])]:
        (result,) = stage.run([step(token, position, A)], 512, 0.0)
    assert decoded == [1, 1]
    stage.close_all()
    assert torch.allclose(tensor_of(result), alone(model, A, tokens)[1], atol=1e-5)


def test_what_does_not_fit_its_session_is_refused_as_ever(stage: Stage, decoded: list[int]) -> None:
    ahead, elsewhere = stage.run([step(hidden(1), 5, A), step(hidden(1), 9, B, span=Span(0, 1))], 512, 0.0)
    assert isinstance(error_of(ahead), PositionMismatch)
    assert isinstance(error_of(elsewhere), NotServing)
    assert decoded == []


def test_a_row_that_is_not_finite_is_refused_and_leaves_its_session_as_it_was(
    stage: Stage, model: SpanModel, decoded: list[int]
) -> None:
    broken = hidden(1, 3)
    broken[0, 0, 5] = math.nan
    refused, fine = stage.run([step(broken, 4, A), step(hidden(1, 7), 9, B)], 512, 0.0)
    assert isinstance(error_of(refused), NotFinite)
    assert fine.error is None
    assert stage.sessions == 3
    token = hidden(1, 4)
    (again,) = stage.run([step(token, 4, A)], 512, 0.0)
    assert decoded == [2, 1]
    stage.close_all()
    assert torch.allclose(tensor_of(again), alone(model, A, [token])[0], atol=1e-5)


def test_an_output_that_is_not_finite_ends_its_session_and_no_other(
    stage: Stage, model: SpanModel, pool: GraphedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pool.step_rows

    def overflowing(*arguments: object) -> list[Row]:
        first, *rest = whole(*arguments)  # type: ignore[arg-type]
        return [first._replace(left=math.inf), *rest]

    monkeypatch.setattr(pool, "step_rows", overflowing)
    broken, fine = stage.run([step(hidden(1, 3), 4, A), step(hidden(1, 7), 9, B)], 512, 0.0)
    assert isinstance(error_of(broken), NotFinite)
    assert fine.error is None
    assert stage.sessions == 2


def test_rows_that_fail_go_the_long_way(
    stage: Stage, model: SpanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(model, "decode_rows", fail)
    tokens = {A: hidden(1, 3), B: hidden(1, 7)}
    results = stage.run([step(tokens[one], PROMPTS[one], one) for one in (A, B)], 512, 0.0)
    stage.close_all()
    for session, result in zip((A, B), results, strict=True):
        assert torch.allclose(tensor_of(result), alone(model, session, [tokens[session]])[0], atol=1e-5)


def test_a_row_for_which_there_is_no_memory_is_refused_and_costs_no_other_its_step(
    pool: GraphedDecoder, model: SpanModel, facts: ModelFacts
) -> None:
    room = LEAST_ROOM * sum(facts.kv_bytes_per_token)
    stage = Stage(model, facts, KVAccount(2 * room))
    for session, tokens in [(A, LEAST_ROOM), (B, 3)]:
        stage.run([step(hidden(tokens), 0, session)], 512, 0.0)
    used = stage.kv_used
    full, fine = stage.run([step(hidden(1), LEAST_ROOM, A), step(hidden(1), 3, B)], 512, 0.0)
    assert isinstance(error_of(full), KVCacheFull)
    assert fine.error is None
    assert (stage.sessions, stage.kv_used) == (2, used)
    stage.close_all()
    assert (pool.pool.free_pages, pool.pool.free_rows, stage.kv_used) == (6, 5, 0)
