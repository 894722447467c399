"""Between torch tensors and the tensors of the wire, and the checks that come before computing with them.

Nothing is copied that does not have to be. Both directions share memory with their input where they can,
and say so. Little-endian machines only, as the wire is.

Knows nothing of frames or models: what shape to expect is told by the caller.
"""

from collections.abc import Sequence
from math import isfinite, prod

import numpy as np
import torch
from torch import Tensor

from schema.errors import NotFinite, ShapeMismatch
from schema.tensors import DType, Role, WireTensor

_TORCH = {
    DType.FLOAT32: torch.float32,
    DType.FLOAT16: torch.float16,
    DType.BFLOAT16: torch.bfloat16,
    DType.INT8: torch.int8,
    DType.INT64: torch.int64,
}
_WIRE = {dtype: code for code, dtype in _TORCH.items()}
_NUMPY = {
    DType.FLOAT32: np.dtype(np.float32),
    DType.FLOAT16: np.dtype(np.float16),
    DType.BFLOAT16: np.dtype(np.int16),  # NumPy has no bfloat16; its bits pass as integers
    DType.INT8: np.dtype(np.int8),
    DType.INT64: np.dtype(np.int64),
}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of a wire code."""
    return _TORCH[dtype]


def wire_dtype(dtype: torch.dtype) -> DType:
    """The wire code of a torch dtype.

    Raises:
        ShapeMismatch: a dtype that does not travel, such as float64.
    """
    code = _WIRE.get(dtype)
    if code is None:
        names = ", ".join(str(known) for known in _WIRE)
        raise ShapeMismatch(f"{dtype} tensors cannot be sent: convert them to one of {names}")
    return code


def to_wire(tensor: Tensor, role: Role = Role.HIDDEN) -> WireTensor:
    """The tensor as it travels, in its own dtype.

    A contiguous CPU tensor is not copied: its memory must not change until the frame is encoded.
    Anything else is copied once. From a GPU this waits until the tensor is computed.
    """
    dtype = wire_dtype(tensor.dtype)
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return WireTensor(dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().data, role)


def from_wire(
    wire: WireTensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """The tensor that arrived, on `device` and in `dtype` (None: as it travelled).

    On the CPU, with its dtype unchanged and its bytes aligned, it shares memory with the received frame and
    keeps it alive. That memory belongs to the frame: nothing may write to it in place.

    Args:
        wire: as `schema.tensors.decode_tensors` gives it, so its bytes fit its shape.
    """
    if prod(wire.shape) == 0:
        return torch.empty(wire.shape, dtype=dtype or torch_dtype(wire.dtype), device=device)
    array = np.frombuffer(wire.data, dtype=_NUMPY[wire.dtype])
    if not array.flags.aligned:  # the wire aligns to 4 bytes, an int64 wants 8
        array = array.copy()
    # DLPack can say that memory is read-only; torch.frombuffer and torch.from_numpy warn about it.
    tensor = torch.from_dlpack(array).view(torch_dtype(wire.dtype)).reshape(wire.shape)
    return tensor.to(device=device, dtype=dtype)


def stack_from_wire(wires: Sequence[WireTensor]) -> Tensor:
    """Tensors that arrived, of one shape but for their first dimension, behind each other along that one.

    On the host, as they travelled. Those of one dtype are copied once, into memory of the result's own.
    """
    first = wires[0]
    if any(wire.dtype is not first.dtype for wire in wires):
        return torch.cat([from_wire(wire) for wire in wires])
    rows = sum(wire.shape[0] for wire in wires)
    data = bytearray().join(wire.data for wire in wires)
    return torch.frombuffer(data, dtype=torch_dtype(first.dtype)).view(rows, *first.shape[1:])


def rows_to_wire(tensor: Tensor, role: Role = Role.HIDDEN) -> list[WireTensor]:
    """Every row of a tensor as `to_wire` gives it, [1, ...] each, after one copy of them all."""
    whole = to_wire(tensor, role)
    shape, data = (1, *tensor.shape[1:]), memoryview(whole.data)
    size = data.nbytes // len(tensor)
    return [
        WireTensor(whole.dtype, shape, data[start : start + size], role)
        for start in range(0, data.nbytes, size)
    ]


def require_hidden(wire: WireTensor, hidden_size: int, batch: int | None = None) -> None:
    """Refuses what cannot be hidden states [batch, tokens, hidden_size] in a floating dtype.

    Args:
        batch: how many rows there must be; None takes any number from one on.

    Raises:
        ShapeMismatch: another role, dtype, rank or size; the message names both.
    """
    rows = "any" if batch is None else batch
    expected = f"hidden states [{rows}, tokens, {hidden_size}] are expected"
    if wire.role is not Role.HIDDEN:
        raise ShapeMismatch(f"{expected}, not a tensor with the role {wire.role.name}")
    if not torch_dtype(wire.dtype).is_floating_point:
        raise ShapeMismatch(f"{expected} in a floating dtype, not {wire.dtype.name}")
    shape = wire.shape
    if len(shape) != 3 or 0 in shape or shape[2] != hidden_size or batch not in (None, shape[0]):
        raise ShapeMismatch(f"{expected}, not {list(shape)}: does the other side serve the same model?")


def is_finite(hidden: Tensor) -> bool:
    """Whether `require_finite` accepts `hidden`."""
    return isfinite(_norm(hidden))


def require_finite(hidden: Tensor) -> float:
    """The root mean square of `hidden`, from the one reduction that also shows NaN and infinity.

    Waits for a GPU once. Values so large that their squares overflow float32 count as infinite, and over
    millions of values float32 leaves the result right to about one part in a hundred: good for a band.

    Raises:
        NotFinite: NaN or infinity in `hidden`.
    """
    norm = _norm(hidden)
    if not isfinite(norm):
        raise not_finite(tuple(hidden.shape))
    return norm / hidden.numel() ** 0.5


def not_finite(shape: tuple[int, ...]) -> NotFinite:
    """What is wrong with hidden states whose norm is not finite."""
    return NotFinite(
        f"hidden states {list(shape)} hold NaN or infinity: the volunteer that computed them "
        "has a broken device, or a dtype with too small a range for this model"
    )


def _norm(hidden: Tensor) -> float:
    return torch.linalg.vector_norm(hidden.detach(), dtype=torch.float32).item()
