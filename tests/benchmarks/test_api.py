"""The comparison of HTTP with the driver called directly: what it reads, and what it counts."""

import pytest

from benchmarks.api import DIRECT, HTTP, Compared, Round, bodies
from benchmarks.driven_head import Timed
from benchmarks.streamed import EventStream

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def said(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text.encode()


WHOLE = b"".join(
    [
        HEAD,
        chunk(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n' + said("12")),
        chunk(said(" 7")),
        chunk(b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'),
        chunk(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    ]
)


@pytest.mark.parametrize("size", [1, 7, 64, len(WHOLE)])
def test_events_are_found_however_their_bytes_come(size: int) -> None:
    stream = EventStream()
    for at in range(0, len(WHOLE), size):
        assert not stream.is_over
        stream.feed(WHOLE[at : at + size], float(at))
    assert stream.is_over
    pieces = list(stream.pieces())
    assert [text for _, text in pieces] == ["12", " 7"]
    assert pieces[0][0] <= pieces[1][0]


def test_an_answer_that_is_no_stream_is_an_error() -> None:
    stream = EventStream()
    stream.feed(b'HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\r\n{"error":', 0.0)
    assert stream.is_over
    with pytest.raises(RuntimeError, match="503"):
        list(stream.pieces())


def test_a_stream_that_breaks_off_is_an_error() -> None:
    stream = EventStream()
    stream.feed(HEAD + chunk(said("12")) + b"0\r\n\r\n", 0.0)
    assert stream.is_over
    with pytest.raises(RuntimeError, match="not a whole reply"):
        list(stream.pieces())


def test_every_chat_is_another_one() -> None:
    assert len(set(bodies(256))) == 256


def reply(asked: float, *arrivals: float) -> Timed:
    return Timed(asked, [" 1" for _ in arrivals], list(arrivals))


def test_a_round_is_as_long_as_its_last_reply() -> None:
    both = Round([reply(10.0, 10.5, 11.0), reply(10.1, 10.3, 14.0)])
    assert both.rate == pytest.approx(1.0)
    assert both.first_token == pytest.approx(350.0)


def test_rounds_are_compared_in_pairs() -> None:
    compared = Compared()
    for slow in (1.0, 10.0):  # the machine
        compared.add(DIRECT, [reply(0.0, 1.0 * slow, 2.0 * slow)])
        compared.add(HTTP, [reply(0.0, 1.0 * slow + 0.005, 4.0 * slow)])
    compared.spent(HTTP, {"relay": 0.5})
    compared.spent(HTTP, {"relay": 0.7})
    assert compared.ratio().median == pytest.approx(0.5)
    assert compared.added().median == pytest.approx(5.0)
    assert compared.same() == 1.0
    assert compared.processor_us(HTTP) == {"relay": 300_000.0}
