"""volunteer/slices.py: what may be one step, and that each part gets its own answer."""

from dataclasses import replace
from typing import Any

import pytest

from schema.errors import StepFailed
from schema.frames import Flags, FrameType
from schema.ids import SessionId, Span
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors
from volunteer.slices import JoinedSlices, join
from volunteer.work import Result, Work

HIDDEN = 4
MASK = Role.ATTENTION_MASK


def states(first: int, tokens: int, batch: int = 1, dtype: DType = DType.INT8) -> WireTensor:
    """Of tokens `first`, `first` + 1 ...: each has its number."""
    data = b"".join(bytes([first + index]) * HIDDEN for index in range(tokens)) * batch
    return WireTensor(dtype, (batch, tokens, HIDDEN), data)


def cut(position: int, tokens: int, **changes: Any) -> Work:
    plain = Work(
        FrameType.PREFILL,
        SessionId(bytes(16)),
        step=position,
        position=position,
        epoch=0,
        span=Span(0, 2),
        payload=encode_tensors([states(position, tokens)]),
        tokens=tokens,
    )
    return replace(plain, **changes)


def joined(*slices: Work) -> JoinedSlices:
    found = join(slices)
    assert found is not None
    return found


def test_the_whole_is_all_of_their_tokens() -> None:
    whole = joined(cut(2, 3), cut(5, 1), cut(6, 2)).work
    assert (whole.position, whole.tokens) == (2, 6)
    assert decode_tensors(whole.payload) == [states(2, 6)]


def test_each_is_answered_with_its_own_tokens() -> None:
    slices = cut(0, 3), cut(3, 1)
    whole = joined(*slices)
    results = whole.results(Result(whole.work, encode_tensors([states(10, 4)]), tokens=4))
    assert [(one.work, one.tokens) for one in results] == [(slices[0], 3), (slices[1], 1)]
    assert [decode_tensors(one.payload) for one in results] == [[states(10, 3)], [states(13, 1)]]


@pytest.mark.parametrize(("last", "tokens"), [(Flags.LAST_ONLY, 1), (Flags.NO_OUTPUT, 0)])
def test_where_little_is_wanted_that_is_all_there_is(last: Flags, tokens: int) -> None:
    whole = joined(cut(0, 3, flags=Flags.NO_OUTPUT), cut(3, 2, flags=last | Flags.TIMED))
    assert whole.work.flags & ~Flags.TIMED == last
    results = whole.results(Result(whole.work, encode_tensors([states(4, tokens)])))
    assert [decode_tensors(one.payload) for one in results] == [[states(0, 0)], [states(4, tokens)]]


def test_what_nobody_wants_an_answer_of_is_answered_with_nothing() -> None:
    whole = joined(cut(0, 3, kind=FrameType.REPLAY), cut(3, 2, kind=FrameType.REPLAY))
    assert [one.payload for one in whole.results(Result(whole.work))] == [b"", b""]


def test_an_error_is_each_ones() -> None:
    whole, error = joined(cut(0, 3), cut(3, 2)), StepFailed("broken")
    assert [one.error for one in whole.results(Result(whole.work, error=error))] == [error, error]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(cut(4, 2), id="a gap"),
        pytest.param(cut(2, 2), id="an overlap"),
        pytest.param(cut(3, 2, epoch=1), id="epoch"),
        pytest.param(cut(3, 2, span=Span(0, 1)), id="blocks"),
        pytest.param(cut(3, 2, kind=FrameType.REPLAY), id="kind"),
        pytest.param(cut(3, 2, feeds_hop=True), id="where it goes"),
        pytest.param(cut(3, 2, feeds_new=True), id="to whom"),
        pytest.param(cut(3, 2, payload=encode_tensors([states(3, 2)._replace(role=MASK)])), id="role"),
        pytest.param(
            cut(3, 2, payload=encode_tensors([WireTensor(DType.FLOAT16, (1, 2, HIDDEN), bytes(16))])),
            id="type",
        ),
        pytest.param(cut(3, 2, flags=Flags.LAST_ONLY), id="flags"),
        pytest.param(cut(3, 2, payload=b"bad"), id="unreadable"),
        pytest.param(cut(3, 2, payload=b""), id="empty"),
        pytest.param(replace(cut(3, 3), tokens=2), id="another number of tokens"),
        pytest.param(cut(3, 2, payload=encode_tensors([states(3, 1, batch=2)])), id="sequences"),
        pytest.param(
            cut(3, 2, payload=encode_tensors([states(3, 2), states(3, 2)._replace(role=MASK)])),
            id="a mask",
        ),
        pytest.param(
            cut(3, 2, payload=encode_tensors([WireTensor(DType.INT8, (1, 2, 1), bytes(2))])), id="a width"
        ),
    ],
)
def test_what_differs_is_not_joined(other: Work) -> None:
    assert join([cut(0, 3), other]) is None


def test_passes_are_not_joined() -> None:
    assert join([cut(0, 3, kind=FrameType.FORWARD), cut(3, 2, kind=FrameType.FORWARD)]) is None
