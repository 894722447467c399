"""The tensor codec, one promise at a time."""

import ctypes
import struct
from typing import Any

import pytest

from schema.errors import MalformedTensor, TooLarge
from schema.limits import MAX_PAYLOAD_BYTES, MAX_RANK, MAX_TENSORS
from schema.tensors import ITEM_BYTES, DType, Role, WireTensor, decode_tensors, encode_tensors, envelope
from tests.schema.outcomes import peak_bytes

ONE = WireTensor(DType.INT8, (1,), b"\1")


def payload(dtype: int, rank: int, role: int, dims: tuple[int, ...], data: bytes = b"") -> bytes:
    head = struct.pack("<B3xBBBx", 1, dtype, rank, role)
    return head + struct.pack(f"<{len(dims)}I", *dims) + data


@pytest.mark.parametrize("dtype", DType)
def test_every_dtype_round_trips(dtype: DType) -> None:
    tensor = WireTensor(dtype, (1, 3), bytes(range(3 * ITEM_BYTES[dtype])))
    assert decode_tensors(encode_tensors([tensor])) == [tensor]


@pytest.mark.parametrize("role", Role)
def test_every_role_round_trips(role: Role) -> None:
    tensor = ONE._replace(role=role)
    assert decode_tensors(encode_tensors([tensor])) == [tensor]


def test_every_dtype_has_a_size() -> None:
    assert set(ITEM_BYTES) == set(DType)


def test_data_are_views_into_the_payload() -> None:
    raw = encode_tensors([ONE])
    data = decode_tensors(raw)[0].data
    assert isinstance(data, memoryview)
    assert data.obj is raw


def test_every_tensor_is_padded_to_a_multiple_of_four() -> None:
    assert [len(encode_tensors([WireTensor(DType.INT8, (size,), bytes(size))])) % 4 for size in range(5)] == [
        0
    ] * 5


@pytest.mark.parametrize("hidden", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DType)
def test_an_envelope_is_all_of_a_payload_but_the_data(dtype: DType, hidden: int) -> None:
    shape = (1, 1, hidden)
    data = bytes(range(1, hidden * ITEM_BYTES[dtype] + 1))
    before, after = envelope(dtype, shape)
    assert before + data + after == encode_tensors([WireTensor(dtype, shape, data)])


def test_zero_tokens_round_trip() -> None:
    tensor = WireTensor(DType.BFLOAT16, (1, 0, 4096), b"")
    assert decode_tensors(encode_tensors([tensor])) == [tensor]


def test_zero_tokens_may_come_as_a_view_with_that_shape() -> None:
    empty: Any = memoryview((ctypes.c_float * 64 * 0 * 1)())
    assert decode_tensors(encode_tensors([WireTensor(DType.FLOAT32, (1, 0, 64), empty)]))[0].shape == (
        1,
        0,
        64,
    )


def test_data_may_be_a_view_of_wider_items() -> None:
    data: Any = memoryview(struct.pack("<2f", 1, 2)).cast("f")
    assert bytes(decode_tensors(encode_tensors([WireTensor(DType.FLOAT32, (2,), data)]))[0].data) == bytes(
        data
    )


def test_data_with_gaps_are_refused() -> None:
    with pytest.raises(MalformedTensor):
        encode_tensors([WireTensor(DType.INT8, (2,), memoryview(b"1234")[::2])])


def test_data_that_do_not_match_the_shape_are_refused() -> None:
    with pytest.raises(MalformedTensor, match="1 bytes do not make INT8"):
        encode_tensors([WireTensor(DType.INT8, (2,), b"1")])


@pytest.mark.parametrize("shape", [(-1, -1), (-1, 0), (0, 2**32), (0, 2**24, 2**24)], ids=str)
def test_shape_that_no_library_holds_is_not_sent(shape: tuple[int, ...]) -> None:
    with pytest.raises(MalformedTensor):
        encode_tensors([WireTensor(DType.INT8, shape, b"\1"[: shape == (-1, -1)])])


def test_tensors_at_the_limit_are_taken() -> None:
    assert len(decode_tensors(encode_tensors([ONE] * MAX_TENSORS))) == MAX_TENSORS


def test_more_tensors_are_not_sent() -> None:
    with pytest.raises(MalformedTensor, match="at most 4 tensors"):
        encode_tensors([ONE] * (MAX_TENSORS + 1))


def test_more_tensors_are_refused() -> None:
    with pytest.raises(MalformedTensor, match="at most 4 tensors"):
        decode_tensors(bytes([MAX_TENSORS + 1, 0, 0, 0]) + encode_tensors([ONE])[4:] * (MAX_TENSORS + 1))


def test_rank_at_the_limit_is_taken() -> None:
    tensor = WireTensor(DType.INT8, (1,) * MAX_RANK, b"\1")
    assert decode_tensors(encode_tensors([tensor])) == [tensor]


def test_higher_rank_is_not_sent() -> None:
    with pytest.raises(MalformedTensor):
        encode_tensors([WireTensor(DType.INT8, (1,) * (MAX_RANK + 1), b"\1")])


def test_higher_rank_is_refused() -> None:
    with pytest.raises(MalformedTensor, match="rank 5"):
        decode_tensors(payload(DType.INT8, MAX_RANK + 1, 0, (1,) * (MAX_RANK + 1), bytes(4)))


def test_payload_at_the_limit_is_taken() -> None:
    data = bytes(MAX_PAYLOAD_BYTES - 12)
    raw = encode_tensors([WireTensor(DType.INT8, (len(data),), data)])
    assert len(raw) == MAX_PAYLOAD_BYTES


def test_payload_above_the_limit_is_not_sent() -> None:
    data = bytes(MAX_PAYLOAD_BYTES - 11)
    with pytest.raises(TooLarge, match="fewer tokens"):
        encode_tensors([WireTensor(DType.INT8, (len(data),), data)])


@pytest.mark.parametrize("code", [0, 6, 255])
def test_unknown_dtype_is_refused(code: int) -> None:
    with pytest.raises(MalformedTensor, match="DType"):
        decode_tensors(payload(code, 0, 0, (), bytes(4)))


@pytest.mark.parametrize("code", [2, 255])
def test_unknown_role_is_refused(code: int) -> None:
    with pytest.raises(MalformedTensor, match="Role"):
        decode_tensors(payload(DType.INT8, 0, code, (), bytes(4)))


def test_missing_padding_is_refused() -> None:
    with pytest.raises(MalformedTensor):
        decode_tensors(payload(DType.INT8, 0, 0, (), b"\1"))


def test_bytes_after_the_last_tensor_are_refused() -> None:
    with pytest.raises(MalformedTensor, match="after the last tensor"):
        decode_tensors(encode_tensors([ONE]) + bytes(4))


def test_reserved_bytes_and_padding_are_not_looked_at() -> None:
    raw = bytes.fromhex("01ffffff 040100ff 01000000 01ffffff")
    assert decode_tensors(raw) == [ONE]


@pytest.mark.parametrize("dtype", DType)
def test_huge_dimensions_are_refused_and_allocate_nothing(dtype: DType) -> None:
    raw = payload(dtype, 4, 0, (2**32 - 1,) * 4)
    with pytest.raises(MalformedTensor, match="needs"):
        decode_tensors(raw)
    assert peak_bytes(lambda: decode_tensors(raw)) < 64 * 1024


def test_nothing_in_huge_dimensions_is_refused() -> None:
    with pytest.raises(MalformedTensor, match="empty tensor"):
        decode_tensors(payload(DType.FLOAT32, 4, 0, (0, 2**32 - 1, 2**32 - 1, 2**32 - 1)))
