"""Forward passes: whole sequences go through, together where they can, and nothing of them stays."""

import pytest
import torch
from torch import Tensor

from corolla.models.facts import ModelFacts
from corolla.models.source import ModelSource
from corolla.models.span import SpanModel
from corolla.tensors import from_wire, to_wire
from schema.errors import CorollaError, NotFinite, NotServing, PositionMismatch
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import Role, decode_tensors, encode_tensors
from tests.volunteer.tiny import BLOCKS, HIDDEN, tiny_facts, tiny_source, tiny_span
from volunteer.kvcache import KVAccount
from volunteer.stage import Stage
from volunteer.work import Result, Work

SPAN = Span(1, BLOCKS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return tiny_source(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def facts(source: ModelSource) -> ModelFacts:
    return tiny_facts(source)


@pytest.fixture(scope="module")
def model(source: ModelSource) -> SpanModel:
    return tiny_span(source, SPAN.start, SPAN.end)


@pytest.fixture
def stage(model: SpanModel, facts: ModelFacts) -> Stage:
    return Stage(model, facts, KVAccount(2**20))


def hidden(batch: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def passing(
    tensor: Tensor,
    name: bytes = b"a",
    mask: Tensor | None = None,
    span: Span = SPAN,
    position: int = 0,
    flags: Flags = Flags.NONE,
) -> Work:
    wires = [to_wire(tensor)]
    wires += [] if mask is None else [to_wire(mask, Role.ATTENTION_MASK)]
    payload = encode_tensors(wires)
    return Work(FrameType.FORWARD, SessionId(name * 16), 0, position, 0, span, payload, flags)


def output(result: Result) -> Tensor:
    assert result.error is None
    return from_wire(decode_tensors(result.payload)[0])


def error(result: Result) -> CorollaError:
    assert result.error is not None
    return result.error


def test_a_pass_gives_what_the_span_gives_and_keeps_nothing(stage: Stage, model: SpanModel) -> None:
    entering = hidden(2, 5)
    (result,) = stage.run([passing(entering)], 1, now=0.0)
    torch.testing.assert_close(output(result), model.forward(entering), rtol=0, atol=0)
    assert (result.tokens, stage.sessions, stage.kv_used) == (10, 0, 0)


def test_passes_run_as_one_batch_only_with_those_of_their_length(stage: Stage, model: SpanModel) -> None:
    entering = [hidden(2, 5, 1), hidden(1, 5, 2), hidden(1, 7, 3)]
    works = [passing(one, bytes([65 + at])) for at, one in enumerate(entering)]
    seen: list[tuple[int, ...]] = []
    forward = model.forward

    def watched(hidden: Tensor, *rest: object) -> Tensor:
        seen.append(tuple(hidden.shape))
        return forward(hidden, *rest)  # type: ignore[arg-type]

    model.forward = watched  # type: ignore[method-assign]
    try:
        results = stage.run(works, 1, now=0.0)
    finally:
        del model.forward  # the class's own again
    assert seen == [(3, 5, HIDDEN), (1, 7, HIDDEN)]
    for result, one in zip(results, entering, strict=True):
        torch.testing.assert_close(output(result), model.forward(one), rtol=1e-5, atol=1e-5)


def test_a_mask_hides_padding(stage: Stage, model: SpanModel) -> None:
    short = hidden(1, 4)
    padded = torch.cat([short, hidden(1, 2, seed=9)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]], dtype=torch.int8)
    (result,) = stage.run([passing(padded, mask=mask)], 1, now=0.0)
    torch.testing.assert_close(output(result)[:, :4], model.forward(short), rtol=1e-5, atol=1e-5)


def test_a_pass_may_use_a_part_of_the_span_and_send_the_last_position_only(
    stage: Stage, model: SpanModel
) -> None:
    entering, part = hidden(1, 3), Span(2, 3)
    (result,) = stage.run([passing(entering, span=part, flags=Flags.LAST_ONLY)], 1, now=0.0)
    expected = model.forward(entering, blocks=(2, 3))[:, -1:]
    torch.testing.assert_close(output(result), expected, rtol=0, atol=0)


def test_what_is_wrong_with_one_pass_concerns_no_other(stage: Stage, model: SpanModel) -> None:
    good, broken = hidden(1, 3), torch.full((1, 3, HIDDEN), torch.nan)
    works = [
        passing(good, b"a"),
        passing(broken, b"b"),
        passing(good, b"c", span=Span(0, 2)),
        passing(good, b"d", position=3),
    ]
    first, *rest = stage.run(works, 1, now=0.0)
    torch.testing.assert_close(output(first), model.forward(good), rtol=1e-5, atol=1e-5)
    assert [type(error(result)) for result in rest] == [NotFinite, NotServing, PositionMismatch]


def test_a_pass_leaves_its_sessions_cache_alone(stage: Stage, model: SpanModel) -> None:
    prompt, following = hidden(1, 4, 1), hidden(1, 1, 2)

    def step(tensor: Tensor, position: int) -> Work:
        payload = encode_tensors([to_wire(tensor)])
        return Work(FrameType.STEP, SessionId(b"a" * 16), 0, position, 0, SPAN, payload)

    stage.run([step(prompt, 0)], 1, now=0.0)
    stage.run([passing(hidden(3, 6))], 1, now=0.0)
    (result,) = stage.run([step(following, 4)], 1, now=0.0)
    expected = model.forward(torch.cat([prompt, following], dim=1))[:, -1:]
    torch.testing.assert_close(output(result), expected, rtol=1e-5, atol=1e-5)
