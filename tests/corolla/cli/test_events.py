"""Server-sent events come apart in the same way, in whatever parts their bytes come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.cli import events
from corolla.cli.events import EventTooLong, event_data

STREAM = (
    'data: {"a": "\u2028\x85\u2029"}\n\ndata: 2\r\n\r\n'
    ": a comment\nevent: x\ndata:3\ndata: 4\n\ndata: [DONE]\n\n"
)
DATA = ['{"a": "\u2028\x85\u2029"}', "2", "3\n4", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=8))
def test_parts_do_not_matter(cuts: list[int]) -> None:
    raw = STREAM.encode()
    ends = [*sorted(cuts), len(raw)]
    parts = [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert [data.decode() for data in event_data(parts)] == DATA


def test_an_event_that_is_not_whole_is_left_out() -> None:
    assert list(event_data([b"data: 1\n\nda", b"ta: 2\n"])) == [b"1"]


@pytest.mark.parametrize("parts", [[b"x" * 50] * 3, [b"data: " + b"x" * 90 + b"\n"] * 2])
def test_an_event_without_an_end_is_refused(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 100)
    with pytest.raises(EventTooLong):
        list(event_data(parts))
