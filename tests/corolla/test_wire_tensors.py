"""What the bridge between torch and the wire promises: same bits, no needless copies, named refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corolla.tensors import (
    from_wire,
    require_finite,
    require_hidden,
    rows_to_wire,
    stack_from_wire,
    to_wire,
    torch_dtype,
    wire_dtype,
)
from schema.errors import NotFinite, ShapeMismatch
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors

FLOATING = [DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16]


def over_the_wire(tensor: torch.Tensor, role: Role = Role.HIDDEN) -> WireTensor:
    """The tensor as a receiver gets it: a view into an immutable frame."""
    (wire,) = decode_tensors(encode_tensors([to_wire(tensor, role)]))
    return wire


@pytest.mark.parametrize("dtype", list(DType))
def test_every_wire_dtype_has_a_torch_dtype_and_back(dtype: DType):
    assert wire_dtype(torch_dtype(dtype)) is dtype


@pytest.mark.parametrize("dtype", list(DType))
def test_a_tensor_arrives_bit_for_bit(dtype: DType):
    bits = torch.randint(-128, 128, (2, 3, 64), dtype=torch.int8)
    sent = bits.view(torch_dtype(dtype))  # every bit pattern, NaNs among them
    received = from_wire(over_the_wire(sent))
    assert received.dtype is sent.dtype
    assert received.shape == sent.shape
    assert torch.equal(received.view(torch.int8), sent.view(torch.int8))


@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=4),
    dtype=st.sampled_from(list(DType)),
    strided=st.booleans(),
)
def test_any_shape_and_layout_arrives(shape: list[int], dtype: DType, strided: bool):
    sent = torch.arange(math.prod(shape)).reshape(shape).to(torch_dtype(dtype))
    if strided and sent.dim() > 1:
        sent = sent.transpose(0, 1)
    received = from_wire(over_the_wire(sent))
    assert received.shape == sent.shape
    assert torch.equal(received, sent)


@pytest.mark.parametrize("dtypes", [[torch.float16] * 3, [torch.float16, torch.float32, torch.float16]])
def test_tensors_that_arrived_are_stacked_with_their_values(dtypes: list[torch.dtype]):
    sent = [torch.randn(rows, 1, 5).half().to(dtype) for rows, dtype in enumerate(dtypes, start=1)]
    stacked = stack_from_wire([over_the_wire(tensor) for tensor in sent])
    assert torch.equal(stacked.double(), torch.cat([tensor.double() for tensor in sent]))
    stacked[0] = 0.0  # its memory is no frame's


@pytest.mark.parametrize("dtype", FLOATING)
def test_rows_travel_as_each_would_alone(dtype: DType):
    tensor = torch.randn(2, 3, 4).transpose(0, 1).to(torch_dtype(dtype))
    assert rows_to_wire(tensor) == [to_wire(row) for row in tensor.split(1)]


def test_the_role_travels():
    mask = torch.ones(1, 4, dtype=torch.int8)
    assert over_the_wire(mask, Role.ATTENTION_MASK).role is Role.ATTENTION_MASK


def test_sending_a_contiguous_tensor_copies_nothing():
    tensor = torch.zeros(4)
    wire = to_wire(tensor)
    tensor[0] = 1.0
    assert torch.equal(from_wire(wire), tensor)


def test_sending_takes_a_tensor_that_wants_gradients():
    tensor = torch.ones(2, requires_grad=True)
    assert from_wire(over_the_wire(tensor)).tolist() == [1.0, 1.0]


def test_sending_keeps_the_memory_alive():
    wire = to_wire(torch.arange(1000.0))
    assert torch.equal(from_wire(wire), torch.arange(1000.0))


def test_a_dtype_that_does_not_travel_is_refused_by_name():
    with pytest.raises(ShapeMismatch, match=r"torch\.float64 tensors cannot be sent"):
        to_wire(torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", list(DType))
def test_receiving_aligned_bytes_copies_nothing(dtype: DType):
    frame = bytearray(64)
    received = from_wire(WireTensor(dtype, (2,), memoryview(frame)[:16][: 2 * torch_dtype(dtype).itemsize]))
    frame[0] = 1
    assert received.view(torch.uint8)[0] == 1


@pytest.mark.parametrize("offset", range(8))
def test_int64_at_any_offset_of_a_frame_is_read_right(offset: int):
    values = torch.tensor([1, -2, 2**40])
    frame = bytes(offset) + bytes(to_wire(values).data)
    received = from_wire(WireTensor(DType.INT64, (3,), memoryview(frame)[offset:]))
    assert torch.equal(received, values)
    assert received.data_ptr() % 8 == 0


def test_a_received_tensor_outlives_the_names_of_its_frame():
    wire = over_the_wire(torch.arange(1000.0))
    received = from_wire(wire)
    del wire
    assert torch.equal(received, torch.arange(1000.0))


def test_receiving_converts_to_the_dtype_that_is_wanted():
    received = from_wire(over_the_wire(torch.tensor([1.5], dtype=torch.bfloat16)), dtype=torch.float32)
    assert received.dtype is torch.float32
    assert received.tolist() == [1.5]


def test_an_empty_tensor_is_given_the_dtype_that_is_wanted():
    assert from_wire(over_the_wire(torch.zeros(1, 0, 8)), dtype=torch.float16).dtype is torch.float16


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("batch", [None, 2])
def test_hidden_states_of_the_model_pass(dtype: DType, batch: int | None):
    require_hidden(over_the_wire(torch.zeros(2, 3, 8, dtype=torch_dtype(dtype))), hidden_size=8, batch=batch)


@pytest.mark.parametrize(
    ("tensor", "role", "said"),
    [
        (torch.zeros(2, 3, 9), Role.HIDDEN, r"\[2, tokens, 8\] are expected, not \[2, 3, 9\]"),
        (torch.zeros(1, 3, 8), Role.HIDDEN, r"\[2, tokens, 8\] are expected, not \[1, 3, 8\]"),
        (torch.zeros(2, 8), Role.HIDDEN, r"not \[2, 8\]"),
        (torch.zeros(2, 0, 8), Role.HIDDEN, r"not \[2, 0, 8\]"),
        (torch.zeros(2, 3, 8, dtype=torch.int8), Role.HIDDEN, "floating dtype, not INT8"),
        (torch.zeros(2, 3, dtype=torch.int8), Role.ATTENTION_MASK, "role ATTENTION_MASK"),
    ],
    ids=["width", "batch", "rank", "no tokens", "dtype", "role"],
)
def test_other_tensors_are_refused_by_name(tensor: torch.Tensor, role: Role, said: str):
    with pytest.raises(ShapeMismatch, match=said):
        require_hidden(over_the_wire(tensor, role), hidden_size=8, batch=2)


def test_no_rows_are_refused_whatever_the_batch():
    with pytest.raises(ShapeMismatch, match=r"\[any, tokens, 8\]"):
        require_hidden(over_the_wire(torch.zeros(0, 3, 8)), hidden_size=8)


@pytest.mark.parametrize("dtype", FLOATING)
def test_finite_hidden_states_give_their_root_mean_square(dtype: DType):
    hidden = torch.tensor([[[3.0, -4.0, 0.0, 0.0]]], dtype=torch_dtype(dtype))
    assert require_finite(hidden) == pytest.approx(2.5)


def test_large_float16_activations_are_finite():
    """Their sum of squares is far above what float16 holds."""
    hidden = torch.full((1, 512, 4096), 60_000.0, dtype=torch.float16)
    assert require_finite(hidden) == pytest.approx(60_000.0, rel=0.01)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_refused_by_name(dtype: DType, value: float):
    hidden = torch.ones(1, 5, 64, dtype=torch_dtype(dtype))
    hidden[0, 4, 63] = value
    with pytest.raises(NotFinite, match=r"\[1, 5, 64\] hold NaN or infinity"):
        require_finite(hidden)
