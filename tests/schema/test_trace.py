"""A TRACE frame's payload. Its bytes are in tests/vectors/."""

import pytest

from schema.errors import MalformedFrame
from schema.trace import HopTrace, decode_trace, encode_trace


def test_microseconds_round_trip() -> None:
    assert decode_trace(encode_trace(HopTrace(0.000001, 1.5))) == HopTrace(0.000001, 1.5)


def test_a_view_is_read_as_bytes_are() -> None:
    assert decode_trace(memoryview(encode_trace(HopTrace(0.0, 2.0)))) == HopTrace(0.0, 2.0)


def test_what_is_less_than_nothing_or_more_than_fits_is_cut_off() -> None:
    assert decode_trace(encode_trace(HopTrace(-1.0, 1e9))) == HopTrace(0.0, (2**32 - 1) / 1e6)


@pytest.mark.parametrize("length", [0, 7, 9])
def test_another_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame, match=f"not {length}"):
        decode_trace(bytes(length))
