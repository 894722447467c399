"""Tensors as bytes: dtype code, shape and raw little-endian data, with no tensor library.

A payload is a list of tensors. Little endian:

    count u8 | reserved 3 bytes (0)
    count x ( dtype u8 | rank u8 | role u8 | reserved u8 (0) | rank x dim u32 | data | padding to 4 bytes )

bf16 travels as its own 16 bits. Data are row-major (C order). Volunteers turn `WireTensor.data`
into tensors of their library without copying; this module checks only that dtype, shape and bytes
agree and that nothing exceeds the limits.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from math import prod
from typing import NamedTuple

from schema.errors import MalformedTensor, TooLarge
from schema.limits import MAX_PAYLOAD_BYTES, MAX_RANK, MAX_TENSORS

_COUNT = struct.Struct("<B3x")
_TENSOR = struct.Struct("<BBBx")
_DIMS = tuple(struct.Struct(f"<{rank}I") for rank in range(MAX_RANK + 1))
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class DType(IntEnum):
    """Codes of element types on the wire."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    INT64 = 5


ITEM_BYTES = {DType.FLOAT32: 4, DType.FLOAT16: 2, DType.BFLOAT16: 2, DType.INT8: 1, DType.INT64: 8}


class Role(IntEnum):
    """What a tensor in a payload is."""

    HIDDEN = 0  # [batch, tokens, hidden], a floating type
    ATTENTION_MASK = 1  # int8 [batch, position + tokens]: 1 where a token is, 0 where padding is


class WireTensor(NamedTuple):
    """One tensor: `data` is row-major bytes, possibly a view into a received frame."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes | memoryview
    role: Role = Role.HIDDEN


def encode_tensors(tensors: Sequence[WireTensor]) -> bytes:
    """A payload of tensors.

    Raises:
        MalformedTensor: too many tensors or dimensions, or data that do not match dtype and shape.
        TooLarge: more than a payload may hold.
    """
    if len(tensors) > MAX_TENSORS:
        raise MalformedTensor(f"a payload holds at most {MAX_TENSORS} tensors, not {len(tensors)}")
    parts: list[bytes | memoryview] = [_COUNT.pack(len(tensors))]
    total = _COUNT.size
    for tensor in tensors:
        data = memoryview(tensor.data)
        size = _size(tensor.dtype, tensor.shape)
        if size != data.nbytes or not data.c_contiguous:
            raise MalformedTensor(f"{data.nbytes} bytes do not make {tensor.dtype.name} {tensor.shape}")
        padding = _PADDING[size % 4]
        total += _TENSOR.size + 4 * len(tensor.shape) + size + len(padding)
        if total > MAX_PAYLOAD_BYTES:
            raise TooLarge(
                f"a payload holds at most {MAX_PAYLOAD_BYTES} bytes: send fewer tokens or rows a frame"
            )
        parts += (
            _TENSOR.pack(tensor.dtype, len(tensor.shape), tensor.role),
            _DIMS[len(tensor.shape)].pack(*tensor.shape),
            data,
            padding,
        )
    return b"".join(parts)


def envelope(dtype: DType, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """What a payload of one tensor of hidden states has before that one's data, and behind them.

    Whoever handles many payloads of one kind need not take them apart, nor put them together.

    Raises:
        MalformedTensor, TooLarge: as `encode_tensors`.
    """
    size = _size(dtype, shape)
    payload = encode_tensors([WireTensor(dtype, shape, bytes(size))])
    begin = _COUNT.size + _TENSOR.size + 4 * len(shape)
    return payload[:begin], payload[begin + size :]


def _size(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor's data.

    An empty tensor may not have huge other dimensions: tensor libraries fail on their strides.
    """
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise MalformedTensor(f"a tensor has at most {MAX_RANK} dimensions, none of them negative: {shape}")
    size = ITEM_BYTES[dtype] * prod(shape)
    if size == 0 and ITEM_BYTES[dtype] * prod(dim or 1 for dim in shape) > MAX_PAYLOAD_BYTES:
        raise MalformedTensor(f"an empty tensor of shape {shape} would not fit a payload if it had data")
    return size


def decode_tensors(payload: bytes | memoryview) -> list[WireTensor]:
    """The tensors of a payload as views into it: nothing is copied or allocated by size.

    Raises:
        MalformedTensor: codes, ranks or lengths that do not fit the payload.
    """
    view = memoryview(payload)
    if len(view) < _COUNT.size:
        raise MalformedTensor("a tensor payload has at least 4 bytes")
    (count,) = _COUNT.unpack_from(view)
    if count > MAX_TENSORS:
        raise MalformedTensor(f"a payload holds at most {MAX_TENSORS} tensors, not {count}")
    tensors: list[WireTensor] = []
    offset = _COUNT.size
    for _ in range(count):
        tensor, offset = _decode_one(view, offset)
        tensors.append(tensor)
    if offset != len(view):
        raise MalformedTensor(f"{len(view) - offset} bytes after the last tensor")
    return tensors


def _decode_one(view: memoryview, offset: int) -> tuple[WireTensor, int]:
    if len(view) - offset < _TENSOR.size:
        raise MalformedTensor("the payload ends inside a tensor's header")
    code: int
    rank: int
    role_code: int
    code, rank, role_code = _TENSOR.unpack_from(view, offset)
    offset += _TENSOR.size
    try:
        dtype, role = DType(code), Role(role_code)
    except ValueError as error:
        raise MalformedTensor(str(error)) from error
    if rank > MAX_RANK or len(view) - offset < 4 * rank:
        raise MalformedTensor(f"a tensor of rank {rank} does not fit")
    shape: tuple[int, ...] = _DIMS[rank].unpack_from(view, offset)
    offset += 4 * rank
    size = _size(dtype, shape)
    padded = size + len(_PADDING[size % 4])
    if len(view) - offset < padded:
        raise MalformedTensor(f"{dtype.name} {shape} needs {size} bytes, {len(view) - offset} are left")
    return WireTensor(dtype, shape, view[offset : offset + size], role), offset + padded
