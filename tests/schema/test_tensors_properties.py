"""Any bytes are tensors or a named error, and cost no more memory than they have."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from schema.errors import CorollaError
from schema.limits import MAX_PAYLOAD_BYTES
from schema.tensors import WireTensor, decode_tensors, encode_tensors
from tests.schema.outcomes import peak_bytes, result_or_refusal
from tests.schema.strategies import TENSOR_LISTS, U32, mutations

ENCODED = TENSOR_LISTS.map(encode_tensors)
SMALL = st.integers(0, 6)
LARGE_DIMENSIONS = st.builds(
    lambda dtype, role, dims, rest: (
        struct.pack(f"<B3xBBBx{len(dims)}I", 1, dtype, len(dims), role, *dims) + rest
    ),
    st.integers(1, 5),
    st.integers(0, 1),
    st.lists(U32 | SMALL, max_size=4),
    st.binary(max_size=40),
)
ANYTHING = st.binary(max_size=100) | LARGE_DIMENSIONS | mutations(ENCODED)


@given(TENSOR_LISTS)
def test_round_trip(tensors: list[WireTensor]) -> None:
    assert decode_tensors(encode_tensors(tensors)) == tensors


@given(ANYTHING)
def test_any_bytes_are_tensors_or_are_refused(raw: bytes) -> None:
    tensors = result_or_refusal(lambda: decode_tensors(raw))
    assert isinstance(tensors, CorollaError) or sum(len(tensor.data) for tensor in tensors) <= len(raw)


@given(ANYTHING)
def test_what_is_taken_could_have_been_sent(raw: bytes) -> None:
    tensors = result_or_refusal(lambda: decode_tensors(raw))
    assert isinstance(tensors, CorollaError) or decode_tensors(encode_tensors(tensors)) == tensors


@given(LARGE_DIMENSIONS)
def test_declared_dimensions_allocate_nothing(raw: bytes) -> None:
    assert peak_bytes(lambda: decode_tensors(raw)) < 64 * 1024


@given(LARGE_DIMENSIONS)
def test_shapes_that_are_taken_have_strides_that_fit(raw: bytes) -> None:
    tensors = result_or_refusal(lambda: decode_tensors(raw))
    shapes = [] if isinstance(tensors, CorollaError) else [tensor.shape for tensor in tensors]
    for shape in shapes:
        extent = 1
        for dim in shape:
            extent *= dim or 1
        assert extent <= MAX_PAYLOAD_BYTES
