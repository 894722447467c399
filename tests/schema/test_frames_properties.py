"""Any bytes are a frame or a named error, and cost no more memory than they have."""

from hypothesis import given
from hypothesis import strategies as st

from schema.errors import CorollaError
from schema.frames import HEADER_BYTES, Frame, decode_frame, encode_frame, parse_header
from tests.schema.outcomes import peak_bytes, result_or_refusal
from tests.schema.strategies import FRAMES, U8, U32, mutations

ENCODED = FRAMES.map(encode_frame)
HEADERS = st.binary(min_size=HEADER_BYTES - 3, max_size=HEADER_BYTES + 20).map(
    lambda raw: b"\x7a\xc0\x01" + raw
)
ANYTHING = st.binary(max_size=200) | HEADERS | mutations(ENCODED)


@given(FRAMES)
def test_round_trip(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(ENCODED)
def test_header_says_where_the_payload_starts(raw: bytes) -> None:
    header = parse_header(raw)
    assert len(raw) - header.payload_start == header.payload_bytes


@given(ANYTHING)
def test_any_bytes_have_a_header_or_are_refused(raw: bytes) -> None:
    header = result_or_refusal(lambda: parse_header(raw))
    assert isinstance(header, CorollaError) or header.payload_start + header.payload_bytes == len(raw)


@given(ANYTHING)
def test_any_bytes_are_a_frame_or_are_refused(raw: bytes) -> None:
    frame = result_or_refusal(lambda: decode_frame(raw))
    assert isinstance(frame, CorollaError) or len(frame.route) + len(frame.payload) + HEADER_BYTES == len(raw)


@given(U8, st.integers(0, 0xFFFF), U32, st.binary(max_size=50))
def test_declared_lengths_allocate_nothing(kind: int, route: int, payload: int, rest: bytes) -> None:
    start = b"\x7a\xc0\x01" + bytes([kind, 0, 0]) + route.to_bytes(2, "little") + bytes(28)
    raw = start + payload.to_bytes(4, "little") + rest
    assert peak_bytes(lambda: decode_frame(raw)) < 64 * 1024


@given(FRAMES, st.integers() | st.none() | st.text(max_size=3))
def test_a_field_outside_its_width_is_refused_or_survives(frame: Frame, value: int) -> None:
    wrong = frame._replace(epoch=value)
    raw = result_or_refusal(lambda: encode_frame(wrong))
    assert isinstance(raw, CorollaError) or decode_frame(raw) == wrong
