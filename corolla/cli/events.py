"""Server-sent events: bytes in, the data of each event out (https://html.spec.whatwg.org/#server-sent-events).

Does not know what the events say. httpx's own lines will not do: they end at U+2028, U+0085 and others, which
models say in the middle of JSON texts.
"""

from collections.abc import Iterable, Iterator

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""More than any reply has."""


class EventTooLong(Exception):
    """An event has more bytes than any reply has."""


def event_data(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each event, in whatever parts its bytes come. An event that is not whole is left out.

    Raises:
        EventTooLong: see there.
    """
    data: list[bytes] = []
    for line in _lines(parts):
        if not line and data:
            yield b"\n".join(data)
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
            if sum(map(len, data)) > MAX_EVENT_BYTES:
                raise EventTooLong


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Each line that has ended. A relay ends them with a line feed; a carriage return may come before."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)
        if len(rest) > MAX_EVENT_BYTES:
            raise EventTooLong
