"""What a TRACE frame carries: how long one step was at a hop, in two parts.

    queue u32 | compute u32     microseconds, little endian; 2^32 - 1 stands for that and more

Does not know who measures it, nor what is made of it.
"""

import struct
from typing import NamedTuple

from schema.errors import MalformedFrame

_TRACE = struct.Struct("<II")
_MOST = 2**32 - 1
_PER_SECOND = 1_000_000


class HopTrace(NamedTuple):
    """One step at one hop. Seconds."""

    queue: float
    """From its frame's arrival to its answer, less `compute`."""
    compute: float
    """In the batches that it was computed with."""


def encode_trace(trace: HopTrace) -> bytes:
    """A TRACE's payload. Rounded down: no step is to seem longer at its hops than it was."""
    return _TRACE.pack(*(min(_MOST, max(0, int(seconds * _PER_SECOND))) for seconds in trace))


def decode_trace(payload: bytes | memoryview) -> HopTrace:
    """What a TRACE's payload says.

    Raises:
        MalformedFrame: it is none.
    """
    if len(payload) != _TRACE.size:
        raise MalformedFrame(f"a TRACE has a payload of {_TRACE.size} bytes, not {len(payload)}")
    queue, compute = _TRACE.unpack(payload)
    return HopTrace(queue / _PER_SECOND, compute / _PER_SECOND)
